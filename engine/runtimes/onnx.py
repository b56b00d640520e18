"""ONNX Runtime on the CPU: the embedded default. No PyTorch anywhere.

An event costs what is read for it. Keys and values are therefore held twice: in rings, with the slack that a rewind needs, and in
windows of no more rows than an event may see, which are what the step reads. Every graph is bound to its arrays once: nothing is
converted or allocated while playing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.checkpoint import read_config
from engine.config import CheckpointError, ModelConfig, one_line
from engine.events import ACTIONS, START_EVENT, VELOCITY_BINS, WAITS
from engine.rings import MASKED, hidden_shape, rotary_angles
from engine.runtimes import CHUNKS, RuntimeUnavailable, SamplingBias
from engine.sounding import AGES

try:
    import onnxruntime
except ImportError as error:
    raise RuntimeUnavailable(f"onnxruntime cannot be imported ({error})") from error

STEP_FILE, STEP_INT8_FILE, PREFILL_CROSS_FILE, DECIDE_FILE = "step.onnx", "step.int8.onnx", "remember.onnx", "decide.onnx"


class OnnxRuntime:
    """``int8``: with the bundle's int8 weights, which are not quite the model's own."""

    warm_for: float | None = None

    def __init__(self, checkpoint: Path, *, threads: int = 0, int8: bool = False) -> None:
        self.name = "onnx-int8" if int8 else "onnx"
        self.config, _ = read_config(checkpoint)
        threads = threads or 1  # a second one gains little here and belongs to the player
        path = checkpoint / (STEP_INT8_FILE if int8 else STEP_FILE)
        step = Graph(path, threads)
        prefill_cross = Graph(checkpoint / PREFILL_CROSS_FILE, threads) if self.config.scales else None
        decide = Graph(checkpoint / DECIDE_FILE, 1)
        self._rings = _blocks(self.config, [self.config.ring(window) for window in _window_sizes(self.config)])
        self._windows = _blocks(self.config, _window_sizes(self.config))
        self._hidden = np.zeros(hidden_shape(self.config), np.float32)
        self.step_bytes = path.stat().st_size + sum(window.nbytes for window in self._windows)
        try:
            self._chunk_steps = {count: ChunkStep(self.config, count, step, prefill_cross, self._windows) for count in CHUNKS}
            self._decision = Decision(decide, self.config.width)
            self.reset()
            self._rehearse()
        except Exception as error:  # onnxruntime raises kinds of its own
            why = f"its graphs do not do what its config says ({one_line(error)})"
            raise CheckpointError(f"{checkpoint}: {why}; perceivers-live export writes them anew") from error
        self.reset()

    def _rehearse(self) -> None:
        """Every graph once: a damaged one is to be known before anybody plays. Raises whatever is wrong."""
        events = np.array([START_EVENT], np.int64)
        ages, times = np.full((1, AGES), -1, np.int16), np.zeros(1, np.int64)
        self.prefill_cross(events, ages, times, 0)
        self.step(events, ages, times, 0)
        zeros = (np.zeros(size, np.float32) for size in (WAITS, ACTIONS, VELOCITY_BINS, WAITS + ACTIONS + VELOCITY_BINS))
        wait, action, velocity, noise = zeros
        self.decide(0, SamplingBias(wait, action, velocity, 1.0, 0.0, noise))

    def reset(self, first: int = 0) -> None:
        for block in (*self._rings, *self._windows, self._hidden):
            block[...] = 0
        self._first = self._next = first  # the position after the newest in the windows

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._turn_back(first)
        absorption = self._chunk_steps[len(events)]
        self._write(absorption.step(events, ages, times, first, self._first), first, len(events))
        _write(self._hidden, absorption.hidden, first)

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._turn_back(first)
        self._write(self._chunk_steps[len(events)].prefill_cross(events, ages, times, first), first, len(events))

    def _turn_back(self, first: int) -> None:
        """Puts back what the windows have lost since ``first`` was next."""
        if first < self._next:
            for ring, window in zip(self._rings, self._windows, strict=True):
                size = window.shape[-2]
                lost = np.arange(max(first - size, self._first), min(self._next - size, first))
                window[..., lost % size, :] = ring[..., lost % ring.shape[-2], :]
        self._next = first

    def _write(self, rows: Sequence[np.ndarray], first: int, count: int) -> None:
        for ring, window, new in zip(self._rings, self._windows, rows, strict=False):
            _write(ring, new, first)
            _write(window, new, first)
        self._next = first + count

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        hidden = self._hidden[position % len(self._hidden)]
        return self._decision.run(hidden, bias) if np.isfinite(hidden).all() else None

    def hidden(self, position: int) -> np.ndarray:
        row: np.ndarray = self._hidden[position % len(self._hidden)].copy()
        return row

    def rings(self) -> list[np.ndarray]:
        return [*(ring[:, 0].copy() for block in self._rings for ring in block), self._hidden.copy()]

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self.reset(first)
        for ring, saved in zip((ring[:, 0] for block in self._rings for ring in block), rings[:-1], strict=True):
            ring[...] = saved
        self._hidden[...] = rings[-1]
        self._next = sys.maxsize  # the windows have yet to be filled, wherever it goes on

    def keep_warm(self) -> None:
        pass

    def close(self) -> None:
        pass


class Graph:
    """An ONNX file, opened. Raises ``RuntimeUnavailable`` if it is missing and ``CheckpointError`` if it is damaged."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the other core belongs to the player
        options.log_severity_level = 3
        if not path.exists():
            raise RuntimeUnavailable(f"{path.name} is missing in {path.parent} (perceivers-live export writes it)")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises kinds of its own for damaged files
            raise CheckpointError(f"{path}: not a usable ONNX file ({one_line(error)})") from error

    def bound(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> Bound:
        """The graph on these arrays. Raises ``ValueError`` if it wants others."""
        binding = self._session.io_binding()
        for bind, arrays, declared in (
            (binding.bind_input, inputs, self._session.get_inputs()),
            (binding.bind_output, outputs, self._session.get_outputs()),
        ):
            shapes = {one.name: one.shape for one in declared}
            for name in sorted(shapes.keys() | arrays.keys()):
                if name not in shapes or name not in arrays or not _fits(arrays[name].shape, shapes[name]):
                    raise ValueError(f"{self._path.name}: {name} is not as expected")
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return Bound(self._session, binding, (inputs, outputs))


class Bound(NamedTuple):
    """A graph and the arrays that it reads from and writes to, by their addresses."""

    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding
    arrays: object

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)


class ChunkStep:
    """Absorbs chunks of ``count`` events, up to but not including the writing of their rows."""

    def __init__(
        self, config: ModelConfig, count: int, step: Graph, prefill_cross: Graph | None, windows: Sequence[np.ndarray]
    ) -> None:
        self._config = config
        angles = (config.kv_heads, count, config.head_dim // 2)
        self._events: dict[str, np.ndarray] = {
            "events": np.zeros((count, 3), np.int64),
            "ages": np.zeros((count, AGES), np.int64),
            "cos": np.zeros(angles, np.float32),
            "sin": np.zeros(angles, np.float32),
        }
        self._masks = [np.zeros((count, window + count), np.float32) for window in _window_sizes(config)]
        self._rows = _blocks(config, [count] * len(self._masks))
        self.hidden = np.zeros((count, config.width), np.float32)
        masks = {f"mask{i}": mask for i, mask in enumerate(self._masks)}
        rows = {f"new_{name}": row for name, row in _named(self._rows)}
        self._step = step.bound({**self._events, **masks, **dict(_named(windows))}, {"hidden": self.hidden, **rows})
        if prefill_cross is not None:
            crossed = {f"new_{name}": row[:, 0] for name, row in _named(self._rows[:-1])}
            self._prefill_cross = prefill_cross.bound(self._events, crossed)

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int, begin: int) -> Sequence[np.ndarray]:
        """Events at positions ``first``.. of a history that begins at ``begin``: the new rows of every attention, in blocks.
        ``hidden`` is filled as well. Both are overwritten by the next call.
        """
        self._fill(events, ages, times, first)
        for mask in self._masks:
            fill_mask(mask, first, begin)
        self._step.run()
        return self._rows

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> Sequence[np.ndarray]:
        """The new rows of the cross-attention stages."""
        if len(self._rows) > 1:
            self._fill(events, ages, times, first)
            self._prefill_cross.run()
        return self._rows[:-1]

    def _fill(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        cos, sin = rotary_angles(np.arange(first, first + len(events)), times, self._config)
        for name, array in (("events", events), ("ages", ages), ("cos", cos), ("sin", sin)):
            self._events[name][...] = array


class Decision:
    """Draws events: the chain of heads with its sampling."""

    def __init__(self, graph: Graph, width: int) -> None:
        sizes = {"hidden": width, "wait_bias": WAITS, "action_bias": ACTIONS, "velocity_bias": VELOCITY_BINS}
        sizes |= {"temperature": 1, "min_p": 1, "noise": WAITS + ACTIONS + VELOCITY_BINS}
        inputs = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
        self._inputs, self._event = list(inputs.values()), np.zeros(3, np.int64)
        self._graph = graph.bound(inputs, {"event": self._event})

    def run(self, hidden: np.ndarray, bias: SamplingBias) -> tuple[int, int, int]:
        for array, value in zip(self._inputs, (hidden, *bias._asdict().values()), strict=True):
            array[...] = value
        self._graph.run()
        wait, action, velocity = self._event.tolist()
        if not (0 <= wait < WAITS and 0 <= action < ACTIONS and 0 <= velocity < VELOCITY_BINS):
            raise ValueError(f"the model decided on an event that there is not: {wait}, {action}, {velocity}")
        return wait, action, velocity


def fill_mask(mask: np.ndarray, first: int, begin: int = 0) -> None:
    """What is added to the scores of T new events at positions ``first``.. of a history that begins at ``begin``, over the W rows
    of their window (where position p has row p % W) and then over each other: 0 where one sees the other, ``MASKED`` elsewhere.
    mask [T, W + T].
    """
    window = mask.shape[1] - mask.shape[0]
    oldest = first % window  # its row
    mask[...] = 0
    for i, row in enumerate(mask):
        unseen = min(max(i + 1, window - (first - begin)), window)  # too old by now, or never written
        row[oldest : min(oldest + unseen, window)] = MASKED
        row[: max(oldest + unseen - window, 0)] = MASKED
        row[window : window + max(i + 1 - window, 0)] = MASKED
        row[window + i + 1 :] = MASKED


def _window_sizes(config: ModelConfig) -> tuple[int, ...]:
    """Of each scale and of the latent layers: what a block of keys and values, and a mask, has in common."""
    return *config.scales, config.window


def _blocks(config: ModelConfig, rows: Iterable[int]) -> list[np.ndarray]:
    """Zeros for the keys and values of each scale, then for those of all latent layers: [2 or 2 * layers, G, 1, rows, C]."""
    counts = [2] * len(config.scales) + [2 * config.layers]
    shapes = zip(counts, rows, strict=True)
    return [np.zeros((count, config.kv_heads, 1, size, config.head_dim), np.float32) for count, size in shapes]


def _named(blocks: Iterable[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """k0, v0, k1, v1 ... and what is theirs in the blocks, [G, 1, rows, C]."""
    for i, array in enumerate(array for block in blocks for array in block):
        yield f"{'kv'[i % 2]}{i // 2}", array


def _fits(shape: tuple[int, ...], declared: Sequence[int | str]) -> bool:
    return len(shape) == len(declared) and all(isinstance(b, str) or a == b for a, b in zip(shape, declared, strict=True))


def _write(ring: np.ndarray, new: np.ndarray, first: int) -> None:
    """New rows [..., T, C] from position ``first`` on into their places; of more rows than a ring has, the last ones stay."""
    rows, count = ring.shape[-2], new.shape[-2]
    begin = first % rows
    if begin + count <= rows:  # nearly always, and far faster than by index
        ring[..., begin : begin + count, :] = new
    else:
        ring[..., np.arange(first, first + count) % rows, :] = new
