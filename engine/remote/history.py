"""The events that a runtime has absorbed, kept so that another runtime can absorb them too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.config import ModelConfig
from engine.runtimes import MAX_CHUNK, Runtime, chunks
from engine.sounding import AGES

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # events [T, 3] int64, ages [T, AGES] int16, times [T] int64: see ``Runtime``


class History:
    """The newest events, as many as the model's state depends on. They may follow the rings of a restored state.

    ``first``: position at which the state's history begins. ``rings``: those of the restored state, or None. ``begin``, ``end``:
    position of the first event kept, and the position after the last.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._depends = config.history
        size = 2 * self._depends  # when it is full, the older half is dropped
        self._events, self._ages = np.zeros((size, 3), np.int64), np.zeros((size, AGES), np.int16)
        self._times = np.zeros(size, np.int64)
        self.reset(0)

    def reset(self, first: int, rings: Sequence[np.ndarray] | None = None) -> None:
        """Drops all events. ``rings``: of a restored state, whose history begins at ``first``;
        None: an empty state at ``first``.
        """
        self.first, self.rings = first, rings
        self.begin = self.end = first

    def add(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        """Appends events at positions ``first``, first + 1 ... Earlier events at ``first`` and after it are dropped."""
        if first < self.begin or self.begin == self.end:
            self.begin = self.end = first
        self.cut(first)
        if self.end - self.begin + len(events) > len(self._times):
            self._drop(self.end - self.begin - self._depends)
        at = slice(self.end - self.begin, self.end - self.begin + len(events))
        self._events[at], self._ages[at], self._times[at] = events, ages, times
        self.end = first + len(events)

    def cut(self, end: int) -> None:
        """Drops the events at position ``end`` and after it."""
        self.end = max(self.begin, min(self.end, end))

    def rows(self, begin: int, end: int) -> Rows:
        """Copies of the events at positions ``begin`` up to ``end``."""
        at = slice(begin - self.begin, end - self.begin)
        return self._events[at].copy(), self._ages[at].copy(), self._times[at].copy()

    def _drop(self, count: int) -> None:
        for array in (self._events, self._ages, self._times):
            array[: len(array) - count] = array[count:].copy()
        self.begin += count
        self.first, self.rings = self.begin, None


def absorb(runtime: Runtime, rows: Rows, first: int, distant: int = 0) -> None:
    """Makes ``runtime`` absorb events at positions ``first``, first + 1 ... The first ``distant``
    only enter the cross-attention.
    """
    events, ages, times = rows
    for at in chunks(len(events)):
        whole = at.stop - at.start == MAX_CHUNK and at.stop <= distant
        (runtime.prefill_cross if whole else runtime.step)(events[at], ages[at], times[at], first + at.start)


def replay(history: History, runtime: Runtime, newest: int) -> None:
    """Brings ``runtime`` to the state after the history, computed from its ``newest`` events at most."""
    begin = history.begin
    if history.end - begin > newest:
        begin = history.end - newest
        runtime.reset(begin)
    elif history.rings is not None:
        runtime.restore(history.rings, history.first)
    else:
        runtime.reset(history.first)
    absorb(runtime, history.rows(begin, history.end), begin)
