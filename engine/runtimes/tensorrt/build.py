"""TensorRT plans from the flat graphs of ``engine.graphs``, by torch.export and torch-tensorrt's converters.

A plan is one serialised TensorRT engine for a fixed number of new events. Rings are inputs and new rows are outputs; the caller
writes the rows into the rings. Inputs keep their names; outputs are named ``output0``, ``output1`` ...

The plan has the precisions of the module: see ``PerceiverS.to_precision``. Masks and softmax are in float32 at any precision,
because float16 cannot hold the -1e9 of a mask.

Building takes tens of seconds, and torch-tensorrt changes global state such as logging: see ``compile_process``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.errors import install
from engine.runtimes import RuntimeUnavailable
from engine.text import one_line

try:
    import torch
except ImportError as error:
    raise RuntimeUnavailable(f"PyTorch is not installed ({install('tensorrt')})") from error

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule

from engine.graphs import Decide, Step, decide_inputs, step_inputs
from engine.model import PerceiverS
from engine.runtimes.tensorrt.cache import PlanSpec

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WRITES = ("scatter", "index_put", "index_copy")  # operators that would write a ring


class PlanError(RuntimeUnavailable):
    """A graph that cannot become a plan, or a plan that cannot run here; the message is one line."""


class _Named(nn.Module):
    """A flat module with keyword inputs, which become the names of the engine's inputs."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, tuple(names)

    def forward(self, **inputs: Tensor) -> Any:
        return self.module(*(inputs[name] for name in self.names))


def export(module: nn.Module, inputs: Mapping[str, Tensor]) -> ExportedProgram:
    """The module as a checked graph. ``inputs`` are examples by name, in order; they and the module are on the CPU.

    Raises ``PlanError``.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(_Named(module.eval(), list(inputs)), (), kwargs=dict(inputs))
    except Exception as error:  # PyTorch's exporter raises many types
        raise PlanError(f"the graph cannot be exported ({_reason(error)})") from error
    check_signature(program, list(inputs))
    check_pure(program.graph_module)
    return program


def build_plan(module: nn.Module, inputs: Mapping[str, Tensor]) -> bytes:
    """One serialised engine for the whole module. Takes ``export``'s arguments.

    Raises ``RuntimeUnavailable``, ``PlanError`` if the graph is at fault.
    """
    compiler = load_compiler()
    program = export(module, inputs)
    types = {parameter.dtype for parameter in module.parameters()}
    logged: list[BaseException] = []
    try:
        with tempfile.TemporaryDirectory() as folder, capturable_engines(), logged_exceptions("torch_tensorrt") as logged:
            plan = compiler.dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                arg_inputs=(),
                kwarg_inputs=dict(inputs),
                require_full_compilation=True,
                min_block_size=1,
                offload_module_to_cpu=True,  # leaves the GPU's memory to a runtime that plays meanwhile
                disable_tf32=torch.float32 in types,
                use_fp32_acc=torch.float16 in types,
                attn_bias_is_causal=False,
                timing_cache_path=f"{folder}/timing",  # the default is one file for all users; a broken one stops every build
            )
    except Exception as error:
        raise PlanError(f"TensorRT cannot compile the graph ({_reason((logged or [error])[0])})") from error
    return bytes(plan)


@contextlib.contextmanager
def logged_exceptions(library: str) -> Iterator[list[BaseException]]:
    """The exceptions that a library logs meanwhile. torch-tensorrt raises others in their place, without the reason."""
    found: list[BaseException] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                found.append(record.exc_info[1])

    logger, keep = logging.getLogger(library), Keep(logging.ERROR)
    logger.addHandler(keep)
    try:
        yield found
    finally:
        logger.removeHandler(keep)


@contextlib.contextmanager
def capturable_engines() -> Iterator[None]:
    """Makes TensorRT-RTX build engines that a CUDA graph can capture: the caller allocates all of their memory. torch-tensorrt
    has no setting for this flag. The standard TensorRT has no such flag, and needs none.
    """
    interpreter = importlib.import_module("torch_tensorrt.dynamo.conversion._TRTInterpreter")
    flag = getattr(interpreter.trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if flag is None:
        yield
        return
    kind = interpreter.TRTInterpreter
    usual = kind._populate_trt_builder_config

    def with_flag(self: Any, *arguments: Any, **options: Any) -> Any:
        config = usual(self, *arguments, **options)
        config.set_flag(flag)
        return config

    kind._populate_trt_builder_config = with_flag
    try:
        yield
    finally:
        kind._populate_trt_builder_config = usual


def build(spec: PlanSpec, model: PerceiverS) -> bytes:
    """The plan of ``spec`` from its model on the CPU. Converts the model to the plan's precision.

    Raises ``RuntimeUnavailable``, ``PlanError`` if the graph is at fault.
    """
    return build_plan(*graph_of(spec, model.to_precision(DTYPES[spec.precision])))


def graph_of(spec: PlanSpec, model: PerceiverS) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module that becomes the plan, and its example inputs by name."""
    if spec.part == "decide":
        return Decide(model), decide_inputs(model)
    return Step(model), step_inputs(model, spec.count)


def check_signature(program: ExportedProgram, names: Sequence[str]) -> None:
    """Checks that the graph reads every input in ``names``, and that no output is an input. Raises ``PlanError``."""
    signature = program.graph_signature
    taken = [spec.arg.name for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
    if taken != list(names):
        raise PlanError(f"the graph's inputs are {', '.join(taken)}; expected {', '.join(names)}")
    read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    if unread := [name for name in names if name not in read]:
        raise PlanError(f"the graph does not read its input {', '.join(unread)}")
    for spec in signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT or spec.arg.name in names:
            raise PlanError(f"the graph's output {spec.arg.name} is an input; a plan must compute new rows")


def check_pure(module: GraphModule) -> None:
    """Checks that no operator of the graph or its subgraphs writes in place or into a copy of a ring. Raises ``PlanError``.

    Tensors changed in place would silently become constants of the plan. The signature cannot be used for this check: its
    ``buffers_to_mutate`` is empty until the graph is decomposed.
    """
    for part in module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            schema = getattr(node.target, "_schema", None)
            if schema is None or schema.name == "aten::detach_":  # of a new constant
                continue
            if schema.is_mutable or any(word in schema.name for word in WRITES):
                raise PlanError(f"the graph writes into {node.args[0]} ({node.target}); a plan must not write rings")


def load_compiler() -> Any:
    """The module ``torch_tensorrt``. Raises ``RuntimeUnavailable``."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its output is also in the exception
            return importlib.import_module("torch_tensorrt")
    except Exception as error:  # it raises many types if its libraries are missing
        if isinstance(error, ModuleNotFoundError) and error.name == "torch_tensorrt":
            raise RuntimeUnavailable(f"torch-tensorrt is not installed ({install('tensorrt')})") from error
        raise RuntimeUnavailable(f"torch-tensorrt cannot be imported ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    return one_line(error) or type(error).__name__
