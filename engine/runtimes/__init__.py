"""Runtimes: the same few functions on whatever runs them best.

A runtime owns the rings of keys, values and hidden states and nothing else; which events are in them, and how to go back, is the
engine's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from engine.config import ModelConfig
from engine.errors import UserError

if TYPE_CHECKING:  # the command line lists the names, and answers sooner without numpy
    import numpy as np

NAMES = ("auto", "tensorrt", "cuda", "mps", "onnx", "onnx-int8", "eager")
CHUNKS = (1, 8, 64)  # events absorbed at once; fixed sizes suit compiled runtimes


class RuntimeUnavailable(UserError, RuntimeError):
    """This runtime cannot work here; the message says why, in one line."""


class SamplingBias(NamedTuple):
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

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        """The same for events so far back that only cross-attention will see them: their latents are left out."""

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        """(wait, action, velocity bin) of the event after ``position``, drawn from the chain of heads; None if the hidden state
        there is not finite. ``position`` is at most the slack behind the newest.
        """

    def hidden(self, position: int) -> np.ndarray:
        """The hidden state at a position, at most the slack behind the newest: float32 [D]."""

    def rings(self) -> list[np.ndarray]:
        """Copies of the rings, float32, ordered and shaped as ``engine.rings.ring_shapes``, the hidden states' last."""

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        """Puts such copies back, of a history that begins at ``first``."""

    def keep_warm(self) -> None:
        """Something harmless to do, so that an idle GPU keeps its clock."""

    def close(self) -> None:
        """Ends what runs in the background. Nothing else may be called afterwards."""
