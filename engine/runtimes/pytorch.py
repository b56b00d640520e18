"""PyTorch runtimes in one class: ``eager`` on the CPU (the reference), ``mps``, and ``cuda``, where every function is a captured
CUDA graph; in ``cuda-compiled``, the graphs of an event contain the kernels of ``torch.compile``, which are fewer.

All buffers are allocated once. Inputs are copied to the device in one transfer; ring writes and sampling run on the device.
Absorbing an event never synchronises with the device, drawing one does so once, for four numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import install
from engine.rings import hidden_shape, ring_shapes, rotary_angles
from engine.runtimes import MAX_CHUNK, RuntimeUnavailable, SamplingBias, chunks

try:
    import torch
except ImportError as error:
    raise RuntimeUnavailable(f"PyTorch is not installed ({install('train')})") from error

from torch import Tensor

from engine.checkpoint import load_model
from engine.config import ModelConfig
from engine.events import ACTIONS, VELOCITY_BINS, WAITS
from engine.graphs import Decide, PrefillCross, Step
from engine.model import PerceiverS
from engine.runtimes.staging import Result, Staging
from engine.sounding import AGES

Body = Callable[..., Sequence[Tensor]]
Check = Callable[[], None]
SIZES = (1, 8, MAX_CHUNK)  # events absorbed in one run of a function; compiled and captured functions need fixed sizes
WARM_UP = 3  # runs before a graph is captured, in which libraries allocate memory and choose kernels


class TorchRuntime:
    """``name``: eager, cuda, cuda-compiled or mps. ``precision`` of products, keys and values; by default float32 on the CPU,
    float16 on GPUs. ``compiled``: whether the functions of one event are compiled; by default as the name says. ``capture``:
    whether functions on CUDA become graphs. Raises ``RuntimeUnavailable`` without such a device.
    """

    def __init__(
        self,
        checkpoint: Path | PerceiverS,
        name: str = "eager",
        *,
        threads: int = 0,
        precision: torch.dtype | None = None,
        compiled: bool | None = None,
        capture: bool = True,
    ) -> None:
        self.name, self.device = name, _device(name)
        if threads:
            torch.set_num_threads(threads)
        model = checkpoint.eval() if isinstance(checkpoint, PerceiverS) else load_model(checkpoint)
        dtype = precision or (torch.float32 if self.device.type == "cpu" else torch.float16)
        self._model = model.to(self.device).to_precision(dtype)
        self.config = self._model.config
        self.warm_for = 0.05 if self.device.type == "cuda" else None
        self._rings = Rings(self.config, dtype, self.device)
        blocks = [parameter for block in self._model.blocks for parameter in block.parameters()]
        self.step_bytes = sum(tensor.nbytes for tensor in (*blocks, *self._rings.all))
        step, prefill_cross, decide = Step(self._model), PrefillCross(self._model), Decide(self._model)

        def stepped(*inputs: Tensor) -> Sequence[Tensor]:
            *events, begin = inputs
            hidden, *rows = step(*events, *self._rings.held(events[2], begin), *self._rings.keys_values)
            return [*self._rings.stacked(rows), hidden]

        def prefilled(events: Tensor, ages: Tensor, _: Tensor, cos: Tensor, sin: Tensor, __: Tensor) -> Sequence[Tensor]:
            return self._rings.stacked(prefill_cross(events, ages, cos, sin))

        fused = (name == "cuda-compiled") if compiled is None else compiled
        check = always if capture else None
        with torch.inference_mode():
            self._steps = {
                size: ChunkStep(self._rings, size, compile_body(stepped) if fused and size == 1 else stepped, check)
                for size in SIZES
            }
            self._prefill_crosses = ChunkStep(self._rings, MAX_CHUNK, prefilled, check) if self.config.scales else None
            self._decision = Decision(self._rings, compile_body(decide) if fused else decide, check)
        self.reset()

    @torch.inference_mode()
    def reset(self, first: int = 0) -> None:
        self._first = first
        for ring in self._rings.all:
            ring.zero_()

    @torch.inference_mode()
    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        for at in chunks(len(events), SIZES):
            self._steps[at.stop - at.start].run(events[at], ages[at], times[at], first + at.start, self._first)

    @torch.inference_mode()
    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        if self._prefill_crosses is not None:
            self._prefill_crosses.run(events, ages, times, first, self._first)

    @torch.inference_mode()
    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        return self._decision.run(position, bias)

    @torch.inference_mode()
    def hidden(self, position: int) -> np.ndarray:
        states = self._rings.hidden
        row: np.ndarray = states[position % len(states)].cpu().numpy().copy()
        return row

    @torch.inference_mode()
    def rings(self) -> list[np.ndarray]:
        return [ring.float().cpu().numpy().copy() for ring in (*self._rings.keys_values, self._rings.hidden)]

    @torch.inference_mode()
    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._first = first
        for ring, saved in zip((*self._rings.keys_values, self._rings.hidden), rings, strict=True):
            ring.copy_(torch.from_numpy(saved))

    @torch.inference_mode()
    def keep_warm(self) -> None:
        self._decision.rerun()

    def close(self) -> None:
        pass


class Rings:
    """Keys, values and hidden states on a device. All attentions with the same window share one tensor, so that one operation
    writes the new rows of all of them.

    ``windows``: [2 n, G, R, C] for n attentions, one tensor for each scale and one for the latent layers. ``keys_values``: views
    of these, k, v, k, v ... in the order of ``ring_shapes``. ``hidden`` [slack + 1, D] float32. ``all``: every tensor once.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.config = config
        self._counts = [2] * len(config.scales) + [2 * config.layers]
        shapes, firsts = ring_shapes(config), np.cumsum([0, *self._counts])
        self.windows = [
            torch.zeros(count, *shapes[first], dtype=dtype, device=device)
            for count, first in zip(self._counts, firsts.tolist(), strict=False)
        ]
        self.keys_values = [ring for window in self.windows for ring in window.unbind()]
        self.hidden = torch.zeros(hidden_shape(config), device=device)
        self.all = [*self.windows, self.hidden]
        self._numbers = [torch.arange(window.shape[-2], device=device) for window in self.windows]

    def held(self, positions: Tensor, begin: Tensor) -> list[Tensor]:
        """The position that each row of a ring holds before ``positions`` are absorbed: [R] for each window."""
        return [_held(positions[:1] - 1, numbers, begin) for numbers in self._numbers]

    def stacked(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """New rows k, v, k, v ... [G, T, C], stacked like ``windows``. Rows of the latents may be missing."""
        out, done = [], 0
        for count in self._counts:
            if done < len(rows):
                out.append(torch.stack(list(rows[done : done + count])))
            done += count
        return out

    def write(self, positions: Tensor, rows: Sequence[Tensor]) -> None:
        """Writes the newest rows: those of ``stacked``, and then the hidden states [T, D]."""
        for ring, new in zip(self.all, rows, strict=False):
            size = ring.shape[-2]
            ring.index_copy_(-2, positions[-size:] % size, new[..., -size:, :])


class ChunkStep:
    """Absorbs chunks of one size. ``body`` maps events, ages, positions, cos, sin (see ``engine.graphs.step_inputs``) and the
    position at which the history begins to the new rows, as ``Rings.write`` takes them.
    """

    def __init__(self, rings: Rings, size: int, body: Body, capturable: Check | None) -> None:
        self._rings, self._body, config = rings, body, rings.config
        angles = ((config.kv_heads if config.rotary == "half-time" else 1), size, config.head_dim // 2)
        fields = {
            "events": ((size, 3), torch.int64),
            "ages": ((size, AGES), torch.int16),
            "positions": ((size,), torch.int64),
            "cos": (angles, torch.float32),
            "sin": (angles, torch.float32),
            "begin": ((1,), torch.int64),
        }
        self._staging = Staging(fields, rings.hidden.device)
        self._run = captured(self._absorb, rings.hidden.device, capturable)

    def run(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int, begin: int) -> None:
        """Absorbs events at positions ``first``, first + 1 ... of a history that begins at ``begin``."""
        positions = np.arange(first, first + len(events), dtype=np.int64)
        cos, sin = rotary_angles(positions, times, self._rings.config)
        self._staging.send(events=events, ages=ages, positions=positions, cos=cos, sin=sin, begin=begin)
        self._run()

    def rerun(self) -> None:
        """Repeats the last call of ``run``. If its chunk is still the newest, the rings do not change."""
        self._run()

    def _absorb(self) -> None:
        inputs = self._staging.device
        self._rings.write(inputs["positions"], self._body(*inputs.values()))


class Decision:
    """Draws events: the chain of heads and the sampling, on the hidden state of any position that a rewind can reach. ``body``:
    ``engine.graphs.Decide``.
    """

    def __init__(self, rings: Rings, body: Callable[..., Tensor], capturable: Check | None) -> None:
        self._body, self._hidden = body, rings.hidden
        fields = {
            "row": ((1,), torch.int64),
            "wait": ((WAITS,), torch.float32),
            "action": ((ACTIONS,), torch.float32),
            "velocity": ((VELOCITY_BINS,), torch.float32),
            "temperature": ((1,), torch.float32),
            "min_p": ((1,), torch.float32),
            "noise": ((WAITS + ACTIONS + VELOCITY_BINS,), torch.float32),
        }
        self._staging = Staging(fields, self._hidden.device)
        self._staging.send(**dict.fromkeys(fields, 0.0) | {"temperature": 1.0})
        self._chosen = Result(4, self._hidden.device)
        self._run = captured(self._decide, self._hidden.device, capturable)

    def run(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        self._staging.send(row=np.array(position % len(self._hidden)), **bias._asdict())
        self._run()
        wait, action, velocity, finite = self._chosen.read()  # the only synchronisation with the device
        return (wait, action, velocity) if finite else None

    def rerun(self) -> None:
        """Repeats the last decision and discards the result."""
        self._run()

    def _decide(self) -> None:
        row, *bias = self._staging.device.values()
        hidden = self._hidden.index_select(0, row)[0]
        self._chosen.device[:3].copy_(self._body(hidden, *bias))
        self._chosen.device[3:].copy_(hidden.isfinite().all())
        self._chosen.fetch()


def compile_body(body: Callable[..., Any]) -> Callable[..., Any]:
    """``body`` compiled by Inductor as one graph. It must have no side effects, because a part outside the graph would not be
    captured.
    """
    return torch.compile(body, fullgraph=True, dynamic=False)


def always() -> None:
    """The check of functions that can always be captured."""


def captured(run: Callable[[], None], device: torch.device, capturable: Check | None) -> Callable[[], None]:
    """``run`` itself or, on CUDA, the replay of its captured graph. Capturing runs it ``WARM_UP`` times on the current contents
    of its buffers, then calls ``capturable``, which raises if a capture is impossible. None: do not capture.
    """
    if device.type != "cuda" or capturable is None:
        return run
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            run()
        capturable()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _held(last: Tensor, rows: Tensor, begin: Tensor) -> Tensor:
    """The position that each row of a ring holds after ``last`` is absorbed, -1 = none, of a history that begins at ``begin``.

    It depends on ``last`` only, so a rewind changes one number. Rows of dropped positions then count as positions that are one
    ring length older; these are outside every window as long as the rewind is within the slack.

    last [1], rows [R], begin [1] -> [R] int64.
    """
    position = last - (last - rows) % len(rows)
    return torch.where(position >= begin, position, -1)


def _device(name: str) -> torch.device:
    if name == "eager":
        return torch.device("cpu")
    if name in ("cuda", "cuda-compiled"):
        if not torch.cuda.is_available():
            raise RuntimeUnavailable(
                "PyTorch finds no CUDA device" if torch.version.cuda else "this PyTorch is built without CUDA"
            )
        return torch.device("cuda")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise RuntimeUnavailable("PyTorch finds no Apple GPU")
        return torch.device("mps")
    raise RuntimeUnavailable(f"unknown PyTorch runtime {name!r}")
