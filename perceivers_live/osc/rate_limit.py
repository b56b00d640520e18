"""A rate limiter (token bucket)."""

from __future__ import annotations

import time


class RateLimit:
    """Allows ``rate`` operations per second, with a burst of the same number after an idle second. Not thread-safe."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens, self._updated = rate, time.monotonic()

    def available(self) -> bool:
        """Whether ``acquire`` would succeed now."""
        now = time.monotonic()
        self._tokens = min(self._rate, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        return self._tokens >= 1

    def acquire(self) -> bool:
        """Takes one token; False if there is none."""
        available = self.available()
        if available:
            self._tokens -= 1
        return available
