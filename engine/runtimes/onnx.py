"""ONNX Runtime on the CPU: the embedded default. No PyTorch anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.checkpoint import read_config
from engine.config import CheckpointError, one_line
from engine.events import ACTIONS, START_EVENT, VELOCITY_BINS, WAITS
from engine.runtimes import Odds, RuntimeUnavailable, hidden_shape, ring_shapes, rotary_angles, slot_positions
from engine.sounding import AGES

try:
    import onnxruntime
except ImportError as error:
    raise RuntimeUnavailable(f"onnxruntime cannot be imported ({error})") from error

STEP_FILE, STEP_INT8_FILE, REMEMBER_FILE, DECIDE_FILE = "step.onnx", "step.int8.onnx", "remember.onnx", "decide.onnx"


class OnnxRuntime:
    """``int8``: with the bundle's int8 weights, which are not quite the model's own."""

    warm_for: float | None = None

    def __init__(self, checkpoint: Path, *, threads: int = 0, int8: bool = False) -> None:
        self.name = "onnx-int8" if int8 else "onnx"
        self.config, _ = read_config(checkpoint)
        threads = threads or 1  # a second one gains little here and belongs to the player
        step = checkpoint / (STEP_INT8_FILE if int8 else STEP_FILE)
        self._step = _session(step, threads)
        self._remember = _session(checkpoint / REMEMBER_FILE, threads) if self.config.scales else None
        self._decide = _session(checkpoint / DECIDE_FILE, 1)
        self._ring_names = [f"{kind}{i}" for i in range(len(self.config.windows)) for kind in "kv"]
        inputs = {one.name: tuple(one.shape) for one in self._step.get_inputs()}
        for name, shape in zip(self._ring_names, ring_shapes(self.config), strict=True):
            if inputs.get(name) != shape:
                raise CheckpointError(f"{step}: input {name} is {inputs.get(name)}, its config says {shape}")
        self.reset()
        try:
            self._rehearse()
        except Exception as error:  # onnxruntime raises kinds of its own
            raise CheckpointError(f"{checkpoint}: its graphs do not do what its config says ({one_line(error)})") from error
        self.reset()
        self.step_bytes = step.stat().st_size + sum(ring.nbytes for ring in self._rings)

    def _rehearse(self) -> None:
        """Every graph once: a damaged one is to be known before anybody plays. Raises whatever is wrong."""
        events = np.array([START_EVENT], np.int64)
        ages, times = np.full((1, AGES), -1, np.int16), np.zeros(1, np.int64)
        self.remember(events, ages, times, 0)
        self.step(events, ages, times, 0)
        zeros = (np.zeros(size, np.float32) for size in (WAITS, ACTIONS, VELOCITY_BINS, WAITS + ACTIONS + VELOCITY_BINS))
        wait, action, velocity, noise = zeros
        self.decide(0, Odds(wait, action, velocity, 1.0, 0.0, noise))

    def reset(self, first: int = 0) -> None:
        self._first = first
        self._rings = [np.zeros(shape, np.float32) for shape in (*ring_shapes(self.config), hidden_shape(self.config))]

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        positions, feed = self._events(events, ages, times, first)
        feed["positions"] = positions
        for i, window in enumerate((*self.config.scales, self.config.window)):
            feed[f"held{i}"] = slot_positions(first - 1, self.config.ring(window), self._first)
        feed |= dict(zip(self._ring_names, self._rings, strict=False))
        hidden, *rows = self._step.run(None, feed)
        _write(self._rings, [*rows, hidden], positions)

    def remember(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        if self._remember is not None:
            positions, feed = self._events(events, ages, times, first)
            rows = self._remember.run(None, feed)
            _write(self._rings[: len(rows)], rows, positions)

    def _events(
        self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Their positions, and the inputs that every graph has."""
        positions = np.arange(first, first + len(events), dtype=np.int64)
        cos, sin = rotary_angles(positions, times, self.config)
        return positions, {"events": events, "ages": ages.astype(np.int64), "cos": cos, "sin": sin}

    def decide(self, position: int, odds: Odds) -> tuple[int, int, int] | None:
        hidden = self._rings[-1][position % len(self._rings[-1])]
        if not np.isfinite(hidden).all():
            return None
        feed = {
            "hidden": hidden,
            "wait_bias": odds.wait,
            "action_bias": odds.action,
            "velocity_bias": odds.velocity,
            "temperature": np.array([odds.temperature], np.float32),
            "min_p": np.array([odds.min_p], np.float32),
            "noise": odds.noise,
        }
        wait, action, velocity = map(int, self._decide.run(None, feed)[0])
        if not (0 <= wait < WAITS and 0 <= action < ACTIONS and 0 <= velocity < VELOCITY_BINS):
            raise ValueError(f"the model decided on an event that there is not: {wait}, {action}, {velocity}")
        return wait, action, velocity

    def hidden(self, position: int) -> np.ndarray:
        row: np.ndarray = self._rings[-1][position % len(self._rings[-1])].copy()
        return row

    def rings(self) -> list[np.ndarray]:
        return [ring.copy() for ring in self._rings]

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._first = first
        self._rings = [ring.copy() for ring in rings]

    def keep_warm(self) -> None:
        pass

    def close(self) -> None:
        pass


def _write(rings: Sequence[np.ndarray], rows: Sequence[np.ndarray], positions: np.ndarray) -> None:
    """New rows [..., T, C] into their places; of more rows than a ring has, the last ones stay."""
    for ring, new in zip(rings, rows, strict=True):
        ring[..., positions % ring.shape[-2], :] = new


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the other core belongs to the player
    options.log_severity_level = 3
    if not path.exists():
        raise RuntimeUnavailable(f"{path.name} is missing in {path.parent} (perceivers-live export writes it)")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises kinds of its own for damaged files
        raise CheckpointError(f"{path}: not a usable ONNX file ({one_line(error)})") from error
