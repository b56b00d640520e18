"""ONNX Runtime on the CPU: the default without a GPU. Does not import PyTorch.

The graphs get their weights when they are opened (``engine.runtimes.onnx_weights``), and are bound to their arrays once. Playing
neither converts nor allocates arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.checkpoint import read_config
from engine.config import CheckpointError
from engine.events import ACTIONS, START_EVENT, VELOCITY_BINS, WAITS
from engine.rings import hidden_shape, rotary_angles
from engine.runtimes import MAX_CHUNK, RuntimeUnavailable, SamplingBias, chunks
from engine.runtimes.onnx_weights import FIELDS, Checkpoint, decide_weights, prefill_cross_weights, quantized, step_weights
from engine.runtimes.onnx_windows import KeyValueCache, WindowInputs, named, new_rows, write_rows
from engine.sounding import AGES, MAX_AGE
from engine.text import one_line

try:
    import onnxruntime
except ImportError as error:
    raise RuntimeUnavailable(f"onnxruntime cannot be imported ({error})") from error

STEP_FILE, STEP_INT8_FILE, PREFILL_CROSS_FILE, DECIDE_FILE = "step.onnx", "step.int8.onnx", "prefill_cross.onnx", "decide.onnx"
SIZES = (*range(1, 9), MAX_CHUNK)  # events absorbed in one run of the graph: all that live playing needs
AGE = np.append(np.log1p(np.arange(MAX_AGE + 1, dtype=np.float32)) / 8, np.float32(0))  # model input of each age; [-1]: key up


class OnnxRuntime:
    """``int8``: quantize the matrices of the step to int8, which changes the results slightly. ``weights``: those of the step in
    float32, if they are already read.
    """

    warm_for: float | None = None

    def __init__(
        self, checkpoint: Path, *, threads: int = 0, int8: bool = False, weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self.name = "onnx-int8" if int8 else "onnx"
        self.config, _ = read_config(checkpoint)
        threads = threads or 1  # a second one gains little and would delay the player
        read = Checkpoint(checkpoint)
        weights = step_weights(read, self.config) if weights is None else weights
        weights = quantized(weights) if int8 else weights
        step = Graph(checkpoint / (STEP_INT8_FILE if int8 else STEP_FILE), threads, weights)
        prefill_cross = None
        if self.config.scales:
            prefill_cross = Graph(checkpoint / PREFILL_CROSS_FILE, threads, prefill_cross_weights(read, self.config))
        decide = Graph(checkpoint / DECIDE_FILE, 1, decide_weights(read, self.config))
        self._cache = KeyValueCache(self.config)
        self._hidden = np.zeros(hidden_shape(self.config), np.float32)
        self.step_bytes = sum(one.nbytes for one in (*weights.values(), *self._cache.windows.values()))
        del weights  # as large as the model
        try:
            self._chunk_steps = {count: ChunkStep(self._cache, count, step, prefill_cross) for count in SIZES}
            self._decision = Decision(decide, self.config.width)
            self.reset()
            self._run_all()
        except Exception as error:  # onnxruntime has its own exception types
            why = f"its graphs do not fit its config ({one_line(error)})"
            raise CheckpointError(f"{checkpoint}: {why}; write them again with perceivers-live export") from error
        self.reset()

    def _run_all(self) -> None:
        """Runs every graph once, so that a damaged one fails at the start. Raises what the graph raises."""
        events = np.array([START_EVENT], np.int64)
        ages, times = np.full((1, AGES), -1, np.int16), np.zeros(1, np.int64)
        self.prefill_cross(events, ages, times, 0)
        self.step(events, ages, times, 0)
        zeros = (np.zeros(size, np.float32) for size in (WAITS, ACTIONS, VELOCITY_BINS, WAITS + ACTIONS + VELOCITY_BINS))
        wait, action, velocity, noise = zeros
        self.decide(0, SamplingBias(wait, action, velocity, 1.0, 0.0, noise))

    def reset(self, first: int = 0) -> None:
        self._cache.reset(first)
        self._hidden[...] = 0

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        for at in chunks(len(events), SIZES):
            chunk, position = self._chunk_steps[at.stop - at.start], first + at.start
            chunk.step(events[at], ages[at], times[at], position)
            write_rows(self._hidden, chunk.hidden, position)

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._chunk_steps[len(events)].prefill_cross(events, ages, times, first)

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        hidden = self._hidden[position % len(self._hidden)]
        return self._decision.run(hidden, bias) if np.isfinite(hidden).all() else None

    def hidden(self, position: int) -> np.ndarray:
        row: np.ndarray = self._hidden[position % len(self._hidden)].copy()
        return row

    def rings(self) -> list[np.ndarray]:
        return [*(ring[:, 0].copy() for ring in self._cache.rings()), self._hidden.copy()]

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self.reset(first)
        self._cache.restore(rings[:-1])
        self._hidden[...] = rings[-1]

    def keep_warm(self) -> None:
        pass

    def close(self) -> None:
        pass


class Graph:
    """An ONNX file, opened with its weights. Raises ``RuntimeUnavailable`` if it is missing, ``CheckpointError`` if it is damaged
    or needs other weights.
    """

    def __init__(self, path: Path, threads: int, weights: Mapping[str, np.ndarray]) -> None:
        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning would delay the player
        options.log_severity_level = 3
        if not path.exists():
            raise RuntimeUnavailable(f"{path.name} is missing in {path.parent}; write it with perceivers-live export")
        given = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), given)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has its own exception types for damaged files
            why = f"not a usable ONNX file for these weights ({one_line(error)})"
            raise CheckpointError(f"{path}: {why}; write it again with perceivers-live export") from error

    def bind(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> BoundGraph:
        """The graph, bound to these arrays. Raises ``ValueError`` for missing, unknown or misshapen arrays."""
        binding = self._session.io_binding()
        for bind, arrays, declared in (
            (binding.bind_input, inputs, self._session.get_inputs()),
            (binding.bind_output, outputs, self._session.get_outputs()),
        ):
            shapes = {one.name: one.shape for one in declared}
            for name in sorted(shapes.keys() | arrays.keys()):
                if name not in shapes or name not in arrays or not _fits(arrays[name].shape, shapes[name]):
                    raise ValueError(f"{self._path.name}: {name} is missing, unknown or has another shape")
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return BoundGraph(self._session, binding, (inputs, outputs))


class BoundGraph(NamedTuple):
    """A graph with the arrays that it reads and writes. ``arrays`` keeps them alive: the binding holds only addresses."""

    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding
    arrays: object

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)


class ChunkStep:
    """Absorbs chunks of ``count`` events into a key/value cache."""

    def __init__(self, cache: KeyValueCache, count: int, step: Graph, prefill_cross: Graph | None) -> None:
        self._cache, self._config = cache, cache.config
        self._window_inputs = WindowInputs(cache, count)
        angles = (self._config.kv_heads, count, self._config.head_dim // 2)
        self._events: dict[str, np.ndarray] = {
            "events": np.zeros((count, 3), np.int64),
            "sounding": np.zeros((count, 2 * AGES), np.float32),
            "cos": np.zeros(angles, np.float32),
            "sin": np.zeros(angles, np.float32),
        }
        self._rows = new_rows(self._config, count)
        self.hidden = np.zeros((count, self._config.width), np.float32)
        rows = {f"new_{name}": row for name, row in named(self._rows)}
        kept = {f"kept_{name}": window for name, window in cache.windows.items()}
        inputs = {**self._events, **self._window_inputs.inputs, **cache.windows}
        self._step = step.bind(inputs, {"hidden": self.hidden, **rows, **kept})
        if prefill_cross is not None:
            crossed = {f"new_{name}": row for name, row in named(self._rows[:-1])}
            self._prefill_cross = prefill_cross.bind(self._events, crossed)

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        """Absorbs events at positions ``first``, first + 1 ... The next call overwrites ``hidden``."""
        self._cache.rewind(first)
        self._fill(events, ages, times, first)
        self._window_inputs.fill(first)
        self._step.run()
        self._cache.write_rings(self._rows, first, len(events))

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        """Like ``step`` for the cross-attention stages only."""
        self._cache.rewind(first)
        if len(self._rows) > 1:
            self._fill(events, ages, times, first)
            self._prefill_cross.run()
            self._cache.write_windows(self._rows[:-1], first)
        self._cache.write_rings(self._rows[:-1], first, len(events))

    def _fill(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        cos, sin = rotary_angles(np.arange(first, first + len(events)), times, self._config)
        sounding = self._events["sounding"]
        held = ages >= 0
        sounding[:, :AGES] = held
        sounding[:, AGES:] = AGE[ages]
        np.add(events, FIELDS, out=self._events["events"])
        self._events["cos"][...] = cos
        self._events["sin"][...] = sin


class Decision:
    """Draws events: the chain of heads and the sampling."""

    def __init__(self, graph: Graph, width: int) -> None:
        sizes = {"hidden": width, "wait_bias": WAITS, "action_bias": ACTIONS, "velocity_bias": VELOCITY_BINS}
        sizes |= {"temperature": 1, "min_p": 1, "noise": WAITS + ACTIONS + VELOCITY_BINS}
        inputs = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
        self._inputs, self._event = list(inputs.values()), np.zeros(3, np.int64)
        self._graph = graph.bind(inputs, {"event": self._event})

    def run(self, hidden: np.ndarray, bias: SamplingBias) -> tuple[int, int, int]:
        for array, value in zip(self._inputs, (hidden, *bias._asdict().values()), strict=True):
            array[...] = value
        self._graph.run()
        wait, action, velocity = self._event.tolist()
        if not (0 <= wait < WAITS and 0 <= action < ACTIONS and 0 <= velocity < VELOCITY_BINS):
            raise ValueError(f"the model returned an invalid event: {wait}, {action}, {velocity}")
        return wait, action, velocity


def _fits(shape: tuple[int, ...], declared: Sequence[int | str]) -> bool:
    return len(shape) == len(declared) and all(isinstance(b, str) or a == b for a, b in zip(shape, declared, strict=True))
