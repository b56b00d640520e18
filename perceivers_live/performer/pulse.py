"""The pulse of a clock: the subdivisions of its beat, which the human's notes determine, as the grid to play on."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from engine.events import NOTE_OFF, STEPS_PER_SECOND, Timed
from engine.grid import PulseGrid
from perceivers_live.clock.midi_clock import Beats

PARTS = (2, 3, 4, 6, 8)  # of a beat: halves, triplets, quarters; of a slow one also their halves
DEVIATION = 0.004  # seconds; standard deviation around the grid at full strength
SHARPNESS_POWER = 3  # of the strength
PHASES, MIN_PHASES = 24, 6  # notes of the human that are remembered, and needed
CLEAR_FIT = 0.5  # smallest length of the mean vector of the notes' phases that counts as a fit
CHANCE_FIT = 6.0  # smallest n * length**2 that counts as a fit; for random notes it is exponentially distributed with mean 1
BETTER_FIT = 0.1  # by which a finer subdivision must fit better
PHASE_DIGITS = 3  # of a grid's phase, in radians: a thousandth of a subdivision at most; so that it is the same at each event
MIN_PART = 0.1  # seconds; shorter parts are not used, except halves, triplets and quarters that the human plays


class Subdivision:
    """The parts of a beat that the human plays on."""

    def __init__(self, beats: Beats | None) -> None:
        self._beats = beats
        self._positions: deque[float] = deque(maxlen=PHASES)  # of notes, in beats

    def feed(self, timed: Timed) -> None:
        """Adds an action of the human."""
        if timed.action < NOTE_OFF and self._beats is not None and self._beats.running:
            self._positions.append(self._beats.position(timed.time))

    def forget(self) -> None:
        """Drops what the human played."""
        self._positions.clear()

    def parts(self) -> int:
        """The coarsest subdivision that fits the human's notes; without a clear one halves, quarters or eighths by the tempo."""
        bpm = (self._beats.bpm if self._beats is not None else None) or 120.0
        usual = next((parts for parts in (8, 4) if 60 / bpm / parts >= MIN_PART), 2)
        if len(self._positions) < MIN_PHASES:
            return usual
        possible = [parts for parts in PARTS if parts <= 4 or 60 / bpm / parts >= MIN_PART]
        fits = np.abs(np.exp(2j * np.pi * np.outer(possible, np.array(self._positions))).mean(1))
        best = float(fits.max())
        if best < max(CLEAR_FIT, (CHANCE_FIT / len(self._positions)) ** 0.5):
            return usual
        return next(parts for parts, fit in zip(possible, fits, strict=True) if fit >= best - BETTER_FIT)


def grid(beats: Beats | None, now: float, step: int, strength: float, parts: int) -> PulseGrid | None:
    """The subdivisions of the clock's beat, ``parts`` in each, if the engine's ``step`` is at ``now``. ``strength``: 0..1. None
    without a strength or a beat.
    """
    bpm = beats.bpm if beats is not None and strength > 0 and beats.running else None
    if beats is None or not bpm:
        return None
    sharpness = (60 / bpm / parts / (2 * math.pi * DEVIATION)) ** 2 * strength**SHARPNESS_POWER
    per_step = 2 * math.pi * parts * bpm / 60 / STEPS_PER_SECOND
    phase = 2 * math.pi * parts * beats.position(now) - per_step * step
    return PulseGrid(round(phase % (2 * math.pi), PHASE_DIGITS), per_step, sharpness)
