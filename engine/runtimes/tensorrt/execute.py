"""Runs TensorRT plans through TensorRT's own API: tensors are bound once, and a run is one call that a CUDA graph can capture.

torch-tensorrt's runtime would copy every input at every call, the rings included; it is used for compiling only (``build``).
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
from engine.text import one_line

try:
    import torch
except ImportError as error:
    raise RuntimeUnavailable(f"PyTorch is not installed ({install('tensorrt')})") from error

from torch import Tensor

from engine.runtimes.tensorrt.build import PlanError
from engine.runtimes.tensorrt.cache import Environment

ALIGNMENT = 256  # bytes, of every tensor's address
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
    except Exception as error:  # it raises many types if its libraries or the driver are missing
        raise RuntimeUnavailable(f"{name} cannot be imported ({one_line(error) or type(error).__name__})") from error


def environment(trt: ModuleType) -> Environment:
    """This machine's software and GPU. Raises ``RuntimeUnavailable`` without an NVIDIA GPU."""
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


class PlanRejected(PlanError):
    """TensorRT cannot deserialise the plan."""


class Binding(NamedTuple):
    """An input or output of an engine."""

    name: str
    is_input: bool
    shape: tuple[int, ...]
    type: str  # TensorRT's name of the type


class BoundTensors(NamedTuple):
    """A tensor for every input and output of an engine."""

    given: list[Tensor]  # inputs to be filled before a run, in order
    outputs: list[Tensor]  # in order
    tensors: dict[str, Tensor]  # all inputs and outputs by name


def bindings_of(engine: Any) -> list[Binding]:
    """The inputs and outputs of an engine. Raises ``PlanError`` for one that is not on the GPU."""
    bindings = []
    for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
        if engine.get_tensor_location(name).name != "DEVICE":
            raise PlanError(f"the plan needs {name} on the host, which is not supported")
        is_input = engine.get_tensor_mode(name).name == "INPUT"
        shape, type_name = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
        bindings.append(Binding(name, is_input, shape, type_name))
    return bindings


def bind_tensors(
    bindings: Sequence[Binding], names: Sequence[str], bound: Mapping[str, Tensor], device: torch.device
) -> BoundTensors:
    """Tensors for an engine whose inputs are ``names``: uses those in ``bound``, allocates the other inputs and the outputs.
    Raises ``PlanError`` with the name of what does not fit.
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
    return BoundTensors([made[name] for name in names if name not in bound], [made[name] for name in wanted], {**made, **bound})


def _dtype(binding: Binding) -> torch.dtype:
    if binding.type not in TYPES or min(binding.shape, default=0) < 0:
        raise PlanError(f"the plan's {binding.name} is {binding.type} {list(binding.shape)}, which is not supported")
    return TYPES[binding.type]


class KernelCache:
    """The kernels that TensorRT-RTX compiles when a plan first runs, shared by all plans. ``stored``: what ``serialize`` returned
    in an earlier session. The standard TensorRT compiles nothing then.
    """

    def __init__(self, stored: bytes | None = None) -> None:
        self._stored = stored
        self._live: Any = None

    def attach(self, config: Any) -> None:
        """Makes contexts that are created with this runtime config use the cache."""
        if self._live is None:
            self._live = config.create_runtime_cache()
            if self._stored is not None and not self._live.deserialize(self._stored):
                log.info("TensorRT-RTX cannot use its stored kernels; it compiles them again")
        config.set_runtime_cache(self._live)

    def serialize(self) -> bytes | None:
        """All kernels so far, None if there is nothing to store."""
        kernels = bytes(memoryview(self._live.serialize())) if self._live is not None else b""
        return kernels or None


def create_context(trt: ModuleType, engine: Any, kernels: KernelCache, device: torch.device) -> tuple[Any, Tensor]:
    """An execution context and its working memory, which must live as long. The memory is ours, because an engine that allocates
    at run time cannot be captured. Context None: TensorRT refuses.
    """
    ours = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if hasattr(trt, "IRuntimeCache"):  # TensorRT-RTX
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(ours)
        kernels.attach(config)
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context(ours)
    memory = torch.zeros(max(int(engine.device_memory_size_v2), ALIGNMENT), dtype=torch.uint8, device=device)
    if context is not None:
        context.set_device_memory(memory.data_ptr(), len(memory))
    return context, memory


class Plan:
    """An engine as a function that ``engine.runtimes.pytorch`` can capture: its inputs and outputs have fixed addresses.

    Bound inputs (the rings) are read in place. The other inputs are copied into tensors of the engine's types.
    """

    def __init__(
        self, trt: ModuleType, plan: bytes, names: Sequence[str], bound: Mapping[str, Tensor], kernels: KernelCache
    ) -> None:
        """``names`` are the inputs in the module's order. Raises ``PlanError`` if TensorRT refuses the plan, or if the tensors in
        ``bound`` do not fit it.
        """
        self._log = _logger(trt)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanRejected(f"TensorRT refuses the plan{self._log.why()}")
        device = torch.device("cuda")
        self._bound = bind_tensors(bindings_of(self._engine), names, bound, device)  # TensorRT holds only addresses
        self._context, self._memory = create_context(trt, self._engine, kernels, device)
        if self._context is None:
            raise PlanError(f"TensorRT refuses the plan's working memory{self._log.why()}")
        for name, tensor in self._bound.tensors.items():
            if not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise PlanError(f"TensorRT refuses the address of {name}{self._log.why()}")
        self.poison()

    def __call__(self, *given: Tensor) -> list[Tensor]:
        """Runs once on PyTorch's current stream, which must not be the default one. ``given``: the inputs that are not bound, in
        order. Returns the outputs, which are the same tensors at every call. Raises ``RuntimeError``.

        Run it once before it is captured. A replay of the captured graph does not report errors: see ``check_ran``.
        """
        for tensor, new in zip(self._bound.given, given, strict=True):
            tensor.copy_(new)
        self.enqueue(torch.cuda.current_stream().cuda_stream)
        return self._bound.outputs

    def enqueue(self, stream: int) -> None:
        """Enqueues one run on a CUDA stream, given by its handle. Raises ``RuntimeError``."""
        if not self._context.execute_async_v3(stream):
            raise RuntimeError(f"TensorRT could not run its plan{self._log.why()}")

    def capturable(self, stream: int) -> bool:
        """Whether a CUDA graph can capture runs on this stream. False only for TensorRT-RTX while it compiles kernels."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(stream))

    def poison(self) -> None:
        """Fills the outputs with values that no run produces: NaN, or -1 for integers."""
        for tensor in self._bound.outputs:
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)

    def check_ran(self) -> None:
        """Raises ``RuntimeError`` if an output still contains a value of ``poison``, as after the replay of an empty graph. Call
        it after ``poison`` and a replay. Waits for the GPU.
        """
        for i, tensor in enumerate(self._bound.outputs):
            if bool((tensor.isnan() if tensor.is_floating_point() else tensor == -1).any()):
                raise RuntimeError(f"TensorRT's output{i} was not written, or is not a number")


def _logger(trt: ModuleType) -> Any:
    """Forwards TensorRT's messages to Python's logging. Keeps the first error for exceptions; later
    ones are consequences of it.
    """

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
