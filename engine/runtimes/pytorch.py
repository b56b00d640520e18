"""PyTorch runtimes in one class: ``eager`` on the CPU (the reference), ``mps``, and ``cuda``, where every function is a captured
CUDA graph.

All buffers are allocated once. Inputs are copied to the device in one transfer; ring writes and sampling run on the device.
Absorbing an event never synchronises with the device, drawing one does so once, for four numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.errors import install
from engine.rings import hidden_shape, ring_shapes, rotary_angles
from engine.runtimes import CHUNKS, RuntimeUnavailable, SamplingBias

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
from engine.sounding import AGES

Body = Callable[..., Sequence[Tensor]]  # a function of ``engine.graphs``, or its compiled version
Check = Callable[[], None]
WARM_UP = 3  # runs before a graph is captured, in which libraries allocate memory and choose kernels
ALIGNMENT = 16  # bytes


class TorchRuntime:
    """``name``: eager, cuda or mps. ``precision`` of weights and rings; by default float32 on the CPU, bfloat16 on CUDA, float16
    on Apple's GPUs. Raises ``RuntimeUnavailable`` without such a device.
    """

    def __init__(
        self, checkpoint: Path | PerceiverS, name: str = "eager", *, threads: int = 0, precision: torch.dtype | None = None
    ) -> None:
        self.name, self.device = name, _device(name)
        if threads:
            torch.set_num_threads(threads)
        model = checkpoint.eval() if isinstance(checkpoint, PerceiverS) else load_model(checkpoint)
        half = {"cuda": torch.bfloat16, "mps": torch.float16}
        self._model = model.to(self.device, precision or half.get(self.device.type, torch.float32))
        self.config = self._model.config
        self.warm_for = 0.05 if self.device.type == "cuda" else None
        dtype = self._model.embedding.sounding.weight.dtype
        shapes = [*ring_shapes(self.config), hidden_shape(self.config)]
        blocks = [parameter for block in self._model.blocks for parameter in block.parameters()]
        self._rings = [torch.zeros(shape, dtype=dtype, device=self.device) for shape in shapes]
        self.step_bytes = sum(tensor.nbytes for tensor in (*blocks, *self._rings))
        step, prefill_cross = Step(self._model), PrefillCross(self._model)

        def stepped(*inputs: Tensor) -> Sequence[Tensor]:
            hidden, *rows = step(*inputs, *self._rings[:-1])
            return [*rows, hidden]

        def prefilled(events: Tensor, ages: Tensor, _: Tensor, cos: Tensor, sin: Tensor, *__: Tensor) -> Sequence[Tensor]:
            return prefill_cross(events, ages, cos, sin)

        with torch.inference_mode():
            self._steps = {size: ChunkStep(self.config, size, stepped, self._rings) for size in CHUNKS}
            crossed = self._rings[: 2 * len(self.config.scales)]
            self._prefill_crosses = ChunkStep(self.config, CHUNKS[-1], prefilled, crossed) if crossed else None
            self._decision = Decision(Decide(self._model), self._rings[-1])
        self.reset()

    @torch.inference_mode()
    def reset(self, first: int = 0) -> None:
        self._first = first
        for ring in self._rings:
            ring.zero_()

    @torch.inference_mode()
    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._steps[len(events)].run(events, ages, times, first, self._first)

    @torch.inference_mode()
    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        if self._prefill_crosses is not None:
            self._prefill_crosses.run(events, ages, times, first, self._first)

    @torch.inference_mode()
    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        return self._decision.run(position, bias)

    @torch.inference_mode()
    def hidden(self, position: int) -> np.ndarray:
        row: np.ndarray = self._rings[-1][position % len(self._rings[-1])].float().cpu().numpy().copy()
        return row

    @torch.inference_mode()
    def rings(self) -> list[np.ndarray]:
        return [ring.float().cpu().numpy().copy() for ring in self._rings]

    @torch.inference_mode()
    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._first = first
        for ring, saved in zip(self._rings, rings, strict=True):
            ring.copy_(torch.from_numpy(saved))

    @torch.inference_mode()
    def keep_warm(self) -> None:
        self._decision.rerun()

    def close(self) -> None:
        pass


class Staging:
    """Arrays on the host and their copies on the device. Each side is one block of memory, so that one transfer copies all.

    On the CPU, both are the same memory.
    """

    def __init__(self, fields: Mapping[str, tuple[tuple[int, ...], torch.dtype]], device: torch.device) -> None:
        sizes = {name: int(np.prod(shape)) * dtype.itemsize for name, (shape, dtype) in fields.items()}
        total = sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes.values())
        self._host = torch.zeros(total, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = self._host if device.type == "cpu" else self._host.to(device)
        self._sent = torch.cuda.Event() if device.type == "cuda" else None
        self.host: dict[str, np.ndarray] = {}
        self.device: dict[str, Tensor] = {}
        begin = 0
        for name, (shape, dtype) in fields.items():
            part = slice(begin, begin + sizes[name])
            self.host[name] = self._host[part].view(dtype).view(shape).numpy()
            self.device[name] = self._device[part].view(dtype).view(shape)
            begin += -(-sizes[name] // ALIGNMENT) * ALIGNMENT

    def send(self, **arrays: np.ndarray | float) -> None:
        """Fills the host's arrays and starts the transfer to the device."""
        if self._sent is not None:
            self._sent.synchronize()  # the previous transfer may still read the host's arrays
        for name, array in arrays.items():
            self.host[name][...] = array
        if self._device is not self._host:
            self._device.copy_(self._host, non_blocking=self._sent is not None)
        if self._sent is not None:
            self._sent.record()


class ChunkStep:
    """Absorbs chunks of one size. ``body`` maps events, ages, positions, cos, sin and the positions held by the rings (see
    ``engine.graphs.step_inputs``) to new rows. This class writes them into ``rings``.
    """

    def __init__(
        self, config: ModelConfig, size: int, body: Body, rings: Sequence[Tensor], capturable: Check = lambda: None
    ) -> None:
        self._config, self._body, self._rings = config, body, rings
        device = rings[0].device
        angles = ((config.kv_heads if config.rotary == "half-time" else 1), size, config.head_dim // 2)
        fields = {
            "events": ((size, 3), torch.int64),
            "ages": ((size, AGES), torch.int16),
            "positions": ((size,), torch.int64),
            "cos": (angles, torch.float32),
            "sin": (angles, torch.float32),
            "begin": ((1,), torch.int64),
        }
        self._staging = Staging(fields, device)
        self._slots = [torch.arange(config.ring(window), device=device) for window in (*config.scales, config.window)]
        self._run = captured(self._absorb, device, capturable)

    def run(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int, begin: int) -> None:
        """Absorbs events at positions ``first``, first + 1 ... of a history that begins at ``begin``."""
        positions = np.arange(first, first + len(events), dtype=np.int64)
        cos, sin = rotary_angles(positions, times, self._config)
        self._staging.send(events=events, ages=ages, positions=positions, cos=cos, sin=sin, begin=begin)
        self._run()

    def rerun(self) -> None:
        """Repeats the last call of ``run``. If its chunk is still the newest, the rings do not change."""
        self._run()

    def _absorb(self) -> None:
        *inputs, begin = self._staging.device.values()
        positions = inputs[2]
        held = [_held(positions[:1] - 1, slots, begin) for slots in self._slots]
        for ring, new in zip(self._rings, self._body(*inputs, *held), strict=True):
            size = ring.shape[-2]
            ring.index_copy_(-2, positions[-size:] % size, new[..., -size:, :])


class Decision:
    """Draws events: the chain of heads and the sampling, on the hidden state of any position that a rewind can reach."""

    def __init__(self, body: Callable[..., Tensor], hidden: Tensor, capturable: Check = lambda: None) -> None:
        """``hidden`` is the ring of hidden states."""
        self._body, self._hidden = body, hidden
        fields = {
            "row": ((1,), torch.int64),
            "wait": ((WAITS,), torch.float32),
            "action": ((ACTIONS,), torch.float32),
            "velocity": ((VELOCITY_BINS,), torch.float32),
            "temperature": ((1,), torch.float32),
            "min_p": ((1,), torch.float32),
            "noise": ((WAITS + ACTIONS + VELOCITY_BINS,), torch.float32),
        }
        self._staging = Staging(fields, hidden.device)
        self._staging.send(temperature=1.0)
        self._chosen = torch.zeros(4, dtype=torch.int64, device=hidden.device)
        self._run = captured(self._decide, hidden.device, capturable)

    def run(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        self._staging.send(row=np.array(position % len(self._hidden)), **bias._asdict())
        self._run()
        wait, action, velocity, finite = self._chosen.tolist()  # the only synchronisation with the device
        return (wait, action, velocity) if finite else None

    def rerun(self) -> None:
        """Repeats the last decision and discards the result."""
        self._run()

    def _decide(self) -> None:
        row, *bias = self._staging.device.values()
        hidden = self._hidden.index_select(0, row)[0]
        self._chosen.copy_(torch.cat((self._body(hidden, *bias), hidden.isfinite().all()[None])))


def captured(run: Callable[[], None], device: torch.device, capturable: Check) -> Callable[[], None]:
    """``run`` itself or, on CUDA, the replay of its captured graph. Capturing runs it ``WARM_UP`` times on the current contents
    of its buffers, then calls ``capturable``, which raises if a capture is impossible.
    """
    if device.type != "cuda":
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
    if name == "cuda":
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
