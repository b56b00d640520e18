"""A MIDI clock followed on a virtual time: whatever the ticks go through, the beats are where they are."""

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
CLOSE = 0.0015  # seconds: how far from the truth a beat that is foreseen may be


class Sender:
    """A song with its clock, and the clock that follows it. ``now`` is the time, ``due`` when the next tick should come."""

    def __init__(self, bpm: float = 120.0, jitter: float = 0.0, seed: int = 0) -> None:
        self.bpm = bpm
        self.now = self.due = 1000.0
        self.clock = MidiClock(lambda: self.now)
        self._jitter, self._random = jitter, random.Random(seed)

    def send(self, *message: int) -> Transport | None:
        return self.clock.feed(self.now, message)

    def tick(self, times: int = 1, delay: float = 0.0) -> None:
        """The next tick; ``times`` 0: it gets lost, 2: it comes twice."""
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
        """The tempo and the beats ahead are those of a song that started at ``song`` and kept its tempo since."""
        period, after = 60 / self.bpm, self.due
        beat, bar = self.clock.next_beat(after + period / 4), self.clock.next_bar(after, 4)
        assert self.clock.bpm == pytest.approx(self.bpm, rel=0.005)
        assert beat is not None
        assert bar is not None
        assert off(beat - self.song, period) < CLOSE
        assert off(bar - self.song, 4 * period) < 4 * CLOSE  # it is up to four beats ahead
        assert self.clock.position(self.due) * period == pytest.approx(self.due - self.song, abs=CLOSE)


def off(time: float, period: float) -> float:
    """How far from a multiple of ``period``."""
    return abs((time + period / 2) % period - period / 2)


def test_before_anything_came_there_is_no_beat() -> None:
    clock: Beats = MidiClock(lambda: 5.0)
    assert (clock.bpm, clock.running, clock.position(5.0)) == (None, False, 0.0)
    assert (clock.next_beat(5.0), clock.next_bar(5.0, 4)) == (None, None)


def test_a_steady_clock_says_when_the_beats_come() -> None:
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
def test_jitter_is_smoothed_and_nothing_drifts(bpm: float, seed: int) -> None:
    sender = Sender(bpm, JITTER, seed)
    sender.start()
    sender.play(5)
    sender.play(60, sender.check)


def test_a_beat_that_was_foreseen_is_not_foreseen_again_when_it_is_known_better() -> None:
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
def test_another_tempo_is_known_within_a_beat_and_no_tick_is_miscounted(before: float, after: float, seed: int) -> None:
    sender = Sender(before, JITTER, seed)
    sender.start()
    sender.play(10)
    sender.bpm = after
    sender.song = sender.due - 10 * 60 / after  # as if it had been so from the start
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
def test_a_late_tick_and_those_that_wait_behind_it_change_nothing(delay: float) -> None:
    sender = Sender(120, JITTER)
    sender.start()
    sender.play(6)
    sender.tick(delay=delay)
    sender.check()
    sender.play(6, sender.check)


@pytest.mark.parametrize("bpm", [100, 119, 120, 125, 130, 240])
def test_ticks_that_come_at_the_periods_of_a_sound_card_are_followed(bpm: float) -> None:
    """JACK hands over what came in a period at its end: here 21 ms, about as long as a tick."""
    sender, period = Sender(bpm), 1024 / 48000
    for tick in range(80 * PPQ):
        if tick == 6 * PPQ:
            sender.start()
        sender.tick(delay=-sender.due % period)
        if tick > 40 * PPQ:
            assert sender.clock.bpm == pytest.approx(bpm, rel=0.005)
            assert off((sender.clock.next_beat(sender.now) or 0.0) - sender.song - period / 2, 60 / bpm) < 0.006


@pytest.mark.parametrize("bpm", [90.0, 110.0, 119.0, 120.0, 125.0, 140.0])
@pytest.mark.parametrize("before", [0, 150])  # ticks before the start
def test_with_the_period_known_the_beats_are_right_from_the_second_on(bpm: float, before: int) -> None:
    """Without it, ticks of nearly the length of a period seem to be lost, for several beats."""
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


def test_ticks_before_the_start_tell_the_tempo_and_do_not_count() -> None:
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


def test_the_first_tick_after_the_start_is_the_beat_even_if_it_comes_between_the_ticks_so_far() -> None:
    sender = Sender(120, JITTER)
    sender.play(8)
    sender.now = sender.due = sender.due - 0.010
    sender.start()
    for _ in range(12):
        sender.tick()
        assert sender.clock.next_beat(sender.now + 0.1) == pytest.approx(sender.song + 0.5, abs=0.0025)
    sender.play(4)
    sender.play(4, sender.check)


def test_a_tempo_that_changed_in_the_pause_is_known_within_a_beat() -> None:
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


def test_a_start_while_running_starts_again() -> None:
    sender = Sender()
    sender.start()
    sender.play(3.5)
    assert sender.send(START) is Transport.STARTED
    assert sender.clock.position(sender.now) == 0
    sender.song = sender.due
    sender.play(1)
    sender.check()


def test_it_stands_while_stopped_and_goes_on_with_the_next_tick() -> None:
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


def test_a_clock_that_pauses_with_the_song_has_its_tempo_at_once() -> None:
    sender = Sender(120)
    sender.start()
    sender.play(8)
    sender.send(STOP)
    sender.now = sender.due = sender.due + 30
    sender.send(CONTINUE)
    sender.song = sender.due - 8 / 2
    sender.play(2, sender.check)


def test_the_song_position_is_counted_in_sixteenths() -> None:
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


def test_a_song_position_while_running_or_malformed_changes_nothing() -> None:
    sender = Sender()
    for message in ((SONG_POSITION,), (SONG_POSITION, 4), (SONG_POSITION, 4, 0, 0), (SONG_POSITION, 4, 128), ()):
        assert sender.send(*message) is None
    assert sender.clock.position(sender.now) == 0
    sender.start()
    sender.play(2)
    assert sender.send(SONG_POSITION, 6, 1) is None
    sender.play(2, sender.check)


def test_a_clock_that_dies_is_not_running_and_may_come_back() -> None:
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


def test_a_start_without_a_clock_dies_too() -> None:
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
def test_no_messages_at_any_time_make_it_fail(messages: list[tuple[float, bytes, int]], beats: int, ahead: float) -> None:
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
            assert off(clock.position(beat), 1) < 1e-6
            assert off(clock.position(bar), beats) < 1e-6


def test_it_may_be_read_while_it_is_fed() -> None:
    sender, over, wrong = Sender(120, JITTER), threading.Event(), []

    def read() -> None:
        while not over.is_set():
            after = sender.now + 0.25
            bar, position = sender.clock.next_bar(after, 4), sender.clock.position(after)
            if bar is not None and not (after < bar < after + 2.1 and off(bar - sender.song, 2.0) < 0.03):
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
