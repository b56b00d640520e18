"""Turns on the beat of a clock, and the transport that starts and stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean

import pytest

from engine.events import Timed
from perceivers_live.clock.midi_clock import CONTINUE, START, STOP, TICK, MidiClock, Transport
from perceivers_live.clock.ticks import PPQ
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.turns import MIN_REPLY
from tests.perceivers_live.playing import PLAYING, check, check_at_rest, human_plays, musicians, onsets, playing
from tests.perceivers_live.toys import Musician, improviser, steady
from tests.perceivers_live.virtual_session import VirtualSession, note, phrase


class ClockedSession:
    """A virtual session with a MIDI clock, which ticks while the session runs; the song's first beat is at ``song``."""

    def __init__(
        self, bpm: float, musician: Musician = improviser, settings: PhraseSettings | None = None, **controls: object
    ) -> None:
        self.clock = MidiClock(lambda: self.session.now)
        self.session = VirtualSession(musician, controls, settings, beats=self.clock)
        self.period = 60 / bpm
        self.song = self.due = 0.1234

    def send(self, status: int) -> None:
        change = self.clock.feed(self.session.now, [status])
        if change is not None:
            self.session.performer.transport(change, self.session.now)

    def run(self, until: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        while self.due <= until and not stop():
            self.session.run(self.due)
            if self.due == self.song:
                self.send(START)
            self.send(TICK)
            self.due += self.period / PPQ
        if not stop():
            self.session.run(until)

    def receive(self, actions: Sequence[Timed]) -> None:
        for one in actions:
            self.run(one.time)
            self.session.receive(one)

    def distance_from_beat(self, time: float, beats: int = 1) -> float:
        """Seconds between ``time`` and the nearest beat, or the nearest bar of ``beats`` beats."""
        length = beats * self.period
        return abs((time - self.song + length / 2) % length - length / 2)


@pytest.mark.parametrize("mode", PLAYING)
@pytest.mark.parametrize(("start_on", "beats"), [("beat", 1), ("bar", 4), ("bar", 3)])
@pytest.mark.parametrize("bpm", [57.0, 120.0, 171.0])
def test_a_turn_begins_on_the_beat(mode: str, start_on: str, beats: int, bpm: float) -> None:
    clocked = ClockedSession(bpm, mode="listen", start_on=start_on, beats_per_bar=beats)
    clocked.run(4.0)
    clocked.session.controls.set("mode", mode)
    began = clocked.session.now
    clocked.receive(phrase(4.3, 3 if mode == "duet" else 10, 0.25))
    clocked.run(began + 15.0, stop=lambda: bool(onsets(clocked.session)))
    assert clocked.distance_from_beat(onsets(clocked.session)[0].time, beats) < 0.010
    clocked.run(clocked.session.now + 1.0)
    check_at_rest(clocked.session)


@pytest.mark.parametrize("offset", [-0.15, 0.15])
@pytest.mark.parametrize("bpm", [110.0, 150.0, 190.0, 220.0])
def test_output_offset_shifts_the_start_of_a_turn_from_the_beat(bpm: float, offset: float) -> None:
    clocked = ClockedSession(bpm, start_on="beat", output_offset_ms=1000 * offset)
    clocked.receive(phrase(4.3, 10, 0.25))
    clocked.run(20.0, stop=lambda: bool(onsets(clocked.session)))
    assert clocked.distance_from_beat(onsets(clocked.session)[0].time - offset) < 0.010


@pytest.mark.parametrize("before", [0.05, 0.15, 0.25])
def test_a_duet_whose_phrase_ends_just_before_the_bar_is_short(before: float) -> None:
    """It has decided to begin when the phrase ends."""
    clocked = ClockedSession(120.0, mode="duet", start_on="bar", settings=PhraseSettings(min_silence_ms=500, max_silence_ms=500))
    session, bar = clocked.session, 0.1234 + 8.0
    last = bar - before - 0.5
    clocked.receive([*note(last - 0.6, 0.1, 60), *note(last - 0.3, 0.1, 62), *note(last, 0.01, 64)])
    clocked.run(60.0, stop=lambda: session.replying)
    clocked.run(60.0, stop=lambda: not session.replying)
    assert clocked.distance_from_beat(onsets(session)[0].time, 4) < 0.010
    assert session.now - bar < 6.0
    check_at_rest(session)


def test_a_duet_waits_for_the_beat_while_the_human_plays() -> None:
    clocked = ClockedSession(40.0, mode="duet", start_on="bar")
    clocked.receive(phrase(1.0, 45, 0.15))
    assert clocked.distance_from_beat(onsets(clocked.session)[0].time, 4) < 0.010
    check_at_rest(clocked.session)


@pytest.mark.parametrize("min_notes", [1, 3])
def test_notes_while_a_reply_waits_for_the_bar_belong_to_the_phrase(min_notes: int) -> None:
    clocked = ClockedSession(60.0, start_on="bar", settings=PhraseSettings(min_notes=min_notes))
    session = clocked.session
    clocked.receive(phrase(0.3, 40, 0.25))
    countdown = session.countdowns[-1]
    assert countdown is not None
    clocked.run(countdown + 0.2)
    assert not session.replying, "the bar is still far"
    clocked.receive(note(session.now, 0.2, 40))
    end = session.now
    clocked.run(60.0, stop=lambda: bool(onsets(session)))
    assert clocked.distance_from_beat(onsets(session)[0].time, 4) < 0.010
    assert session.performer._turn.length == pytest.approx(end - 0.3, abs=0.1)


def test_a_takeover_waits_for_the_bar_while_the_human_plays_on() -> None:
    clocked = ClockedSession(60.0, start_on="bar")
    session = clocked.session
    clocked.receive(phrase(4.3, 4, 0.25))
    session.command(session.performer.takeover)
    clocked.receive(phrase(5.5, 10, 0.2))
    clocked.run(9.0, stop=lambda: bool(onsets(session)))
    assert clocked.distance_from_beat(onsets(session)[0].time, 4) < 0.010
    assert onsets(session)[0].time < 9.0


@pytest.mark.parametrize("before", [0.05, 0.1, 0.2, 0.29, 0.4])
def test_a_note_just_before_the_bar_keeps_the_takeover(before: float) -> None:
    """The machine has already decided its first notes then."""
    clocked = ClockedSession(120.0, start_on="bar")
    session, bar = clocked.session, 0.1234 + 8.0
    clocked.receive(phrase(4.3, 4, 0.25))
    clocked.run(6.5)
    session.command(session.performer.takeover)
    clocked.receive(note(bar - before, 0.04, 70))
    clocked.run(bar + 1.0, stop=lambda: bool(onsets(session)))
    assert onsets(session)[0].time == pytest.approx(bar, abs=0.02)
    check_at_rest(session)


@pytest.mark.parametrize("before", [0.05, 0.1, 0.2, 0.29, 0.4])
def test_a_note_just_before_the_bar_continues_the_phrase(before: float) -> None:
    clocked = ClockedSession(120.0, start_on="bar")
    session = clocked.session
    clocked.receive(phrase(0.3, 30, 0.25))
    clocked.run(60.0, stop=lambda: session.performer._start.awaits_beat)
    bar = session.countdowns[-1]
    assert bar is not None
    clocked.receive(note(bar - before, 0.04, 70))
    clocked.run(60.0, stop=lambda: bool(onsets(session)))
    assert clocked.distance_from_beat(onsets(session)[0].time, 4) < 0.010
    assert onsets(session)[0].time > bar + 1.0
    assert session.performer._turn.length == pytest.approx(bar - before - 0.3, abs=0.1)
    clocked.run(session.now + 1.0)
    check_at_rest(session)


@pytest.mark.parametrize("cancel", ["yield_turn", "forget"])
def test_a_takeover_that_waits_for_the_bar_can_be_cancelled(cancel: str) -> None:
    clocked = ClockedSession(60.0, mode="duet", start_on="bar")
    session = clocked.session
    clocked.run(4.5)
    session.command(session.performer.takeover)
    session.command(getattr(session.performer, cancel))
    clocked.run(20.0)
    assert not onsets(session)


def test_start_on_now_ends_the_wait_for_the_bar() -> None:
    clocked = ClockedSession(60.0, start_on="bar", beats_per_bar=16)
    session = clocked.session
    clocked.receive(phrase(0.3, 8, 0.2))
    clocked.run(5.0)
    assert not onsets(session)
    session.controls.set("start_on", "now")
    clocked.run(5.5)
    assert onsets(session)


def test_a_tempo_change_during_the_wait_moves_the_start() -> None:
    clocked = ClockedSession(40.0, start_on="bar")
    session = clocked.session
    clocked.receive(phrase(6.3, 8, 0.2))
    clocked.run(10.0)
    assert not onsets(session)
    again = session.performer.work(session.now)
    assert again is not None
    assert again < session.now + 0.1, "live, nothing else lets the performer see the tempo"
    beat = (clocked.due - clocked.song) / clocked.period  # of the next tick, at which the tempo changes
    clocked.period = 60 / 100
    bar = clocked.due + (8 - beat) * clocked.period  # 8 beats after the song's first
    clocked.run(20.0, stop=lambda: bool(onsets(session)))
    assert onsets(session)[0].time == pytest.approx(bar, abs=0.02)


def test_long_wait_for_the_bar_does_not_shorten_the_reply() -> None:
    clocked = ClockedSession(32.0, steady(30), start_on="bar", response_length=0.1)
    clocked.receive(phrase(0.6, 8, 0.2))
    clocked.run(60.0, stop=lambda: len(clocked.session.states) == 2)
    played = onsets(clocked.session)
    assert clocked.distance_from_beat(played[0].time, 4) < 0.010
    assert played[-1].time - played[0].time > MIN_REPLY - 1.0


@pytest.mark.parametrize("mode", PLAYING)
@pytest.mark.parametrize("start_on", ["beat", "bar"])
def test_without_a_clock_a_turn_begins_at_once(mode: str, start_on: str) -> None:
    plain, asked = playing(mode), playing(mode, start_on=start_on)
    assert asked.machine == plain.machine
    silent_clock = VirtualSession(controls={"mode": mode, "start_on": start_on}, beats=MidiClock(lambda: 0.0))
    silent_clock.receive(*phrase(0.03, 12, 0.2))
    silent_clock.run(plain.now)
    assert silent_clock.machine == plain.machine


@musicians
@pytest.mark.parametrize("mode", PLAYING)
@pytest.mark.parametrize("again", [START, CONTINUE])
def test_stopped_transport_silences_until_start_or_continue(mode: str, again: int, musician: Musician) -> None:
    clocked = ClockedSession(100.0, musician, mode=mode)
    session = clocked.session
    clocked.receive(phrase(0.3, 8, 0.2))
    clocked.run(20.0, stop=lambda: bool(session.port.sounding))
    clocked.send(STOP)
    assert session.port.silent
    check(session)
    count = len(session.machine)
    human_plays(session, 8)
    session.command(session.performer.takeover)
    session.run(session.now + 5.0)
    assert len(session.machine) == count
    clocked.send(again)
    human_plays(session, 8)
    session.run(session.now + 4.0)
    assert len(session.machine) > count
    check_at_rest(session)


@pytest.mark.parametrize("ticks_while_stopped", [True, False])
@pytest.mark.parametrize(("start_on", "beats"), [("beat", 1), ("bar", 4)])
def test_a_turn_after_a_continue_begins_on_the_beat(start_on: str, beats: int, ticks_while_stopped: bool) -> None:
    """Right after a continue in the middle of a bar, the next beat is not known yet."""
    clocked = ClockedSession(120.0, mode="solo", start_on=start_on, hold=True)
    session, tick = clocked.session, clocked.period / PPQ

    def run(ticks: int, *, send: bool) -> None:
        for _ in range(ticks):
            session.run(session.now + tick)
            if send:
                clocked.send(TICK)

    clocked.send(START)
    run(36, send=True)
    clocked.send(STOP)
    session.controls.set("hold", False)
    run(48, send=ticks_while_stopped)
    clocked.send(CONTINUE)
    begun = session.now + tick  # beat 1.5
    run(6 * PPQ, send=True)
    position = 1.5 + (onsets(session)[0].time - begun) / clocked.period
    assert abs((position + beats / 2) % beats - beats / 2) < 0.04


def test_stopping_the_transport_cancels_the_pending_answer() -> None:
    clocked = ClockedSession(100.0)
    clocked.receive(phrase(0.3, 8, 0.2))
    clocked.send(STOP)
    clocked.session.run(clocked.session.now + 5)
    clocked.send(START)
    clocked.session.run(clocked.session.now + 5)
    assert clocked.session.machine == []


def test_moving_the_songs_position_changes_nothing() -> None:
    session = playing("solo")
    session.performer.transport(Transport.MOVED, session.now)
    assert session.replying


def mean_distance_from_grid(bpm: float, pulse: float, parts: int) -> float:
    """Mean distance, in seconds, of the machine's notes from parts of the beat, chords as one note."""
    clocked = ClockedSession(bpm, mode="listen", pulse=pulse, pace=0)
    clocked.run(3.0)
    clocked.receive([one for i in range(12) for one in note(clocked.song + (8 + i / parts) * clocked.period, 0.05, 60 + i)])
    clocked.session.controls.set("mode", "solo")
    clocked.run(clocked.session.now + 12.0)
    onset_times = [one.time for one in onsets(clocked.session)][1:]  # a solo begins at once
    heads = [time for before, time in pairwise(onset_times) if time - before > 0.055]
    assert len(heads) > 15
    width = clocked.period / parts
    check_at_rest(clocked.session)
    return fmean(abs((time - clocked.song + width / 2) % width - width / 2) for time in heads)


@pytest.mark.parametrize(("bpm", "parts"), [(60.0, 4), (90.0, 3), (120.0, 4), (180.0, 2)])
def test_pulse_aligns_notes_to_the_humans_subdivision_of_the_beat(bpm: float, parts: int) -> None:
    free, halfway, firm = (mean_distance_from_grid(bpm, pulse, parts) for pulse in (0.0, 0.5, 1.0))
    assert free > halfway > firm
    assert firm < 0.008
    assert free > 60 / bpm / parts / 4 * 0.7  # random notes have a quarter of the width


def test_without_a_clock_the_pulse_changes_nothing() -> None:
    assert playing("solo", pulse=1.0).machine == playing("solo").machine
