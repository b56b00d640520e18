"""Masks and biases for sampling the next event, from the keys that are down and the musician's controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from engine.events import (
    ACTIONS,
    END,
    MAX_WAIT,
    NOTE_OFF,
    PITCHES,
    REST,
    SUSTAIN_DOWN,
    SUSTAIN_UP,
    VELOCITY_BINS,
    WAITS,
)
from engine.rings import MASKED
from engine.runtimes import SamplingBias
from engine.sounding import Sounding, legal_actions

# Constants of ``repetition_penalty``:
LOOKBACK = 100  # newest note-ons that are counted
DECAY = 0.97  # factor by which a note-on counts less for each later one
FREE_COUNT = 4.0  # count of a pitch without penalty
COUNT_WEIGHT = 0.35  # penalty in log-odds for each count above that
FREE_NOTES = 3  # notes per key that a run on few keys has without penalty
MAX_KEYS = 6  # keys of such a run
RUN_WEIGHT = 0.5  # penalty in log-odds for each further note of the run
MAX_OPENING_WAIT = 50  # steps from the first possible moment to an opening note
NOISES = WAITS + ACTIONS + VELOCITY_BINS


@dataclasses.dataclass(frozen=True)
class SamplingControls:
    """The musician's controls of sampling. The defaults do not limit register and polyphony."""

    temperature: float = 1.0
    min_p: float = 0.02
    variety: float = 1.0
    register_low: int = 0
    register_high: int = 127
    max_polyphony: int = 128


def repetition_penalty(strikes: Sequence[int]) -> np.ndarray:
    """Penalty in log-odds for pitches that were struck often of late: [PITCHES] float32, to be subtracted.

    A small model without input tends to endless repeated notes, trills and chords. The penalty is the sum of two parts. Note-ons
    of each pitch are counted with a decay: a few alternating notes cost little, a drone more, one repeated note most. And a run
    of notes on the same few keys costs nothing for ``FREE_NOTES`` notes a key; each further note makes all of these keys less
    likely. A trill is free for 6 notes, a run on three keys for 9.
    """
    newest = strikes[: -LOOKBACK - 1 : -1]
    counts, weight = dict.fromkeys(newest, 0.0), 1.0
    for pitch in newest:
        counts[pitch] += weight
        weight *= DECAY
    penalty = np.zeros(PITCHES, np.float32)
    for pitch, count in counts.items():
        penalty[pitch] = COUNT_WEIGHT * max(count - FREE_COUNT, 0)
    for pitch, cost in _run_penalties(newest).items():
        penalty[pitch] += cost
    return penalty


def _run_penalties(newest: Sequence[int]) -> dict[int, float]:
    """The penalty of each key for a run on few keys. Takes the newest note-ons, newest first, on one key, on two keys and so on
    up to ``MAX_KEYS``. A key with at most ``FREE_NOTES`` note-ons has no penalty.
    """
    penalties: dict[int, float] = {}
    counts: dict[int, int] = {}
    for length, pitch in enumerate([*newest, None]):
        if pitch is None or pitch not in counts:  # the run on these keys ends here
            cost = RUN_WEIGHT * (length - FREE_NOTES * len(counts))
            penalties |= {key: max(cost, penalties.get(key, 0)) for key, count in counts.items() if count > FREE_NOTES}
            if pitch is None or len(counts) == MAX_KEYS:
                break
        counts[pitch] = counts.get(pitch, 0) + 1
    return penalties


def sampling_bias(
    sounding: Sounding,
    sampling: SamplingControls,
    rng: np.random.Generator,
    *,
    own: Collection[int],
    own_pedal: bool,
    shared: bool = False,
    strikes: Sequence[int] = (),
    forbidden: Collection[int] = (),
    elapsed: int = 0,
    opening: bool = False,
    immediate: bool = False,
    closing: bool = False,
    waits: np.ndarray | None = None,
) -> SamplingBias:
    """The masks, biases and noise for drawing the event after ``sounding``.

    ``own``: pitches that the machine holds. Only these can be released, and only these count towards ``max_polyphony``.
    ``own_pedal``: whether the machine may lift the pedal, which is down. ``shared``: whether notes and pedal of the human can be
    released as well. ``strikes``: pitches that the machine struck in this reply, in order (see ``repetition_penalty``).
    ``forbidden``: pitches that must not be struck. ``elapsed``: steps since the last event in which nothing happened; shorter
    waits are impossible. ``opening``: the machine has to play, because the model alone would often remain silent: within
    ``MAX_OPENING_WAIT`` steps after ``elapsed`` comes a note-on, or, if the machine holds keys, the release of one or the pedal.
    ``immediate``: the opening note comes right at ``elapsed``. ``closing``: no new notes and no pedal, the reply is ending.
    ``waits``: log-odds added to the waits, [WAITS] float32.
    """
    wait = np.zeros(WAITS, np.float32) if waits is None else waits.copy()
    wait[: min(elapsed, MAX_WAIT)] = MASKED
    legal = legal_actions(sounding.down())
    if not shared:
        legal[NOTE_OFF : NOTE_OFF + PITCHES] = False
        legal[SUSTAIN_UP] &= own_pedal
    legal[[NOTE_OFF + pitch for pitch in own]] = True
    legal[END] = False
    legal[: sampling.register_low] = False
    legal[sampling.register_high + 1 : PITCHES] = False
    legal[list(forbidden)] = False
    if closing:
        legal[SUSTAIN_DOWN] = False
    if closing or len(own) >= sampling.max_polyphony:
        legal[:PITCHES] = False
    if np.count_nonzero(legal) == 1:  # a rest
        wait[:MAX_WAIT] = MASKED  # it takes a full wait
    if opening and legal[:PITCHES].any():
        wait[min(elapsed, MAX_WAIT) + (1 if immediate else MAX_OPENING_WAIT) :] = MASKED
        legal[[REST, SUSTAIN_UP]] = False
    action = np.where(legal, np.float32(0), np.float32(MASKED))
    action[:PITCHES] -= sampling.variety * repetition_penalty(strikes)
    velocity = np.zeros(VELOCITY_BINS, np.float32)
    noise = rng.gumbel(size=NOISES).astype(np.float32)
    return SamplingBias(wait, action, velocity, max(sampling.temperature, 0.05), sampling.min_p, noise)
