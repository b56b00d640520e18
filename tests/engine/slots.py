"""The position in each row of a ring, implemented independently for the tests."""

from __future__ import annotations

import numpy as np


def slot_positions(last: int, rows: int, first: int = 0) -> np.ndarray:
    """The position that each row of a ring holds once ``last`` is absorbed, -1 = none, of a history that begins at ``first``:
    [rows] int64.
    """
    row = np.arange(rows, dtype=np.int64)
    position = last - (last - row) % rows
    return np.where(position >= first, position, -1)
