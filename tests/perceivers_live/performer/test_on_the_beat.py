"""Turns on the beat of a clock, and the transport that starts and stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean

import pytest

from engine.events import Timed
from perceivers_live.clock.midi_clock import CONTINUE, START, STOP, TICK, MidiClock, Transport
from perceivers_live.clock.ticks import PPQ
from perceivers_live.performer.performer import MIN_REPLY
from tests.perceivers_live.playing import PLAYING, check, check_at_rest, go_on, musicians, onsets, playing
from tests.perceivers_live.toys import Musician, improviser, steady
from tests.perceivers_live.virtual_stage import Stage, note, phrase


class Drummer:
    """A MIDI clock at so many beats a minute, fed while the stage runs; the song's first beat is at ``song``."""

    def __init__(self, bpm: float, musician: Musician = improviser, **controls: object) -> None:
        self.clock = MidiClock(lambda: self.stage.now)
        self.stage = Stage(musician, controls, beats=self.clock)
        self.period = 60 / bpm
        self.song = self.due = 0.1234

    def send(self, status: int) -> None:
        change = self.clock.feed(self.stage.now, [status])
        if change is not None:
            self.stage.performer.transport(change, self.stage.now)

    def run(self, until: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        while self.due <= until and not stop():
            self.stage.run(self.due)
            if self.due == self.song:
                self.send(START)
            self.send(TICK)
            self.due += self.period / PPQ
        if not stop():
            self.stage.run(until)

    def hear(self, actions: Sequence[Timed]) -> None:
        for one in actions:
            self.run(one.time)
            self.stage.hear(one)

    def off(self, time: float, beats: int = 1) -> float:
        """Seconds between ``time`` and the nearest beat, or bar of so many."""
        length = beats * self.period
        return abs((time - self.song + length / 2) % length - length / 2)


@pytest.mark.parametrize("mode", PLAYING)
@pytest.mark.parametrize(("start_on", "beats"), [("beat", 1), ("bar", 4), ("bar", 3)])
@pytest.mark.parametrize("bpm", [57.0, 120.0, 171.0])
def test_a_turn_begins_on_the_beat(mode: str, start_on: str, beats: int, bpm: float) -> None:
    drummer = Drummer(bpm, mode="listen", start_on=start_on, beats_per_bar=beats)
    drummer.run(4.0)
    drummer.stage.controls.set("mode", mode)
    began = drummer.stage.now
    drummer.hear(phrase(4.3, 3 if mode == "duet" else 10, 0.25))
    if mode == "duet":
        assert drummer.stage.replying
    drummer.run(began + 15.0, stop=lambda: bool(onsets(drummer.stage)))
    assert drummer.off(onsets(drummer.stage)[0].time, beats) < 0.010
    drummer.run(drummer.stage.now + 1.0)
    check_at_rest(drummer.stage)


@pytest.mark.parametrize("offset", [-0.15, 0.15])
@pytest.mark.parametrize("bpm", [110.0, 150.0, 190.0, 220.0])
def test_with_an_output_offset_a_turn_begins_that_long_before_or_after_the_beat(bpm: float, offset: float) -> None:
    drummer = Drummer(bpm, start_on="beat", output_offset_ms=1000 * offset)
    drummer.hear(phrase(4.3, 10, 0.25))
    drummer.run(20.0, stop=lambda: bool(onsets(drummer.stage)))
    assert drummer.off(onsets(drummer.stage)[0].time - offset) < 0.010


def test_a_duet_waits_for_the_beat_while_the_human_plays() -> None:
    drummer = Drummer(40.0, mode="duet", start_on="bar")
    drummer.hear(phrase(1.0, 45, 0.15))
    assert drummer.off(onsets(drummer.stage)[0].time, 4) < 0.010
    check_at_rest(drummer.stage)


def test_a_reply_that_has_waited_long_for_its_bar_is_no_shorter_for_it() -> None:
    drummer = Drummer(32.0, steady(30), start_on="bar", response_length=0.1)
    drummer.hear(phrase(0.6, 8, 0.2))
    drummer.run(60.0, stop=lambda: len(drummer.stage.states) == 2)
    played = onsets(drummer.stage)
    assert drummer.off(played[0].time, 4) < 0.010
    assert played[-1].time - played[0].time > MIN_REPLY - 1.0


@pytest.mark.parametrize("mode", PLAYING)
@pytest.mark.parametrize("start_on", ["beat", "bar"])
def test_without_a_clock_a_turn_begins_at_once(mode: str, start_on: str) -> None:
    plain, asked = playing(mode), playing(mode, start_on=start_on)
    assert asked.machine == plain.machine
    silent_clock = Stage(controls={"mode": mode, "start_on": start_on}, beats=MidiClock(lambda: 0.0))
    silent_clock.hear(*phrase(0.03, 12, 0.2))
    silent_clock.run(plain.now)
    assert silent_clock.machine == plain.machine


@musicians
@pytest.mark.parametrize("mode", PLAYING)
@pytest.mark.parametrize("again", [START, CONTINUE])
def test_a_stopped_transport_means_silence_until_it_goes_on(mode: str, again: int, musician: Musician) -> None:
    drummer = Drummer(100.0, musician, mode=mode)
    stage = drummer.stage
    drummer.hear(phrase(0.3, 8, 0.2))
    drummer.run(20.0, stop=lambda: bool(stage.port.sounding))
    drummer.send(STOP)
    assert stage.port.silent
    check(stage)
    count = len(stage.machine)
    go_on(stage, 8)
    stage.command(stage.performer.takeover)
    stage.run(stage.now + 5.0)
    assert len(stage.machine) == count
    drummer.send(again)
    go_on(stage, 8)
    stage.run(stage.now + 4.0)
    assert len(stage.machine) > count
    check_at_rest(stage)


def test_stopping_the_transport_cancels_the_answer_that_is_due() -> None:
    drummer = Drummer(100.0)
    drummer.hear(phrase(0.3, 8, 0.2))
    drummer.send(STOP)
    drummer.stage.run(drummer.stage.now + 5)
    drummer.send(START)
    drummer.stage.run(drummer.stage.now + 5)
    assert drummer.stage.machine == []


def test_moving_the_songs_position_changes_nothing() -> None:
    stage = playing("solo")
    stage.performer.transport(Transport.MOVED, stage.now)
    assert stage.replying


def off_the_grid(bpm: float, pulse: float, parts: int) -> float:
    """Mean distance, in seconds, of the machine's notes from parts of the beat, chords as one note."""
    drummer = Drummer(bpm, mode="listen", pulse=pulse, pace=0)
    drummer.run(3.0)
    drummer.hear([one for i in range(12) for one in note(drummer.song + (8 + i / parts) * drummer.period, 0.05, 60 + i)])
    drummer.stage.controls.set("mode", "solo")
    drummer.run(drummer.stage.now + 12.0)
    struck = [one.time for one in onsets(drummer.stage)][1:]  # a solo begins at once
    heads = [time for before, time in pairwise(struck) if time - before > 0.055]
    assert len(heads) > 15
    width = drummer.period / parts
    check_at_rest(drummer.stage)
    return fmean(abs((time - drummer.song + width / 2) % width - width / 2) for time in heads)


@pytest.mark.parametrize(("bpm", "parts"), [(60.0, 4), (90.0, 3), (120.0, 4), (180.0, 2)])
def test_the_pulse_draws_notes_to_the_parts_of_the_beat_that_the_human_plays_on(bpm: float, parts: int) -> None:
    free, halfway, firm = (off_the_grid(bpm, pulse, parts) for pulse in (0.0, 0.5, 1.0))
    assert free > halfway > firm
    assert firm < 0.008
    assert free > 60 / bpm / parts / 4 * 0.7  # chance is a quarter of the width


def test_without_a_clock_the_pulse_changes_nothing() -> None:
    assert playing("solo", pulse=1.0).machine == playing("solo").machine
