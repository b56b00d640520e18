"""What is to be done later: the messages of bundles whose time has not come."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Schedule(Generic[Item]):
    """Items by the time that they are due, in monotonic seconds; of one time, in the order in which they came. For one thread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, due: float, item: Item) -> bool:
        """Whether there was room for it."""
        if len(self._waiting) >= self._capacity:
            return False
        heapq.heappush(self._waiting, (due, next(self._numbers), item))
        return True

    def wait(self, now: float) -> float | None:
        """Seconds until the next is due; None: nothing waits."""
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None

    def take(self, now: float) -> Item | None:
        """Takes out the first that is due by now, if any is."""
        return heapq.heappop(self._waiting)[2] if self._waiting and self._waiting[0][0] <= now else None
