"""Adjusts the machine's next event so that its playing reaches the note rate and the velocity that the controls ask for.

The model alone drifts: a few fast notes make further fast notes likely. So the machine's latest notes are compared with the
target, and the difference scales the wait and shifts the velocity that the model draws. The shapes of both distributions remain
the model's. Scaling all waits keeps the lengths of notes in proportion to the gaps between them; making short waits likelier
would add notes to chords, and trills.

Everything depends on the machine's latest notes and the goal alone, so a model's process on another computer can compute it.
Times are seconds on the engine's time axis: steps / ``STEPS_PER_SECOND``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.events import MAX_WAIT, PITCHES, REST, STEPS_PER_SECOND, VELOCITY_BINS, WAITS, Event, bin_velocity
from engine.grid import PulseGrid

KEPT_STRIKES = 256  # newest note-ons that are counted: those of ``MAX_AGE`` at 32 notes a second
TIME_CONSTANT = 2.0  # seconds; older notes count less, exponentially
MAX_AGE = 4.0  # in time constants; still older notes do not count
DEFAULT_RATE, DEFAULT_VELOCITY = 6.0, 64.0  # notes per second and mean velocity where there is no call
MAX_RATE = 20.0  # notes per second; a higher rate is a target only if the human played at it
VELOCITY_SPAN = 24.0  # velocity for each unit of ``dynamics``
PRIOR_NOTES = 8.0  # notes at the target's velocity that count as played before the turn
KEY_RATE = 4.0  # notes per second on each key of a narrow register, at most
MAX_LOG_SCALE = math.log(4.0)  # of the waits
MAX_SHIFT = 48.0  # of the velocity
CHORD_STEPS = 3  # from a chord's first note to its last; waits within it are not scaled
TOLERANCES = (math.log(1.25), 12.0)  # of rate and velocity, around the defaults, within which the model is left alone


class CallStatistics(NamedTuple):
    """What the human played: notes per second, mean velocity, mean number of notes struck together. None: not enough notes."""

    rate: float | None
    velocity: float | None
    chord: float = 1.0


NO_CALL = CallStatistics(None, None)


class Strike(NamedTuple):
    """A note-on of the machine: step, pitch, velocity bin."""

    step: int
    pitch: int
    velocity: int

    @property
    def time(self) -> float:
        return self.step / STEPS_PER_SECOND


class Target(NamedTuple):
    """The values to reach: ``rate`` in notes per second, ``velocity`` as the mean MIDI velocity. ``factor``: the rate divided by
    the call's. ``shift``: the velocity minus the call's. ``rate_tolerance`` (of the natural logarithm of the rate) and
    ``velocity_tolerance``: deviations that are not corrected.
    """

    rate: float
    velocity: float
    factor: float
    shift: float
    rate_tolerance: float = 0.0
    velocity_tolerance: float = 0.0

    @classmethod
    def of(cls, call: CallStatistics, density: float, dynamics: float, polyphony: int = PITCHES, keys: int = PITCHES) -> Target:
        """The target for a call and the two controls, -1..1. With fewer notes at a time (``polyphony``) than the call's chords
        have, or few keys to play on (``keys``), it has fewer notes.
        """
        rate, velocity = call.rate or DEFAULT_RATE, DEFAULT_VELOCITY if call.velocity is None else call.velocity
        target = min(rate * 2.0**density, max(rate, MAX_RATE))
        target = min(target * min(1.0, polyphony / call.chord, keys / call.chord), keys * KEY_RATE)
        moved = min(max(velocity + VELOCITY_SPAN * dynamics, 2.0), 126.0)
        return cls(target, moved, target / rate, moved - velocity, *(TOLERANCES if call.rate is None else (0.0, 0.0)))


@dataclasses.dataclass(frozen=True)
class Goal:
    """What the adjustment aims at. ``start``: start of the turn in seconds. ``gain``: gain of the note-rate correction. ``grid``:
    the subdivisions to play on; None: none.
    """

    start: float
    target: Target
    gain: float
    grid: PulseGrid | None = None


class Adjustment:
    """How the event after ``step`` is adjusted: its wait is scaled, its velocity shifted; ``waits``: log-odds to add to waits, so
    that they end on the grid (None: no grid). ``opening``: the waits are not scaled.
    """

    def __init__(
        self, goal: Goal, strikes: Sequence[Strike], step: int, noise: np.random.Generator, *, opening: bool = False
    ) -> None:
        now = step / STEPS_PER_SECOND
        scale = 1.0 if opening else wait_scale(strikes, goal.start, now, goal.target, goal.gain)
        kept = chord_steps_left(strikes, step)
        self._steps = scaled_waits(scale, noise.random(), kept)
        shift = velocity_shift(strikes, goal.start, now, goal.target)
        self._shift = math.floor(shift / (bin_velocity(1) - bin_velocity(0)) + noise.random())  # bins
        self.waits = None if goal.grid is None else goal.grid.log_odds(step, self._steps, kept)

    def model_wait(self, steps: int) -> int:
        """The shortest wait of the model that takes at least ``steps`` when scaled."""
        return min(int(np.searchsorted(self._steps, steps)), MAX_WAIT)

    def apply(self, drawn: Event, elapsed: int = 0) -> Event:
        """The event to play for the one that the model drew: a rest if its scaled wait is longer than one event can wait.
        ``elapsed``: steps that have passed; no wait is shorter.
        """
        wait = max(int(self._steps[drawn.wait]), elapsed)
        if drawn.action == REST or wait > MAX_WAIT:
            return Event(MAX_WAIT, REST)
        if not drawn.is_note_on:
            return drawn._replace(wait=wait)
        return drawn._replace(wait=wait, velocity=min(max(drawn.velocity + self._shift, 0), VELOCITY_BINS - 1))


def adjustment_after(
    position: int, seed: int, goal: Goal, strikes: Sequence[Strike], step: int, *, opening: bool = False
) -> Adjustment:
    """The adjustment of the event after ``position``; its rounding is random, and the same for the same ``seed``."""
    return Adjustment(goal, strikes[-KEPT_STRIKES:], step, np.random.default_rng((seed, position, 1)), opening=opening)


def wait_scale(strikes: Sequence[Strike], start: float, now: float, target: Target, gain: float) -> float:
    """The factor on the model's waits that brings the machine to the target's rate; 1 if it is there.

    ``strikes``: since ``start``, up to ``now``. Before ``start`` the machine counts as playing at the target's rate, so the first
    notes have little effect. The model begins at the call's rate and adapts to its own: the difference between the two is applied
    in advance and fades. ``gain``: of the correction.
    """
    before = _before(start, now)
    notes = _recent(strikes, now)[0] + target.rate * TIME_CONSTANT * before
    missing = _beyond(math.log(target.rate * TIME_CONSTANT / max(notes, 1e-3)), target.rate_tolerance)
    faster = before * math.log(target.factor) + gain * missing
    return math.exp(-min(max(faster, -MAX_LOG_SCALE), MAX_LOG_SCALE))


def velocity_shift(strikes: Sequence[Strike], start: float, now: float, target: Target) -> float:
    """What to add to the model's velocity so that the mean of the latest notes comes to the target's."""
    before, (notes, velocities) = _before(start, now), _recent(strikes, now)
    missing = (notes * target.velocity - velocities) / max(notes + PRIOR_NOTES * before, 1e-9)
    return min(max(before * target.shift + _beyond(missing, target.velocity_tolerance), -MAX_SHIFT), MAX_SHIFT)


def machine_share(strikes: Sequence[Strike], start: float, now: float, rate: float) -> float:
    """The machine's fraction, 0..1, of the recent notes if the human plays at ``rate``. Arguments as above."""
    theirs = rate * TIME_CONSTANT
    notes = _recent(strikes, now)[0] + theirs * _before(start, now)
    return notes / (notes + theirs)


def chord_steps_left(strikes: Sequence[Strike], step: int) -> int:
    """For how many steps after ``step`` a note still belongs to the machine's latest chord. A fast run is not one chord."""
    begin: int | None = None
    for one in strikes[-16:]:
        if begin is None or one.step - begin > CHORD_STEPS:
            begin = one.step
    return 0 if begin is None else max(CHORD_STEPS - (step - begin), 0)


def scaled_waits(scale: float, dither: float, kept: int) -> np.ndarray:
    """The steps that each wait of the model takes, [WAITS] int64, ascending. ``dither``, 0..1, decides what is rounded up. Waits
    up to ``kept`` are not scaled.
    """
    waits = np.arange(WAITS, dtype=float)
    waits = np.where(waits > kept, kept + (waits - kept) * scale, waits)
    return np.floor(waits + (dither if scale != 1 else 0.0)).astype(np.int64)


def _before(start: float, now: float) -> float:
    """The weight, 0..1, of what was played before ``start``. The newest event may be older than the turn."""
    return math.exp(-max(now - start, 0.0) / TIME_CONSTANT)


def _beyond(difference: float, tolerance: float) -> float:
    """The part of a difference that is not tolerated."""
    return math.copysign(max(abs(difference) - tolerance, 0.0), difference)


def _recent(strikes: Sequence[Strike], now: float) -> tuple[float, float]:
    """The number of recent notes, exponentially weighted, and the sum of their velocities with the same weights."""
    notes = velocities = 0.0
    for one in reversed(strikes):
        age = (now - one.time) / TIME_CONSTANT
        if age > MAX_AGE:
            break
        weight = math.exp(-age)
        notes += weight
        velocities += weight * one.velocity
    return notes, notes * bin_velocity(0) + velocities * (bin_velocity(1) - bin_velocity(0))
