"""Running TensorRT plans by TensorRT's own API: tensors are bound once, and a run is one call that a CUDA graph can capture.

torch-tensorrt's own runtime copies every input at every call, the whole memory included; so it only compiles (``build``).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from engine.errors import install
from engine.runtimes import RuntimeUnavailable

try:
    import torch
except ImportError as error:
    raise RuntimeUnavailable(f"PyTorch is not installed ({install('tensorrt')})") from error

from torch import Tensor

from engine.runtimes.tensorrt.build import PlanError
from engine.runtimes.tensorrt.cache import Environment

ALIGNMENT = 256  # bytes, of every address that TensorRT is given
TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "BOOL": torch.bool,
}
log = logging.getLogger(__name__)


def load_tensorrt() -> ModuleType:
    """The TensorRT that torch-tensorrt compiles for: ``tensorrt``, or ``tensorrt_rtx`` for the distribution torch-tensorrt-rtx.

    Raises ``RuntimeUnavailable``.
    """
    compiler = _compiler()
    name = "tensorrt_rtx" if compiler.endswith("-rtx") else "tensorrt"
    try:
        return importlib.import_module(name)
    except Exception as error:  # without its libraries or a driver it raises many kinds
        raise RuntimeUnavailable(f"{name} cannot be imported ({str(error).strip().splitlines()[0][:200]})") from error


def environment(trt: ModuleType) -> Environment:
    """What plans are bound to on this machine. Raises ``RuntimeUnavailable`` without an NVIDIA GPU."""
    if not torch.cuda.is_available():
        raise RuntimeUnavailable("PyTorch finds no NVIDIA GPU here")
    return Environment(
        backend=trt.__name__,
        tensorrt=trt.__version__,
        torch_tensorrt=f"{_compiler()} {importlib.metadata.version(_compiler())}",
        torch=str(torch.__version__),
        gpu=torch.cuda.get_device_name(),
        capability=torch.cuda.get_device_capability(),
        driver=str(torch._C._cuda_getDriverVersion()),  # type: ignore[attr-defined]
    )


def _compiler() -> str:
    for name in ("torch-tensorrt-rtx", "torch-tensorrt"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return name
    raise RuntimeUnavailable(f"torch-tensorrt is not installed ({install('tensorrt')})")


class Unreadable(PlanError):
    """TensorRT does not take the plan itself."""


class Binding(NamedTuple):
    """An engine's input or output."""

    name: str
    is_input: bool
    shape: tuple[int, ...]
    type: str  # of TensorRT, by name


class Tied(NamedTuple):
    """A tensor for every input and output of an engine."""

    given: list[Tensor]  # inputs of its own, to be filled before a run, in order
    outputs: list[Tensor]  # in order
    tensors: dict[str, Tensor]  # all of them by name


def bindings_of(engine: Any) -> list[Binding]:
    """What an engine says of its own inputs and outputs. Raises ``PlanError`` for one that is not on the GPU."""
    bindings = []
    for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
        if engine.get_tensor_location(name).name != "DEVICE":
            raise PlanError(f"the plan wants {name} on the host")
        is_input = engine.get_tensor_mode(name).name == "INPUT"
        shape, type_name = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
        bindings.append(Binding(name, is_input, shape, type_name))
    return bindings


def tie(bindings: Sequence[Binding], names: Sequence[str], bound: Mapping[str, Tensor], device: torch.device) -> Tied:
    """Tensors for an engine whose inputs should be ``names``: those that are ``bound`` stay where they are, the others and the
    outputs are made. Raises ``PlanError`` naming what does not fit.
    """
    inputs = {binding.name: binding for binding in bindings if binding.is_input}
    outputs = {binding.name: binding for binding in bindings if not binding.is_input}
    wanted = [f"output{i}" for i in range(len(outputs))]
    if odd := sorted(inputs.keys() ^ set(names) | bound.keys() - inputs.keys() | outputs.keys() ^ set(wanted)):
        raise PlanError(f"the plan has other inputs or outputs than expected: {', '.join(odd)}")
    for name, tensor in bound.items():
        binding = inputs[name]
        if tuple(tensor.shape) != binding.shape or tensor.dtype != _dtype(binding):
            given = f"{tensor.dtype} {list(tensor.shape)}"
            raise PlanError(f"the plan's {name} is {binding.type} {list(binding.shape)}, given {given}")
        if not tensor.is_contiguous() or tensor.data_ptr() % ALIGNMENT or tensor.device.type != device.type:
            raise PlanError(f"{name} must lie on the {device.type} device, contiguous, at a multiple of {ALIGNMENT} bytes")
    made = {
        binding.name: torch.zeros(binding.shape, dtype=_dtype(binding), device=device)
        for binding in bindings
        if binding.name not in bound
    }
    return Tied([made[name] for name in names if name not in bound], [made[name] for name in wanted], {**made, **bound})


def _dtype(binding: Binding) -> torch.dtype:
    if binding.type not in TYPES or min(binding.shape, default=0) < 0:
        raise PlanError(f"the plan's {binding.name} is {binding.type} {list(binding.shape)}, which is not supported")
    return TYPES[binding.type]


class Plan:
    """An engine as a function, for ``engine.runtimes.pytorch`` to capture: its inputs and outputs lie where they lie for good.

    What is bound (the rings) is read in place; the other inputs are copied in, which converts their types as well.
    """

    def __init__(self, trt: ModuleType, plan: bytes, names: Sequence[str], bound: Mapping[str, Tensor]) -> None:
        """``names`` are the inputs in the module's order. Raises ``PlanError``, in one line, if TensorRT does not take the plan,
        or the plan not the tensors.
        """
        self._log = _logger(trt)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise Unreadable(f"TensorRT refuses the plan{self._log.why()}")
        self._tied = tie(bindings_of(self._engine), names, bound, torch.device("cuda"))  # TensorRT holds bare addresses
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise PlanError(f"TensorRT refuses the plan's working memory{self._log.why()}")
        for name, tensor in self._tied.tensors.items():
            if not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise PlanError(f"TensorRT refuses the address of {name}{self._log.why()}")
        self.poison()

    def __call__(self, *given: Tensor) -> list[Tensor]:
        """One run on PyTorch's current stream, which must not be the default one. The inputs that are not bound, in order, of
        any type that converts; returns the outputs, the same tensors at every call. Raises ``RuntimeError``.

        Run it once before it is captured. A replay of the captured graph raises nothing: see ``check_ran``.
        """
        for tensor, new in zip(self._tied.given, given, strict=True):
            tensor.copy_(new)
        self.enqueue(torch.cuda.current_stream().cuda_stream)
        return self._tied.outputs

    def enqueue(self, stream: int) -> None:
        """Puts one run on a CUDA stream, given by its handle. Raises ``RuntimeError``."""
        if not self._context.execute_async_v3(stream):
            raise RuntimeError(f"TensorRT could not run its plan{self._log.why()}")

    def capturable(self, stream: int) -> bool:
        """Whether a CUDA graph can capture runs on this stream; only TensorRT-RTX, which may still compile kernels, says no."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(stream))

    def poison(self) -> None:
        """Fills the outputs with what no run leaves behind: NaN, or -1."""
        for tensor in self._tied.outputs:
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)

    def check_ran(self) -> None:
        """Raises ``RuntimeError`` if something in the outputs is still poisoned, as an empty graph would leave it: to be called
        after ``poison`` and a replay. Waits for the GPU.
        """
        for i, tensor in enumerate(self._tied.outputs):
            if bool((tensor.isnan() if tensor.is_floating_point() else tensor == -1).any()):
                raise RuntimeError(f"TensorRT's output{i} was not written, or is no number")


def _logger(trt: ModuleType) -> Any:
    """TensorRT's messages go to Python's logging; the first error is kept for whoever reports it: more follow from it."""

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            bad = severity.value <= trt.ILogger.Severity.ERROR.value
            log.log(logging.WARNING if bad else logging.DEBUG, "%s", message)
            if bad:
                self._errors.append(message)

        def why(self) -> str:
            errors, self._errors = self._errors, []
            return f" ({' '.join(errors[0].split())[:300]})" if errors else ""

    return Log()
