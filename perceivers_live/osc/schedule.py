"""Messages of bundles that are scheduled for later."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Schedule(Generic[Item]):
    """A priority queue by due time (monotonic seconds); items with the same time keep their order. Not thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._heap: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, item: Item) -> bool:
        """Adds an item; False if the schedule is full."""
        if len(self._heap) >= self._capacity:
            return False
        heapq.heappush(self._heap, (due, next(self._numbers), item))
        return True

    def seconds_to_next(self, now: float) -> float | None:
        """Seconds until the next item is due; None if there is none."""
        return max(0.0, self._heap[0][0] - now) if self._heap else None

    def pop_due(self, now: float) -> Item | None:
        """Removes and returns the first item that is due; None if there is none."""
        return heapq.heappop(self._heap)[2] if self._heap and self._heap[0][0] <= now else None
