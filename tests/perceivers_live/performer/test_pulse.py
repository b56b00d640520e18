"""Waits that end on a subdivision of the beat become likelier, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from engine.events import MAX_WAIT, NOTE_ON, WAITS, Timed
from perceivers_live.performer.pulse import Subdivision, grid


class Metronome:
    """Beats on a virtual clock; implements ``Beats``."""

    def __init__(self, bpm: float, first: float = 0.0, running: bool = True) -> None:
        self.bpm: float | None = bpm
        self.running = running
        self._period, self._first = 60 / bpm, first

    def position(self, now: float) -> float:
        return (now - self._first) / self._period

    def next_beat(self, after: float) -> float | None:
        return self.next_bar(after, 1)

    def next_bar(self, after: float, beats: int) -> float | None:
        return self._first + (np.floor(self.position(after) / beats) + 1) * beats * self._period


STEPS = np.arange(WAITS)


def odds_of(metronome: Metronome, now: float, strength: float, kept: int = 0) -> np.ndarray:
    """The log-odds of the waits from ``now``, where the engine's step is 700; a beat has four parts."""
    lines = grid(metronome, now, 700, strength, 4)
    assert lines is not None
    return lines.log_odds(700, STEPS, kept)


@pytest.mark.parametrize("bpm", [60.0, 90.0, 120.0, 180.0])
@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
def test_pulse_keeps_the_mean_odds_of_the_waits(bpm: float, strength: float) -> None:
    odds = odds_of(Metronome(bpm, 0.123), 3.0, strength)
    width = 6000 / bpm / 4
    cells = int(MAX_WAIT // width)
    assert np.exp(odds[: round(cells * width)]).mean() == pytest.approx(1, abs=0.15)


def test_stronger_pulse_concentrates_the_waits_on_the_grid() -> None:
    spreads = []
    for strength in (0.25, 0.5, 1.0):
        odds = odds_of(Metronome(120.0), 3.04, strength)
        share = np.exp(odds[:100]) / np.exp(odds[:100]).sum()
        apart = np.abs((304 + STEPS[:100] + 6.25) % 12.5 - 6.25)
        spreads.append(float(share @ apart))
        assert apart[odds[:100].argmax()] < 1
    assert spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 0.7


def test_waits_within_a_chord_and_the_longest_keep_their_odds() -> None:
    odds = odds_of(Metronome(120.0), 3.03, 1.0, kept=3)
    assert odds[:4].tolist() == [0, 0, 0, 0]
    assert odds[MAX_WAIT] == 0
    assert odds[4] < -1


def test_no_grid_without_strength_or_a_running_beat() -> None:
    assert grid(None, 3.0, 0, 1.0, 4) is None
    assert grid(Metronome(120.0), 3.0, 0, 0.0, 4) is None
    assert grid(Metronome(120.0, running=False), 3.0, 0, 1.0, 4) is None


def test_the_grid_of_a_steady_beat_is_the_same_at_every_event() -> None:
    metronome = Metronome(97.0, 0.37)
    assert len({grid(metronome, 12.34 + step / 100, 500 + step, 0.7, 3) for step in range(0, 60_000, 77)}) == 1


@pytest.mark.parametrize(("parts", "seed"), [(2, 1), (3, 2), (4, 3)])
def test_the_subdivision_is_the_coarsest_that_the_human_plays_on(parts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    subdivision = Subdivision(Metronome(90.0, 0.4))
    for i in range(20):
        time = 0.4 + i / parts * 60 / 90 + rng.normal(0, 0.015)
        subdivision.feed(Timed(time, NOTE_ON + 60, 60))
    assert subdivision.parts() == parts


def test_unclear_subdivision_is_as_fine_as_the_tempo_allows() -> None:
    rng = np.random.default_rng(4)
    for bpm, parts in ((60.0, 8), (90.0, 4), (180.0, 2)):
        subdivision = Subdivision(Metronome(bpm))
        assert subdivision.parts() == parts
        for time in np.arange(24) * 0.61803 + rng.uniform(0, 0.05, 24):  # unrelated to the beat
            subdivision.feed(Timed(float(time), NOTE_ON + 60, 60))
        assert subdivision.parts() == parts
    assert Subdivision(None).parts() == 4
