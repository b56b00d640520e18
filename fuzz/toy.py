"""A toy runtime with rings in the shapes of a real model, so that its states can be saved and loaded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.config import ModelConfig
from engine.rings import hidden_shape, ring_shapes
from engine.sounding import AGES
from tests.perceivers_live.toys import Hidden, ToyRuntime, steady

SHORT = ModelConfig(width=4, heads=1, kv_heads=1, layers=1, scales=(4,), window=3, slack=64)


class _HiddenStates(dict[int, Hidden]):
    """Hidden states of a toy by position. For unknown positions, a state without sounding notes."""

    def __missing__(self, position: int) -> Hidden:
        return Hidden(0, position, np.full(AGES, -1, np.int16))


class Toy(ToyRuntime):
    def __init__(self) -> None:
        super().__init__(steady(), SHORT)
        self._hidden = _HiddenStates()

    def rings(self) -> list[np.ndarray]:
        return [np.zeros(shape, np.float32) for shape in (*ring_shapes(SHORT), hidden_shape(SHORT))]

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._hidden.clear()
