"""The MIDI clock follower in virtual time: jittering, lost, doubled and late ticks do not move the beats."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers_live.clock.midi_clock import CONTINUE, SONG_POSITION, START, STOP, TICK, Beats, MidiClock, Transport
from perceivers_live.clock.ticks import PPQ

JITTER = 0.002  # seconds either way
CLOSE = 0.0015  # seconds: the largest allowed error of a predicted beat


class Sender:
    """A song with its MIDI clock, and the clock that follows it. ``now`` is the time, ``due`` when the next tick is due."""

    def __init__(self, bpm: float = 120.0, jitter: float = 0.0, seed: int = 0) -> None:
        self.bpm = bpm
        self.now = self.due = 1000.0
        self.clock = MidiClock(lambda: self.now)
        self._jitter, self._random = jitter, random.Random(seed)

    def send(self, *message: int) -> Transport | None:
        return self.clock.feed(self.now, message)

    def tick(self, times: int = 1, delay: float = 0.0) -> None:
        """Sends the next tick; ``times`` 0: it is lost, 2: it is doubled."""
        self.now = max(self.now, self.due + delay + self._random.uniform(-self._jitter, self._jitter))
        for _ in range(times):
            assert self.send(TICK) is None
        self.due += 60 / self.bpm / PPQ

    def play(self, beats: float, each: Callable[[], None] = lambda: None) -> None:
        for _ in range(round(beats * PPQ)):
            self.tick()
            each()

    def start(self, *message: int) -> None:
        self.send(*(message or (START,)))
        self.song = self.due

    def check(self) -> None:
        """Checks that tempo and next beats are those of a song that started at ``song`` and has kept its tempo."""
        period, after = 60 / self.bpm, self.due
        beat, bar = self.clock.next_beat(after + period / 4), self.clock.next_bar(after, 4)
        assert self.clock.bpm == pytest.approx(self.bpm, rel=0.005)
        assert beat is not None
        assert bar is not None
        assert distance(beat - self.song, period) < CLOSE
        assert distance(bar - self.song, 4 * period) < 4 * CLOSE  # it is up to four beats ahead
        assert self.clock.position(self.due) * period == pytest.approx(self.due - self.song, abs=CLOSE)


def distance(time: float, period: float) -> float:
    """Distance to the nearest multiple of ``period``."""
    return abs((time + period / 2) % period - period / 2)


def test_no_beat_before_the_first_message() -> None:
    clock: Beats = MidiClock(lambda: 5.0)
    assert (clock.bpm, clock.running, clock.position(5.0)) == (None, False, 0.0)
    assert (clock.next_beat(5.0), clock.next_bar(5.0, 4)) == (None, None)


def test_steady_clock_predicts_beats_and_bars() -> None:
    sender = Sender(bpm=120)
    assert sender.send(START) is Transport.STARTED
    sender.play(5.25)
    clock, start = sender.clock, 1000.0
    assert clock.running
    assert clock.bpm == pytest.approx(120)
    assert clock.position(start + 2.6) == pytest.approx(5.2)
    assert clock.next_beat(start + 2.6) == pytest.approx(start + 3.0)
    assert clock.next_bar(start + 2.6, 4) == pytest.approx(start + 4.0)
    assert clock.next_bar(start + 2.6, 3) == pytest.approx(start + 3.0)


@pytest.mark.parametrize("bpm", [40, 120, 280])
@pytest.mark.parametrize("seed", range(3))
def test_jitter_is_smoothed_without_drift(bpm: float, seed: int) -> None:
    sender = Sender(bpm, JITTER, seed)
    sender.start()
    sender.play(5)
    sender.play(60, sender.check)


def test_corrected_prediction_does_not_repeat_a_beat() -> None:
    sender = Sender(jitter=JITTER)
    sender.start()
    sender.play(4.5)
    beats = [sender.clock.next_beat(sender.now)]
    for _ in range(20):
        assert beats[-1] is not None
        sender.play(1)
        beats.append(sender.clock.next_beat(beats[-1]))
    assert [round((beat or 0.0) - sender.song, 2) for beat in beats] == [0.5 * number for number in range(5, 26)]


@pytest.mark.parametrize(
    ("before", "after"), [(120, 60), (60, 120), (120, 90), (80, 128), (180, 216), (120, 126), (126, 120), (100, 97)]
)
@pytest.mark.parametrize("seed", range(4))
def test_tempo_change_is_detected_within_a_beat_without_miscounted_ticks(before: float, after: float, seed: int) -> None:
    sender = Sender(before, JITTER, seed)
    sender.start()
    sender.play(10)
    sender.bpm = after
    sender.song = sender.due - 10 * 60 / after  # as if the song had had this tempo from the start
    sender.play(1.1)
    sender.play(3, lambda: close_to(sender.clock.bpm, after, 0.012))
    sender.play(3)
    sender.play(20, sender.check)


def close_to(bpm: float | None, truth: float, share: float) -> None:
    assert bpm == pytest.approx(truth, rel=share)


def test_an_accelerando_is_followed() -> None:
    sender = Sender(100, JITTER)
    sender.start()
    sender.play(4)
    for tick in range(32 * PPQ):
        sender.bpm = 100 + 40 * tick / (32 * PPQ)
        sender.tick()
        assert sender.clock.bpm == pytest.approx(sender.bpm, rel=0.04)
        assert sender.clock.position(sender.due) * PPQ == pytest.approx(4 * PPQ + tick + 1, abs=0.3)


@pytest.mark.parametrize("seed", range(3))
def test_lost_and_doubled_ticks_change_nothing(seed: int) -> None:
    sender, fate = Sender(120, JITTER, seed), random.Random(seed)
    sender.start()
    sender.play(5)
    for _ in range(80 * PPQ):
        sender.tick(times=fate.choices([0, 1, 2], [1, 200, 1])[0])
        sender.check()


def test_a_gap_of_many_ticks_changes_nothing() -> None:
    sender = Sender(120, JITTER)
    sender.start()
    sender.play(6)
    for _ in range(10):
        sender.tick(times=0)
    sender.play(6, sender.check)


@pytest.mark.parametrize("delay", [0.009, 0.015, 0.1])
def test_late_tick_and_ticks_queued_behind_it_change_nothing(delay: float) -> None:
    sender = Sender(120, JITTER)
    sender.start()
    sender.play(6)
    sender.tick(delay=delay)
    sender.check()
    sender.play(6, sender.check)


@pytest.mark.parametrize("bpm", [100, 119, 120, 125, 130, 240])
def test_ticks_quantized_to_audio_periods_are_followed(bpm: float) -> None:
    """JACK delivers the messages of a period at its end; here a period is 21 ms, about as long as a tick."""
    sender, period = Sender(bpm), 1024 / 48000
    for tick in range(80 * PPQ):
        if tick == 6 * PPQ:
            sender.start()
        sender.tick(delay=-sender.due % period)
        if tick > 40 * PPQ:
            assert sender.clock.bpm == pytest.approx(bpm, rel=0.005)
            assert distance((sender.clock.next_beat(sender.now) or 0.0) - sender.song - period / 2, 60 / bpm) < 0.006


@pytest.mark.parametrize("bpm", [90.0, 110.0, 119.0, 120.0, 125.0, 140.0])
@pytest.mark.parametrize("before", [0, 150])  # ticks before the start
def test_beats_are_right_from_the_second_one_if_the_audio_period_is_known(bpm: float, before: int) -> None:
    """If it is unknown, ticks that are about as long as a period seem to be lost for several beats."""
    period, now, errors = 1024 / 48000, [0.0], []
    clock, tick = MidiClock(lambda: now[0]), 60 / bpm / PPQ
    clock.set_resolution(period)
    for number in range(before + 12 * PPQ):
        now[0] = math.ceil(number * tick / period) * period
        if number == before:
            clock.feed(now[0], (START,))
        clock.feed(now[0], (TICK,))
        beats = (number - before) / PPQ
        if beats >= 1 and beats.is_integer():
            found = clock.next_beat(now[0])
            assert found is not None
            errors.append(min(abs(found - (before + beat * PPQ) * tick) for beat in (beats, beats + 1)))
    assert max(errors) < 1.5 * period


def test_ticks_before_the_start_set_the_tempo_but_not_the_position() -> None:
    sender = Sender(90)
    sender.play(7.3)
    clock = sender.clock
    assert clock.bpm == pytest.approx(90)
    assert (clock.running, clock.position(sender.now), clock.next_beat(sender.now)) == (False, 0.0, None)
    sender.start()
    assert (clock.running, clock.position(sender.now), clock.next_beat(sender.now)) == (True, 0.0, None)
    sender.tick()
    assert clock.position(sender.now) == pytest.approx(0, abs=1e-6)
    assert clock.next_beat(sender.now) == pytest.approx(sender.song + 60 / 90)


def test_first_tick_after_the_start_is_the_beat_even_between_earlier_ticks() -> None:
    sender = Sender(120, JITTER)
    sender.play(8)
    sender.now = sender.due = sender.due - 0.010
    sender.start()
    for _ in range(12):
        sender.tick()
        assert sender.clock.next_beat(sender.now + 0.1) == pytest.approx(sender.song + 0.5, abs=0.0025)
    sender.play(4)
    sender.play(4, sender.check)


def test_tempo_change_during_a_pause_is_detected_within_a_beat() -> None:
    sender = Sender(120, JITTER)
    sender.play(8)
    for bpm in (132, 60, 124):
        sender.bpm, sender.due = bpm, sender.due + 10
        sender.now = sender.due
        sender.start()
        sender.play(1.1)
        sender.play(2, lambda: close_to(sender.clock.bpm, sender.bpm, 0.012))
        sender.play(3)
        sender.play(8, sender.check)


def test_start_while_running_restarts_the_song() -> None:
    sender = Sender()
    sender.start()
    sender.play(3.5)
    assert sender.send(START) is Transport.STARTED
    assert sender.clock.position(sender.now) == 0
    sender.song = sender.due
    sender.play(1)
    sender.check()


def test_stop_keeps_the_position_and_continue_resumes_with_the_next_tick() -> None:
    sender = Sender(120, JITTER)
    sender.start()
    sender.play(6.5)
    assert sender.send(STOP) is Transport.STOPPED
    assert sender.send(STOP) is Transport.STOPPED
    clock = sender.clock
    sender.play(3.7, lambda: close_to(clock.bpm, 120, 0.005))
    assert (clock.running, clock.next_beat(sender.now), clock.next_bar(sender.now, 4)) == (False, None, None)
    assert clock.position(sender.now) == 6.5
    sender.song = sender.due - 6.5 / 2
    assert sender.send(CONTINUE) is Transport.CONTINUED
    assert clock.position(sender.now) == 6.5
    assert sender.send(CONTINUE) is None
    sender.play(10, sender.check)


def test_tempo_is_known_at_once_after_a_pause_without_ticks() -> None:
    sender = Sender(120)
    sender.start()
    sender.play(8)
    sender.send(STOP)
    sender.now = sender.due = sender.due + 30
    sender.send(CONTINUE)
    sender.song = sender.due - 8 / 2
    sender.play(2, sender.check)


def test_song_position_is_counted_in_sixteenths() -> None:
    sender = Sender()
    sender.play(4)
    assert sender.send(SONG_POSITION, 6, 1) is Transport.MOVED
    assert sender.clock.position(sender.now) == 134 / 4
    assert not sender.clock.running
    sender.song = sender.due - 134 / 4 / 2
    assert sender.send(CONTINUE) is Transport.CONTINUED
    sender.play(2, sender.check)
    sender.send(STOP)
    sender.start()
    sender.play(2, sender.check)


def test_song_position_is_ignored_while_running_or_if_malformed() -> None:
    sender = Sender()
    for message in ((SONG_POSITION,), (SONG_POSITION, 4), (SONG_POSITION, 4, 0, 0), (SONG_POSITION, 4, 128), ()):
        assert sender.send(*message) is None
    assert sender.clock.position(sender.now) == 0
    sender.start()
    sender.play(2)
    assert sender.send(SONG_POSITION, 6, 1) is None
    sender.play(2, sender.check)


def test_clock_without_ticks_stops_running_and_resumes_with_new_ticks() -> None:
    sender = Sender(120)
    sender.start()
    sender.play(8)
    clock, last = sender.clock, sender.now
    sender.now = last + 0.4
    assert clock.running
    assert clock.position(sender.now) == pytest.approx(8 + 0.8, abs=0.05)
    sender.now = last + 0.6
    assert (clock.running, clock.next_beat(sender.now), clock.next_bar(sender.now, 4)) == (False, None, None)
    assert (clock.position(sender.now), clock.bpm) == (8.0, pytest.approx(120))
    sender.due = sender.now = last + 5
    sender.song = sender.due - 8 / 2
    sender.play(2, sender.check)


def test_beats_are_unknown_after_the_input_was_lost_until_the_next_start() -> None:
    sender = Sender(120)
    assert not sender.clock.lost()
    sender.start()
    sender.play(8)
    assert sender.clock.lost()
    sender.due += 3.2  # its ticks were not received
    sender.play(4)
    assert (sender.clock.running, sender.clock.next_beat(sender.now)) == (False, None)
    sender.start()
    sender.play(2)
    sender.check()


def test_start_without_ticks_stops_running_after_a_timeout() -> None:
    sender = Sender()
    sender.start()
    assert sender.clock.running
    sender.now += 1.1
    assert not sender.clock.running
    assert sender.send(CONTINUE) is Transport.CONTINUED
    assert sender.clock.running


MESSAGES = st.one_of(
    st.just(bytes([TICK])),
    st.sampled_from([bytes([status]) for status in (TICK, START, CONTINUE, STOP)]),
    st.builds(lambda low, high: bytes([SONG_POSITION, low, high]), st.integers(0, 127), st.integers(0, 127)),
    st.binary(max_size=4),
)
GAPS = st.one_of(st.just(0.02), st.floats(0.0, 0.05), st.floats(0.0, 3.0))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(GAPS, MESSAGES, st.integers(1, 30)), max_size=30), st.integers(1, 7), st.floats(0.0, 100.0))
def test_any_messages_at_any_time_give_valid_results(messages: list[tuple[float, bytes, int]], beats: int, ahead: float) -> None:
    sender = Sender()
    clock = sender.clock
    for gap, message, times in messages:
        for _ in range(times):
            sender.now += gap
            sender.send(*message)
        after = sender.now + ahead
        bpm, beat, bar = clock.bpm, clock.next_beat(after), clock.next_bar(after, beats)
        assert bpm is None or 4.9 < bpm < 2501
        assert 0 <= clock.position(sender.now) < math.inf
        assert (beat is None) == (bar is None)
        if beat is not None and bar is not None:
            assert clock.running
            assert after < beat <= bar
            assert distance(clock.position(beat), 1) < 1e-6
            assert distance(clock.position(bar), beats) < 1e-6


def test_clock_can_be_read_from_another_thread_while_fed() -> None:
    sender, over, wrong = Sender(120, JITTER), threading.Event(), []

    def read() -> None:
        while not over.is_set():
            after = sender.now + 0.25
            bar, position = sender.clock.next_bar(after, 4), sender.clock.position(after)
            if bar is not None and not (after < bar < after + 2.1 and distance(bar - sender.song, 2.0) < 0.03):
                wrong.append((after, bar, position))

    sender.start()
    reader = threading.Thread(target=read)
    reader.start()
    try:
        sender.play(60)
    finally:
        over.set()
        reader.join()
    assert not wrong
