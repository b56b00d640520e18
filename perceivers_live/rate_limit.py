"""A rate limiter (token bucket), for the servers of this program."""

from __future__ import annotations

import time


class RateLimit:
    """Allows ``rate`` operations per second, and a burst of ``burst`` (default: ``rate``) after an idle time. Not thread-safe."""

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate, self._burst = rate, rate if burst is None else burst
        self._tokens, self._updated = self._burst, time.monotonic()

    def wait(self) -> float:
        """Seconds until ``acquire`` would succeed; 0 if it would now."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        return max(0.0, (1 - self._tokens) / self._rate)

    def acquire(self) -> bool:
        """Takes one token; False if there is none."""
        available = self.wait() == 0
        if available:
            self._tokens -= 1
        return available

    def penalise(self, tokens: float, most: float) -> None:
        """Takes ``tokens``, although they may not be there; at most ``most`` are owed."""
        self.wait()
        self._tokens = max(self._tokens - tokens, -most)
