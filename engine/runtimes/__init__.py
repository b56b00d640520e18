"""Runtimes: the same two functions, ``step`` and ``decide``, on whatever runs them best.

A runtime owns the key/value rings and nothing else; which events are in them, and how to go back, is the engine's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from engine.config import ModelConfig

NAMES = ("auto", "onnx", "onnx-int8", "eager")


class RuntimeUnavailable(RuntimeError):
    """This runtime cannot work here; the message says why, in one line."""


class Odds(NamedTuple):
    """What shapes a decision: additive biases on the logits (``MASKED`` = impossible), temperature and min-p, Gumbel noise.

    wait [WAITS], action [ACTIONS], velocity [VELOCITY_BINS] float32, noise [WAITS + ACTIONS + VELOCITY_BINS] float32.
    """

    wait: np.ndarray
    action: np.ndarray
    velocity: np.ndarray
    temperature: float
    min_p: float
    noise: np.ndarray


class Runtime(Protocol):
    """What the engine asks of a runtime. Hidden states are opaque: only ``decide`` and ``as_array`` look inside."""

    name: str
    config: ModelConfig

    def reset(self) -> None:
        """Empties the rings."""

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> Sequence[Any]:
        """Absorbs T events at positions ``first``..: events [T, 3] int64, ages [T, AGES] int16, times [T] int64 in 10 ms steps
        since the start. Returns T hidden states.
        """

    def decide(self, hidden: Any, odds: Odds) -> tuple[int, int, int]:
        """(wait, action, velocity bin) drawn from the chain of heads."""

    def as_array(self, hidden: Any) -> np.ndarray:
        """A hidden state as float32 [D]."""

    def from_array(self, hidden: np.ndarray) -> Any:
        """The opposite of ``as_array``."""

    def rings(self) -> list[np.ndarray]:
        """Copies of the rings, k and v [G, R, C] of every attention in order."""

    def restore(self, rings: Sequence[np.ndarray]) -> None:
        """Puts copies of rings back."""


def slot_positions(last: int, rows: int) -> np.ndarray:
    """The position that each row of a ring holds once ``last`` is absorbed, -1 = none: [rows] int64.

    It follows from ``last`` alone, so a rewind moves one number: rows of forgotten positions then count as positions a whole
    ring older, and those lie outside every window as long as the slack is not exceeded.
    """
    row = np.arange(rows, dtype=np.int64)
    position = last - (last - row) % rows
    return np.where(position >= 0, position, -1)


def rotary_angles(positions: np.ndarray, times: np.ndarray, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin for positions [T] and times [T], each [1 or G, T, C/2] float32, computed in float64."""
    half = config.head_dim // 2
    frequency = config.rotary_base ** (-np.arange(half, dtype=np.float64) / half)
    by_head = positions[None]
    if config.rotary == "half-time":
        by_head = np.repeat(np.stack((positions, times)), config.kv_heads // 2, axis=0)
    angle = by_head[..., None].astype(np.float64) * frequency
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def open_runtime(name: str, checkpoint: Path, *, threads: int = 0) -> Runtime:
    """The runtime ``name`` on a checkpoint; ``auto`` takes the first that works. Raises ``RuntimeUnavailable`` with the reasons,
    ``CheckpointError`` if the checkpoint itself is at fault.
    """
    if name == "eager":
        from engine.runtimes.eager import EagerRuntime

        return EagerRuntime(checkpoint, threads=threads)
    if name in ("onnx", "onnx-int8"):
        from engine.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(checkpoint, threads=threads, int8=name == "onnx-int8")
    if name != "auto":
        raise RuntimeUnavailable(f"no runtime {name!r}; there are {', '.join(NAMES)}")
    reasons = []
    for candidate in ("onnx", "eager"):
        try:
            return open_runtime(candidate, checkpoint, threads=threads)
        except RuntimeUnavailable as error:
            reasons.append(f"{candidate}: {error}")
    raise RuntimeUnavailable("; ".join(reasons))
