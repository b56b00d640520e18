"""From what sounds and what the musician asks for to the odds of the next event: masks keep the music legal."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

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
from engine.runtimes import Odds
from engine.sounding import Sounding, legal_actions

MASKED = np.float32(-1e9)
SOON = 50  # steps: an opening note comes at most this long after it could
NOISES = WAITS + ACTIONS + VELOCITY_BINS


@dataclasses.dataclass(frozen=True)
class Steering:
    """What the musician can turn. ``density`` and ``dynamics`` are -1..1, 0 leaves the model's own judgement."""

    temperature: float = 1.0
    min_p: float = 0.02
    density: float = 0.0
    dynamics: float = 0.0
    register_low: int = 0
    register_high: int = 127
    max_polyphony: int = 128


def odds(
    sounding: Sounding,
    steering: Steering,
    rng: np.random.Generator,
    *,
    own: Collection[int],
    own_pedal: bool,
    barred: Collection[int] = (),
    elapsed: int = 0,
    opening: bool = False,
    closing: bool = False,
) -> Odds:
    """The odds of the event after ``sounding``.

    ``own``: pitches that the machine itself holds: only these can be released, only their number counts for the polyphony.
    ``own_pedal``: the pedal is down and the machine's to lift. ``barred``: pitches not to be struck. ``elapsed``: steps that
    have passed in silence since the last event: shorter waits are impossible. ``opening``: it is the machine's turn and it
    holds nothing: it strikes, and soon, where the data would often go on in silence. ``closing``: no new notes, the music is
    being brought to its end.
    """
    wait = -steering.density * np.log1p(np.arange(WAITS, dtype=np.float32))
    wait[: min(elapsed, MAX_WAIT)] = MASKED
    legal = legal_actions(sounding.ages())
    legal[NOTE_OFF : NOTE_OFF + PITCHES] = False
    legal[[NOTE_OFF + pitch for pitch in own]] = True
    legal[SUSTAIN_UP] &= own_pedal
    legal[END] = False
    keys = np.arange(PITCHES)
    legal[:PITCHES] &= (keys >= steering.register_low) & (keys <= steering.register_high) & (not closing)
    legal[list(barred)] = False
    if len(own) >= steering.max_polyphony:
        legal[:PITCHES] = False
    if not np.delete(legal, REST).any():
        wait[:MAX_WAIT] = MASKED  # only time can pass, and a rest takes a full wait
    if opening and legal[:PITCHES].any():
        wait[min(elapsed, MAX_WAIT) + SOON :] = MASKED
        legal[[REST, SUSTAIN_UP]] = False
    action = np.where(legal, np.float32(0), MASKED)
    velocity = (steering.dynamics * 0.2) * (np.arange(VELOCITY_BINS, dtype=np.float32) - VELOCITY_BINS / 2)
    noise = rng.gumbel(size=NOISES).astype(np.float32)
    return Odds(wait, action, velocity, max(steering.temperature, 0.05), steering.min_p, noise)
