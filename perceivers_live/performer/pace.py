"""Keeping the pace of the call: how much denser or sparser than left alone the machine has to go on.

The model alone drifts: a few fast notes make it faster still. A listening partner keeps to what it was given, roughly. So the
notes a second of its last seconds are held against the human's, and the difference leans on the odds of the waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MEMORY = 3.0  # seconds: what lies longer ago counts less and less
LIMIT = 1.0  # of the correction, in the units of ``density``


def correction(strikes: Sequence[float], begun: float, now: float, rate: float) -> float:
    """What to add to ``density`` so that the machine comes back to ``rate`` notes a second; 0 if it is there already.

    ``strikes``: times of its note-ons since it began, in seconds, up to ``now``. It is taken to have begun at that rate, so the
    first notes decide nothing.
    """
    return min(max(math.log(rate * MEMORY / max(_recent(strikes, begun, now, rate), 1e-3)), -LIMIT), LIMIT)


def share(strikes: Sequence[float], begun: float, now: float, rate: float) -> float:
    """The machine's part, 0..1, of the last notes, if the human played at ``rate`` notes a second; the rest as above."""
    notes = _recent(strikes, begun, now, rate)
    return notes / (notes + rate * MEMORY)


def _recent(strikes: Sequence[float], begun: float, now: float, rate: float) -> float:
    """How many notes of the machine's count at ``now``."""
    return rate * MEMORY * math.exp(-(now - begun) / MEMORY) + sum(math.exp(-(now - time) / MEMORY) for time in strikes)
