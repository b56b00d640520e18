"""The key/value cache of the ONNX runtime.

The time of a step is bound by the bytes that it reads. Keys and values are therefore stored twice: in rings, with the slack that
a rewind needs, and in windows with few more rows than an event attends to. The step reads and writes the windows only. Position p
is in row p % R of either.

Shapes: G key/value heads, C head size, T new events, R rows of a window.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from engine.config import ModelConfig
from engine.rings import MASKED
from engine.runtimes import MAX_CHUNK

LONG = 2048  # rows


def window_rows(window: int) -> int:
    """Rows of a window. The last events of the largest chunk must not overwrite rows that its first event attends to."""
    return window + MAX_CHUNK - 1


def keys_transposed(window: int) -> bool:
    """Whether a window's keys are stored transposed, with their rows along the last axis. It is faster for thousands of rows."""
    return window > LONG


class KeyValueCache:
    """Rings [n, G, 1, rows, C] for the n = 2 keys and values of each scale, and for those of all latent layers; windows by name,
    k0, v0, k1, v1 ... [G, 1, R, C], or [G, 1, C, R] for transposed keys.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._blocks = _blocks(config, [config.ring(window) for window in _kinds(config)])
        self.windows: dict[str, np.ndarray] = {}
        for i, window in enumerate(config.windows):
            shape = window_rows(window), config.head_dim
            for kind in "kv":
                transposed = kind == "k" and keys_transposed(window)
                self.windows[f"{kind}{i}"] = np.zeros(
                    (config.kv_heads, 1, *(reversed(shape) if transposed else shape)), np.float32
                )
        self.first = self._next = 0  # first position of the history; position after the newest row in the windows

    def rings(self) -> list[np.ndarray]:
        """Keys and values of every attention in order, [G, 1, rows, C]."""
        return [ring for block in self._blocks for ring in block]

    def reset(self, first: int) -> None:
        """Clears rings and windows; the history begins at ``first``."""
        for array in (*self._blocks, *self.windows.values()):
            array[...] = 0
        self.first = self._next = first

    def restore(self, rings: Sequence[np.ndarray]) -> None:
        for ring, saved in zip(self.rings(), rings, strict=True):
            ring[:, 0] = saved
        self._next = sys.maxsize  # the next ``rewind`` fills the windows from the rings

    def rewind(self, first: int) -> None:
        """Makes ``first`` the next position: copies rows that later positions have overwritten in the windows from the rings."""
        if first < self._next:
            for name, ring in zip(self.windows, self.rings(), strict=True):
                by_row = self._by_row(name)
                rows = by_row.shape[-2]
                lost = np.arange(max(first - rows, self.first), min(self._next - rows, first))
                by_row[..., lost % rows, :] = ring[..., lost % ring.shape[-2], :]
        self._next = first

    def write_rings(self, new: Sequence[np.ndarray], first: int, count: int) -> None:
        """Writes the new rows of ``count`` events, in blocks, into the rings. The windows must contain them already."""
        for block, rows in zip(self._blocks, new, strict=False):
            write_rows(block, rows, first)
        self._next = first + count

    def write_windows(self, new: Sequence[np.ndarray], first: int) -> None:
        """Writes new rows, in blocks, into the windows."""
        for name, rows in named(new):
            write_rows(self._by_row(name), rows, first)

    def _by_row(self, name: str) -> np.ndarray:
        """A window as [G, 1, R, C]."""
        window = self.windows[name]
        transposed = name[0] == "k" and keys_transposed(self.config.windows[int(name[1:])])
        return window.swapaxes(-1, -2) if transposed else window


class WindowInputs:
    """Inputs of the step for a chunk of ``count`` events: for each kind of window, a mask and the indices of the new rows.

    mask [T, R] is added to the scores: 0 where an event sees a row, ``MASKED`` elsewhere. rows [G, 1, T, 3] are indices
    (g, 0, row) into a window, columns [G, 1, C, T] indices along the last axis of transposed keys.
    """

    def __init__(self, cache: KeyValueCache, count: int) -> None:
        self._cache, config = cache, cache.config
        self._kinds = _kinds(config)
        self.inputs: dict[str, np.ndarray] = {}
        for i, window in enumerate(self._kinds):
            self.inputs[f"mask{i}"] = np.full((count, window_rows(window)), MASKED, np.float32)
            if keys_transposed(window):
                self.inputs[f"columns{i}"] = np.zeros((config.kv_heads, 1, config.head_dim, count), np.int64)
            self.inputs[f"rows{i}"] = np.zeros((config.kv_heads, 1, count, 3), np.int64)
            self.inputs[f"rows{i}"][..., 0] = np.arange(config.kv_heads)[:, None, None]

    def fill(self, first: int) -> None:
        """Sets the inputs for events at positions ``first``, first + 1 ..."""
        for i, window in enumerate(self._kinds):
            mask = self.inputs[f"mask{i}"]
            fill_mask(mask, window, first, self._cache.first)
            places = np.arange(first, first + len(mask)) % mask.shape[1]
            if keys_transposed(window):
                self.inputs[f"columns{i}"][...] = places
            self.inputs[f"rows{i}"][..., 2] = places


def fill_mask(mask: np.ndarray, window: int, first: int, begin: int = 0) -> None:
    """Fills mask [T, R] for events at positions ``first``, first + 1 ... of a history that begins at ``begin``. Each event sees
    the newest ``window`` events, itself included.
    """
    rows = mask.shape[1]
    mask[...] = MASKED
    for i, row in enumerate(mask):
        newest = (first + i) % rows
        oldest = newest - min(window, first + i - begin + 1) + 1
        row[max(oldest, 0) : newest + 1] = 0
        if oldest < 0:
            row[oldest:] = 0


def new_rows(config: ModelConfig, count: int) -> list[np.ndarray]:
    """Zeros for the new rows of ``count`` events, in the same blocks as the rings."""
    return _blocks(config, [count] * len(_kinds(config)))


def named(blocks: Iterable[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Splits blocks into pairs (name, array): k0, v0, k1, v1 ... with arrays [G, 1, rows, C]."""
    for i, array in enumerate(array for block in blocks for array in block):
        yield f"{'kv'[i % 2]}{i // 2}", array


def write_rows(ring: np.ndarray, new: np.ndarray, first: int) -> None:
    """Writes new rows [..., T, C] for positions ``first``, first + 1 ... into a ring. If T exceeds the ring, the last rows
    remain.
    """
    rows, count = ring.shape[-2], new.shape[-2]
    begin = first % rows
    if begin + count <= rows:  # the usual case, far faster than by index
        ring[..., begin : begin + count, :] = new
    else:
        ring[..., np.arange(first, first + count) % rows, :] = new


def _kinds(config: ModelConfig) -> tuple[int, ...]:
    """The distinct windows: one of each scale, one of all latent layers. Each has one block of keys and values and one mask."""
    return *config.scales, config.window


def _blocks(config: ModelConfig, rows: Iterable[int]) -> list[np.ndarray]:
    """Zeros for the keys and values of each scale, then for those of all latent layers: [2 or 2 * layers, G, 1, rows, C]."""
    counts = [2] * len(config.scales) + [2 * config.layers]
    shapes = zip(counts, rows, strict=True)
    return [np.zeros((count, config.kv_heads, 1, size, config.head_dim), np.float32) for count, size in shapes]
