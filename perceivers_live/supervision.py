"""Watching over the runtime: a call that does not come back must not take the session with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from engine.runtimes import Odds, Runtime

HANG = 2.0  # seconds that one call may take; the longest good ones take tens of milliseconds
Result = TypeVar("Result")


class Abandoned(Exception):
    """The call came back after its runtime had been given up; nobody waits for it any more."""


class Supervised:
    """A runtime whose calls can be seen from other threads. Once ``abandoned`` they all end in ``Abandoned``."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.name, self.config = runtime.name, runtime.config
        self.step_bytes, self.warm_for = runtime.step_bytes, runtime.warm_for
        self.abandoned = False
        self.dead = False  # it fails whatever it is asked
        self._busy_since: float | None = None

    @property
    def lost(self) -> bool:
        """Whether it is dead, or a call has been going on for too long."""
        since = self._busy_since
        return self.dead or (since is not None and time.perf_counter() - since > HANG)

    def reset(self) -> None:
        self._watched(self._runtime.reset)

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._watched(lambda: self._runtime.step(events, ages, times, first))

    def remember(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._watched(lambda: self._runtime.remember(events, ages, times, first))

    def decide(self, position: int, odds: Odds) -> tuple[int, int, int] | None:
        return self._watched(lambda: self._runtime.decide(position, odds))

    def hidden(self, position: int) -> np.ndarray:
        return self._watched(lambda: self._runtime.hidden(position))

    def rings(self) -> list[np.ndarray]:
        return self._watched(self._runtime.rings)

    def restore(self, rings: Sequence[np.ndarray]) -> None:
        self._watched(lambda: self._runtime.restore(rings))

    def keep_warm(self) -> None:
        self._watched(self._runtime.keep_warm)

    def close(self) -> None:
        self._runtime.close()

    def _watched(self, call: Callable[[], Result]) -> Result:
        if self.abandoned:
            raise Abandoned
        self._busy_since = time.perf_counter()
        try:
            return call()
        finally:
            self._busy_since = None
            if self.abandoned:
                raise Abandoned
