"""Random states of an engine, and their comparison."""

from __future__ import annotations

import numpy as np

from engine.config import PRESETS, ModelConfig
from engine.engine import Moment, Snapshot
from engine.rings import hidden_shape, ring_shapes
from engine.sounding import Sounding
from tests.music import improvise

TINY = PRESETS["tiny"]
MODEL = "0123456789abcdef" * 4


def random_state(count: int, *, config: ModelConfig = TINY, kept: int | None = None, seed: int = 0) -> Snapshot:
    """A state after ``count`` events, the last ``kept`` of which are its history."""
    rng = np.random.default_rng(seed)
    events = improvise(count, seed=seed)
    soundings, before = [Sounding()], count - (kept or count)
    for event in events:
        soundings.append(soundings[-1].copy())
        soundings[-1].apply(event)
    moments = [Moment(*pair) for pair in zip(events, soundings[1:], strict=True)][max(before, count - config.slack - 1) :]
    rings = [rng.normal(size=shape).astype(np.float32) for shape in (*ring_shapes(config), hidden_shape(config))]
    return Snapshot(count - 1, count + 2, tuple(moments), tuple(rings), tuple(events[before:]), soundings[before])


def same(one: Snapshot, other: Snapshot) -> bool:
    """Whether two states are bitwise equal."""

    def plain(sounding: Sounding) -> tuple[int, list[int]]:
        return sounding.step, sounding.since.tolist()

    return (
        (one.position, one.high_water, one.history) == (other.position, other.high_water, other.history)
        and plain(one.before) == plain(other.before)
        and [(m.event, plain(m.sounding)) for m in one.moments] == [(m.event, plain(m.sounding)) for m in other.moments]
        and len(one.rings) == len(other.rings)
        and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one.rings, other.rings, strict=True))
    )
