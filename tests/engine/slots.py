"""Which position each row of a ring holds, implemented independently of the engine."""

from __future__ import annotations

import numpy as np


def slot_positions(last: int, rows: int, first: int = 0) -> np.ndarray:
    """The position in each row of a ring after ``last`` was absorbed, or -1: [rows] int64. The history begins at ``first``."""
    row = np.arange(rows, dtype=np.int64)
    position = last - (last - row) % rows
    return np.where(position >= first, position, -1)
