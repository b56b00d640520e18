"""How long decisions take, so that the next ones are made early enough."""

from __future__ import annotations

from collections import deque

DEFAULT = 0.01  # seconds; assumed before the first measurement
SHORTEST, LONGEST = 0.005, 0.04  # seconds; measurements are clamped to this
SAMPLES = 32  # number of measurements; the slowest of them counts


class DecisionTimes:
    """The latest measurements, in seconds."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=SAMPLES)

    def add(self, seconds: float) -> None:
        self._latest.append(seconds)

    def latest(self) -> list[float]:
        return list(self._latest)

    @property
    def expected(self) -> float:
        """Seconds from the start of a decision until its event can sound."""
        return min(max(max(self._latest, default=DEFAULT), SHORTEST), LONGEST)
