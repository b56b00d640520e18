"""A grid in time, the subdivisions of a beat: waits that end on it become likelier.

The odds of a wait are multiplied by a von Mises density over the phase within the subdivision, with a mean of 1. So notes move
onto the grid, and the music becomes neither faster nor fuller. What is played there remains the model's choice.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from engine.events import MAX_WAIT


class PulseGrid(NamedTuple):
    """Lines where ``phase + per_step * step`` (radians) is a multiple of 2 pi. ``sharpness``: concentration of the density."""

    phase: float
    per_step: float
    sharpness: float

    def log_odds(self, step: int, waits: np.ndarray, kept: int) -> np.ndarray:
        """Log-odds to add to each wait of the model, float32 [WAITS]. ``waits`` [WAITS]: the steps from ``step`` that it takes.
        0 for waits of up to ``kept`` steps, which belong to a chord, and for the last one, which is that of a rest.
        """
        phase = self.phase + self.per_step * (step + waits)
        odds: np.ndarray = self.sharpness * (np.cos(phase) - 1) - _log_mean(self.sharpness)
        odds[((waits <= kept) & (kept > 0)) | (np.arange(len(waits)) == MAX_WAIT)] = 0.0
        return odds.astype(np.float32)


def _log_mean(sharpness: float) -> float:
    """Logarithm of the mean of exp(sharpness (cos x - 1)) over a circle."""
    if sharpness > 50:
        return -0.5 * math.log(2 * math.pi * sharpness)
    return float(np.log(np.i0(sharpness))) - sharpness
