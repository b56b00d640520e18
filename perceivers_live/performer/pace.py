"""Keeps the machine's note rate near that of the human.

The model alone drifts: a few fast notes make further fast notes likely. So the machine's recent note rate is compared with the
human's, and the difference becomes a bias on the waits (``density``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TIME_CONSTANT = 3.0  # seconds; older notes count less, exponentially
MAX_CORRECTION = 1.0  # in units of ``density``


def density_correction(strikes: Sequence[float], begin: float, now: float, rate: float) -> float:
    """What to add to ``density`` so that the machine returns to ``rate`` notes per second; 0 if it has that rate.

    ``strikes``: times of its note-ons since ``begin``, in seconds, up to ``now``. Before ``begin`` it counts as playing at
    ``rate``, so the first notes have little effect.
    """
    notes = max(_recent_notes(strikes, begin, now, rate), 1e-3)
    return min(max(math.log(rate * TIME_CONSTANT / notes), -MAX_CORRECTION), MAX_CORRECTION)


def machine_share(strikes: Sequence[float], begin: float, now: float, rate: float) -> float:
    """The machine's fraction, 0..1, of the recent notes if the human plays at ``rate``. Arguments as above."""
    notes = _recent_notes(strikes, begin, now, rate)
    return notes / (notes + rate * TIME_CONSTANT)


def _recent_notes(strikes: Sequence[float], begin: float, now: float, rate: float) -> float:
    """The machine's number of recent notes, exponentially weighted."""
    before = rate * TIME_CONSTANT * math.exp(-(now - begin) / TIME_CONSTANT)
    return before + sum(math.exp(-(now - time) / TIME_CONSTANT) for time in strikes)
