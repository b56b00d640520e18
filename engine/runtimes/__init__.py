"""Runtimes: the same few functions on whatever runs them best.

A runtime owns the rings of keys, values and hidden states and nothing else; which events are in them, and how to go back, is the
engine's business.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from engine.config import ModelConfig, one_line
from engine.errors import UserError

log = logging.getLogger(__name__)
NAMES = ("auto", "tensorrt", "cuda", "mps", "onnx", "onnx-int8", "eager")
CHUNKS = (1, 8, 64)  # events absorbed at once; fixed sizes suit compiled runtimes


class RuntimeUnavailable(UserError, RuntimeError):
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
    """What the engine asks of a runtime.

    Events come as events [T, 3] int64, ages [T, AGES] int16, times [T] int64 in 10 ms steps since the start, at positions
    ``first``, first + 1 ...; T is one of ``CHUNKS``.
    """

    name: str
    config: ModelConfig
    step_bytes: int  # weights and rings: what absorbing one event reads
    warm_for: float | None  # idle seconds after which ``keep_warm`` should be called, None = never

    def reset(self, first: int = 0) -> None:
        """Empties the rings; the history begins at position ``first``."""

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        """Absorbs T events. May return before the work is done; ``decide`` and ``hidden`` wait for it."""

    def remember(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        """The same for events so far back that only cross-attention will see them: their latents are left out."""

    def decide(self, position: int, odds: Odds) -> tuple[int, int, int] | None:
        """(wait, action, velocity bin) of the event after ``position``, drawn from the chain of heads; None if the hidden state
        there is not finite. ``position`` is at most the slack behind the newest.
        """

    def hidden(self, position: int) -> np.ndarray:
        """The hidden state at a position, at most the slack behind the newest: float32 [D]."""

    def rings(self) -> list[np.ndarray]:
        """Copies of the rings, float32, in the order and of the shapes of ``ring_shapes``, the hidden states' last."""

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        """Puts such copies back, of a history that begins at ``first``."""

    def keep_warm(self) -> None:
        """Something harmless to do, so that an idle GPU keeps its clock."""

    def close(self) -> None:
        """Ends what runs in the background. Nothing else may be called afterwards."""


def ring_shapes(config: ModelConfig) -> list[tuple[int, ...]]:
    """Shapes of the keys' and values' rings [G, R, C] of every attention in the order of ``config.windows``: k, v, k, v ..."""
    return [(config.kv_heads, config.ring(window), config.head_dim) for window in config.windows for _ in "kv"]


def hidden_shape(config: ModelConfig) -> tuple[int, int]:
    """Shape of the hidden states' ring: as many as a rewind can go back to."""
    return config.slack + 1, config.width


def slot_positions(last: int, rows: int, first: int = 0) -> np.ndarray:
    """The position that each row of a ring holds once ``last`` is absorbed, -1 = none, of a history that begins at ``first``:
    [rows] int64.

    It follows from ``last`` alone, so a rewind moves one number: rows of forgotten positions then count as positions a whole
    ring older, and those lie outside every window as long as the slack is not exceeded.
    """
    row = np.arange(rows, dtype=np.int64)
    position = last - (last - row) % rows
    return np.where(position >= first, position, -1)


def rotary_angles(positions: np.ndarray, times: np.ndarray, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin for positions [T] and times [T], each [1 or G, T, C/2] float32, computed in float64."""
    half = config.head_dim // 2
    frequency = config.rotary_base ** (-np.arange(half, dtype=np.float64) / half)
    by_head = positions[None]
    if config.rotary == "half-time":
        by_head = np.repeat(np.stack((positions, times)), config.kv_heads // 2, axis=0)
    angle = by_head[..., None].astype(np.float64) * frequency
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def open_runtime(name: str, checkpoint: Path, *, threads: int = 0, steady: bool = False) -> Runtime:
    """The runtime ``name`` on a checkpoint; ``auto`` takes the best that works here and logs why not the ones before it; if it is
    to be ``steady``, none that computes differently once it has compiled itself. Raises ``RuntimeUnavailable`` with the reasons,
    ``CheckpointError`` if the checkpoint itself is at fault.
    """
    if name in ("eager", "cuda", "mps"):
        from engine.runtimes.pytorch import TorchRuntime

        return TorchRuntime(checkpoint, name, threads=threads)
    if name == "tensorrt":
        from engine.runtimes.compiled import TensorRTRuntime

        return TensorRTRuntime(checkpoint, threads=threads)
    if name in ("onnx", "onnx-int8"):
        from engine.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(checkpoint, threads=threads, int8=name == "onnx-int8")
    if name != "auto":
        raise RuntimeUnavailable(f"no runtime {name!r}; there are {', '.join(NAMES)}")
    reasons: list[str] = []
    for candidate, absent in AUTO:
        reason = "only live" if steady and candidate == "tensorrt" else absent()
        if reason is None:
            try:
                runtime = open_runtime(candidate, checkpoint, threads=threads)
            except RuntimeError as error:  # of a GPU that is there and does not work, too
                reason = one_line(error)
            else:
                log.info("runtime %s%s", candidate, f" (not {'; '.join(reasons)})" if reasons else "")
                return runtime
        reasons.append(f"{candidate}: {reason}")
    raise RuntimeUnavailable("; ".join(reasons))


def _no_cuda() -> str | None:
    """Why a CUDA runtime need not even be tried: PyTorch takes a second to import, and most machines that play have none."""
    driver = Path("C:/Windows/System32/nvcuda.dll") if sys.platform == "win32" else Path("/dev/nvidiactl")
    if not driver.exists():
        return "no NVIDIA driver"
    return None if importlib.util.find_spec("torch") else "PyTorch is not installed (pip install '.[train]')"


def _not_unasked() -> str | None:
    """An Apple GPU: one operation after the other, which is likely to take longer than a small model does on the CPU."""
    return "only on request"


def _worth_a_try() -> str | None:
    return None


AUTO: tuple[tuple[str, Callable[[], str | None]], ...] = (
    ("tensorrt", _no_cuda),
    ("cuda", _no_cuda),
    *((("mps", _not_unasked),) if sys.platform == "darwin" else ()),
    ("onnx", _worth_a_try),
    ("eager", _worth_a_try),
)
