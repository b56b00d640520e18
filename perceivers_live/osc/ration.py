"""So many a second and no more."""

from __future__ import annotations

import time


class Ration:
    """Grants ``rate`` a second; as many at once after a quiet second. Used by one thread."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left, self._at = rate, time.monotonic()

    def left(self) -> bool:
        """Whether one more would be granted."""
        now = time.monotonic()
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left >= 1

    def take(self) -> bool:
        """Takes one; False if there is none left."""
        granted = self.left()
        if granted:
            self._left -= 1
        return granted
