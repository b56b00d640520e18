"""What a runtime has absorbed, kept so that another runtime can absorb it as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.config import ModelConfig
from engine.runtimes import CHUNKS, Runtime
from engine.sounding import AGES

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # events [T, 3] int64, ages [T, AGES] int16, times [T] int64: see ``Runtime``


class History:
    """The newest events, as many as the model's state depends on, after the rings of an earlier state if it began with such.

    ``first``: the position that the state's history begins at; ``rings``: of the earlier state, or None; ``begin``, ``end``:
    positions of the first event kept, and after the last.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.latent = config.layers * (config.window - 1) + config.slack + 1  # newest events of which latents are needed
        self._depends = config.reach + self.latent + config.slack
        size = 2 * self._depends  # the older half goes when it is full
        self._events, self._ages = np.zeros((size, 3), np.int64), np.zeros((size, AGES), np.int16)
        self._times = np.zeros(size, np.int64)
        self.reset(0)

    def reset(self, first: int, rings: Sequence[np.ndarray] | None = None) -> None:
        """No events; those that come follow a state given by ``rings``, whose own history begins at ``first``, or none at all."""
        self.first, self.rings = first, rings
        self.begin = self.end = first

    def add(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        """Events at positions ``first``..; what was there from ``first`` on is forgotten."""
        if first < self.begin or self.begin == self.end:
            self.begin = self.end = first
        self.cut(first)
        if self.end - self.begin + len(events) > len(self._times):
            self._drop(self.end - self.begin - self._depends)
        at = slice(self.end - self.begin, self.end - self.begin + len(events))
        self._events[at], self._ages[at], self._times[at] = events, ages, times
        self.end = first + len(events)

    def cut(self, end: int) -> None:
        """Forgets the events from position ``end`` on."""
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
    """Has ``runtime`` absorb these events, at positions ``first``..; the first ``distant`` only reach its cross-attention."""
    events, ages, times = rows
    done, total = 0, len(events)
    while done < total:
        size = next(size for size in reversed(CHUNKS) if size <= total - done)
        at = slice(done, done + size)
        (runtime.prefill_cross if done + size <= distant else runtime.step)(events[at], ages[at], times[at], first + done)
        done += size


def repeat(history: History, runtime: Runtime, newest: int) -> None:
    """Brings ``runtime`` to the state after the history, computed from its ``newest`` events alone if there are more."""
    begin = history.begin
    if history.end - begin > newest:
        begin = history.end - newest
        runtime.reset(begin)
    elif history.rings is not None:
        runtime.restore(history.rings, history.first)
    else:
        runtime.reset(history.first)
    absorb(runtime, history.rows(begin, history.end), begin)
