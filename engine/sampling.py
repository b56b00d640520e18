"""From what sounds and what the musician asks for to the odds of the next event: masks keep the music legal."""

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
    SUSTAIN_UP,
    VELOCITY_BINS,
    WAITS,
)
from engine.rings import MASKED
from engine.runtimes import SamplingBias
from engine.sounding import Sounding, legal_actions

MEMORY = 100  # strikes that ``repetition_penalty`` looks back on
DECAY, FREE, FREE_WEIGHT = 0.97, 4.0, 0.35  # of its counts: a strike, what costs nothing, log-odds of each count above
STAY, KEYS, STAY_WEIGHT = 3, 6, 0.5  # of its few keys: notes a key that cost nothing, keys at most, log-odds of each further note
SOON = 50  # steps: an opening note comes at most this long after it could
NOISES = WAITS + ACTIONS + VELOCITY_BINS


@dataclasses.dataclass(frozen=True)
class Steering:
    """What the musician can turn. ``density`` and ``dynamics`` are -1..1, 0 leaves the model's own judgement."""

    temperature: float = 1.0
    min_p: float = 0.02
    variety: float = 1.0
    density: float = 0.0
    dynamics: float = 0.0
    register_low: int = 0
    register_high: int = 127
    max_polyphony: int = 128


def repetition_penalty(strikes: Sequence[int]) -> np.ndarray:
    """What a pitch loses in log-odds for what was struck lately: [PITCHES] float32.

    A small model left alone falls into hammered notes, trills and repeated chords that no pianist would keep up. Two things add
    up. Strikes of a key are counted with a decay: an accompaniment's few alternating notes cost little, a drone more, one note
    hammered most. And ``STAY`` notes in a row for each key in use cost nothing, but each further one makes all of these keys less
    likely: after 6 notes of a trill, or 9 on three keys. Real music seldom stays longer.
    """
    count = np.zeros(PITCHES, np.float32)
    for age, pitch in enumerate(reversed(strikes[-MEMORY:])):
        count[pitch] += DECAY**age
    penalty: np.ndarray = FREE_WEIGHT * np.maximum(count - FREE, 0) + _stay(strikes)
    return penalty


def _stay(strikes: Sequence[int]) -> np.ndarray:
    """What the keys lose that the newest strikes stay on: [PITCHES] float32. Looks at the newest strikes on one key alone, on two
    keys, and so on; a key that was struck ``STAY`` times at most loses nothing.
    """
    penalty, count = np.zeros(PITCHES, np.float32), np.zeros(PITCHES, np.int64)
    newest = strikes[-MEMORY:][::-1]
    for length, pitch in enumerate([*newest, None]):
        if pitch is None or not count[pitch]:  # the strikes so far are all that stay on these keys
            keys = int(np.count_nonzero(count))
            penalty[count > STAY] = np.maximum(penalty[count > STAY], STAY_WEIGHT * (length - STAY * keys))
            if keys == KEYS or pitch is None:
                break
        count[pitch] += 1
    return penalty


def sampling_bias(
    sounding: Sounding,
    steering: Steering,
    rng: np.random.Generator,
    *,
    own: Collection[int],
    own_pedal: bool,
    shared: bool = False,
    strikes: Sequence[int] = (),
    barred: Collection[int] = (),
    elapsed: int = 0,
    opening: bool = False,
    at_once: bool = False,
    closing: bool = False,
) -> SamplingBias:
    """The odds of the event after ``sounding``.

    ``own``: pitches that the machine itself holds: only these can be released, only their number counts for the polyphony.
    ``own_pedal``: the pedal is down and the machine's to lift. ``shared``: what others hold can be released as well, by them.
    ``strikes``: the pitches that it struck in this
    reply, in order (see ``repetition_penalty``). ``barred``: pitches not to be struck. ``elapsed``: steps that
    have passed in silence since the last event: shorter waits are impossible. ``opening``: it is the machine's turn and it
    holds nothing: it strikes, and soon (``at_once``: right after ``elapsed``), where the data would often go on in silence.
    ``closing``: no new notes, the music is being brought to its end.
    """
    wait = -steering.density * np.log1p(np.arange(WAITS, dtype=np.float32))
    wait[: min(elapsed, MAX_WAIT)] = MASKED
    legal = legal_actions(sounding.ages())
    if not shared:
        legal[NOTE_OFF : NOTE_OFF + PITCHES] = False
        legal[SUSTAIN_UP] &= own_pedal
    legal[[NOTE_OFF + pitch for pitch in own]] = True
    legal[END] = False
    keys = np.arange(PITCHES)
    legal[:PITCHES] &= (keys >= steering.register_low) & (keys <= steering.register_high) & (not closing)
    legal[list(barred)] = False
    if len(own) >= steering.max_polyphony:
        legal[:PITCHES] = False
    if not np.delete(legal, REST).any():
        wait[:MAX_WAIT] = MASKED  # only time can pass, and a rest takes a full wait
    if opening and legal[:PITCHES].any():
        wait[min(elapsed, MAX_WAIT) + (1 if at_once else SOON) :] = MASKED
        legal[[REST, SUSTAIN_UP]] = False
    action = np.where(legal, np.float32(0), np.float32(MASKED))
    action[:PITCHES] -= steering.variety * repetition_penalty(strikes)
    velocity = (steering.dynamics * 0.2) * (np.arange(VELOCITY_BINS, dtype=np.float32) - VELOCITY_BINS / 2)
    noise = rng.gumbel(size=NOISES).astype(np.float32)
    return SamplingBias(wait, action, velocity, max(steering.temperature, 0.05), steering.min_p, noise)
