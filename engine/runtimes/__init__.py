"""Runtimes: implementations of the model's streaming functions, one for each kind of hardware and library.

A runtime owns the rings of keys, values and hidden states, and nothing else. The engine owns the event history and rewinds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from engine.config import ModelConfig
from engine.errors import UserError

if TYPE_CHECKING:  # the command line imports only the names; numpy would slow down its start
    import numpy as np

NAMES = ("auto", "tensorrt", "cuda", "cuda-compiled", "mps", "onnx", "onnx-int8", "eager")
MAX_CHUNK = 64  # most events absorbed in one call


class RuntimeUnavailable(UserError, RuntimeError):
    """A runtime that cannot be used on this computer; the message is the reason, in one line."""


def chunks(count: int, sizes: Iterable[int] = range(1, MAX_CHUNK + 1)) -> Iterator[slice]:
    """Consecutive slices of ``count`` events, each as large as possible. ``sizes``: the allowed ones, 1 among them."""
    allowed, begin = sorted(sizes, reverse=True), 0
    while begin < count:
        size = next(size for size in allowed if size <= count - begin)
        yield slice(begin, begin + size)
        begin += size


class SamplingBias(NamedTuple):
    """Parameters of drawing an event: additive biases on the logits (``MASKED`` = impossible), temperature, min-p, Gumbel noise.

    wait [WAITS], action [ACTIONS], velocity [VELOCITY_BINS] float32, noise [WAITS + ACTIONS + VELOCITY_BINS] float32.
    """

    wait: np.ndarray
    action: np.ndarray
    velocity: np.ndarray
    temperature: float
    min_p: float
    noise: np.ndarray


class Runtime(Protocol):
    """The interface of a runtime.

    Events come as events [T, 3] int64, ages [T, AGES] int16, times [T] int64 in 10 ms steps since the start, at positions
    ``first``, first + 1 ...; T is at most ``MAX_CHUNK``.
    """

    name: str
    config: ModelConfig
    step_bytes: int  # bytes of weights and rings that absorbing one event reads
    warm_for: float | None  # idle seconds after which to call ``keep_warm``; None: never

    def reset(self, first: int = 0) -> None:
        """Empties the rings; the history begins at position ``first``."""

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        """Absorbs T events. May return before the work is done; ``decide`` and ``hidden`` wait for it."""

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        """Like ``step``, for ``MAX_CHUNK`` events so far back that only cross-attention will see them: without their latents."""

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        """(wait, action, velocity bin) of the event after ``position``, drawn from the chain of heads; None if the hidden state
        at ``position`` is not finite. ``position`` is at most the slack behind the newest.
        """

    def hidden(self, position: int) -> np.ndarray:
        """The hidden state at a position, at most the slack behind the newest: float32 [D]."""

    def rings(self) -> list[np.ndarray]:
        """Copies of the rings, float32, with the shapes and order of ``engine.rings.ring_shapes``; the ring of hidden states
        last.
        """

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        """Restores copies made by ``rings``, of a history that begins at ``first``."""

    def keep_warm(self) -> None:
        """Does work without effect, so that an idle GPU keeps its clock rate."""

    def close(self) -> None:
        """Stops background work. No other method may be called afterwards."""
