"""The graphs of the bundled checkpoint are compiled completely into TensorRT engines; tested without a GPU.

``rtx`` compiles them with TensorRT-RTX in a separate process, because it simulates a GPU and torch-tensorrt changes the process
that imports it. The packages can be installed in the development environment without their dependencies and do not affect it:
``pip install --no-deps -r tests/engine/runtimes/tensorrt/rtx.txt``. ``./run test`` installs them if
PERCEIVERS_LIVE_REQUIRE_TENSORRT=1; without them these tests are skipped. Running an engine needs a driver and is not tested
here: ``Plan`` is tested up to the error of TensorRT.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from engine.checkpoint import bundled, load_model, read_config  # noqa: E402
from engine.config import PRESETS  # noqa: E402
from engine.graphs import ring_names  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes import RuntimeUnavailable  # noqa: E402
from engine.runtimes.tensorrt.build import (  # noqa: E402
    DTYPES,
    PlanError,
    export,
    graph_of,
    load_compiler,
    logged_exceptions,
)
from engine.runtimes.tensorrt.cache import PlanCache, PlanSpec  # noqa: E402
from engine.runtimes.tensorrt.compile_process import Compilation  # noqa: E402
from engine.runtimes.tensorrt.execute import Binding, KernelCache, Plan, bind_tensors, create_context, environment  # noqa: E402

REQUIRED = os.environ.get("PERCEIVERS_LIVE_REQUIRE_TENSORRT") == "1"
ROOT = Path(__file__).parents[4]
GRAPHS = ("step-1-fp16", "step-8-fp32", "decide-0-fp32")  # decisions are in float32 at any precision
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 5e-2}  # of an output's largest value
TYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT64": torch.int64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the report and the plans of ``rtx``."""
    missing = [name for name in ("torch_tensorrt", "tensorrt_rtx") if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} missing (pip install --no-deps -r tests/engine/runtimes/tensorrt/rtx.txt)"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    into = tmp_path_factory.mktemp("rtx")
    command = [sys.executable, "-m", "tests.engine.runtimes.tensorrt.rtx", str(into / "report.json"), *GRAPHS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
    return into


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return loaded


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest, report: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return request.param, report["graphs"][request.param]


def module_of(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module behind a graph's name, and its example inputs."""
    part, count, precision = name.split("-")
    model = load_model(bundled())
    return graph_of(PlanSpec(part, int(count), precision, "", model.config), model.to_precision(DTYPES[precision]))


def outputs_of(name: str) -> list[Tensor]:
    module, inputs = module_of(name)
    with torch.no_grad():
        outputs = module(*inputs.values())
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def bindings(network: dict[str, Any]) -> list[Binding]:
    return [
        Binding(name, kind == "inputs", tuple(shape), type_name)
        for kind in ("inputs", "outputs")
        for name, shape, type_name in network[kind]
    ]


# --- real engines ----------------------------------------------------------------------------------------------------


def test_each_graph_is_compiled_into_one_engine(graph: tuple[str, dict[str, Any]], folder: Path) -> None:
    name, result = graph
    assert result["lowered"] == len(result["networks"]) == 1
    assert (folder / f"{name}.plan").stat().st_size > 1e6  # the weights are in it


def test_the_engine_has_the_inputs_and_outputs_of_the_module(graph: tuple[str, dict[str, Any]]) -> None:
    name, result = graph
    (network,) = result["networks"]
    expected = [(key, list(one.shape), one.dtype) for key, one in module_of(name)[1].items()]
    assert [(key, shape, TYPES[kind]) for key, shape, kind in network["inputs"]] == expected
    expected = [(f"output{i}", list(one.shape), one.dtype) for i, one in enumerate(outputs_of(name))]
    assert [(key, shape, TYPES[kind]) for key, shape, kind in network["outputs"]] == expected


def test_engines_can_be_captured_in_a_cuda_graph(graph: tuple[str, dict[str, Any]]) -> None:
    """TensorRT-RTX allows that only for engines that were built to allocate nothing at run time."""
    assert [one["capturable"] for one in graph[1]["networks"]] == [True]


def test_rings_are_read_and_never_written(graph: tuple[str, dict[str, Any]]) -> None:
    name, result = graph
    (network,) = result["networks"]
    rings = set(ring_names(read_config(bundled())[0])) if name.startswith("step") else set()
    assert rings <= {key for key, *_ in network["inputs"]}
    assert not rings & {key for key, *_ in network["outputs"]}
    assert not [
        one for one in result["operators"] if any(word in one for word in ("scatter", "index_put", "index_copy", "copy_."))
    ]


def test_lowered_graphs_compute_the_models_results(graph: tuple[str, dict[str, Any]]) -> None:
    """Tested with empty rings that contain noise, partly filled and wrapped rings, and 64 decisions."""
    name, result = graph
    (difference,) = result["differences"]
    assert difference < TOLERANCE[name.split("-")[-1]]  # NaN fails as well


def test_half_precision_keeps_masks_softmax_and_squares_in_float32(report: dict[str, Any]) -> None:
    for name in ("step-1-fp16", "decide-0-fp32"):
        types = report["graphs"][name]["types"]
        assert types["softmax"] == types["pow"] == ["torch.float32"]
        assert types["matmul"] == (["torch.float16"] if name.startswith("step") else [])


def test_half_precision_halves_the_weights(report: dict[str, Any]) -> None:
    half, whole = (report["graphs"][name]["bytes"] for name in ("step-1-fp16", "step-8-fp32"))
    assert half < 0.7 * whole


def test_bound_tensors_match_the_inputs_and_outputs_of_the_module(graph: tuple[str, dict[str, Any]]) -> None:
    name, result = graph
    _, inputs = module_of(name)
    bound = {key: inputs[key].to("meta") for key in ring_names(read_config(bundled())[0]) if key in inputs}
    allocated = bind_tensors(bindings(result["networks"][0]), list(inputs), bound, torch.device("meta"))
    kept = [one for key, one in inputs.items() if key not in bound]
    assert [(one.shape, one.dtype) for one in allocated.given] == [(one.shape, one.dtype) for one in kept]
    assert [(one.shape, one.dtype) for one in allocated.outputs] == [(one.shape, one.dtype) for one in outputs_of(name)]
    assert all(allocated.tensors[key] is one for key, one in bound.items())


def test_a_plan_without_a_driver_is_refused_in_one_line(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    trt = pytest.importorskip("tensorrt_rtx")
    with pytest.raises(PlanError, match=r"(?i)cuda") as caught:
        Plan(trt, (folder / "decide-0-fp32.plan").read_bytes(), (), {}, KernelCache())
    assert "\n" not in str(caught.value)


# --- bindings --------------------------------------------------------------------------------------------------------

BINDINGS = [
    Binding("k0", True, (2, 4, 8), "HALF"),
    Binding("positions", True, (4,), "INT64"),
    Binding("output1", False, (3,), "INT64"),
    Binding("output0", False, (4, 8), "FLOAT"),
]
NAMES = ("positions", "k0")
META = torch.device("meta")  # where every address is 0


def ring(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def test_inputs_that_are_not_bound_are_allocated_in_the_order_of_the_names() -> None:
    allocated = bind_tensors(BINDINGS, NAMES, {}, META)
    assert [tuple(one.shape) for one in allocated.given] == [(4,), (2, 4, 8)]
    assert [(tuple(one.shape), one.dtype) for one in allocated.outputs] == [((4, 8), torch.float32), ((3,), torch.int64)]
    bound = ring(2, 4, 8)
    allocated = bind_tensors(BINDINGS, NAMES, {"k0": bound}, META)
    assert [tuple(one.shape) for one in allocated.given] == [(4,)]
    assert allocated.tensors["k0"] is bound
    assert allocated.tensors.keys() == {binding.name for binding in BINDINGS}


@pytest.mark.parametrize(
    "bound",
    [
        ring(2, 4, 8, dtype=torch.float32),
        ring(2, 8, 4),
        ring(2, 8, 4).transpose(1, 2),
        torch.zeros(2, 4, 8, dtype=torch.float16),  # of another device
    ],
)
def test_an_error_names_the_ring_that_does_not_fit(bound: Tensor) -> None:
    with pytest.raises(PlanError, match="k0"):
        bind_tensors(BINDINGS, NAMES, {"k0": bound}, META)


def test_a_ring_at_an_unaligned_address_is_refused() -> None:
    memory = torch.zeros(1024, dtype=torch.uint8)
    start = -memory.data_ptr() % 256
    bind_tensors(BINDINGS, NAMES, {"k0": memory[start : start + 128].view(torch.float16).view(2, 4, 8)}, memory.device)
    with pytest.raises(PlanError, match="256 bytes"):
        bind_tensors(BINDINGS, NAMES, {"k0": memory[start + 64 : start + 192].view(torch.float16).view(2, 4, 8)}, memory.device)


@pytest.mark.parametrize(
    ("bindings", "names", "odd"),
    [
        (BINDINGS, ("positions",), "k0"),
        (BINDINGS, (*NAMES, "k1"), "k1"),
        (BINDINGS[1:], NAMES, "k0"),
        ([*BINDINGS, Binding("k1", False, (2, 4, 8), "HALF")], NAMES, "k1"),
        ([*BINDINGS[:2], BINDINGS[2]], NAMES, "output0"),
        ([*BINDINGS[1:], BINDINGS[0]._replace(type="FP8")], NAMES, "k0"),
        ([*BINDINGS[1:], BINDINGS[0]._replace(shape=(2, -1, 8))], NAMES, "k0"),
    ],
)
def test_an_engine_with_other_inputs_or_outputs_is_refused(bindings: list[Binding], names: tuple[str, ...], odd: str) -> None:
    with pytest.raises(PlanError, match=odd):
        bind_tensors(bindings, names, {}, META)


# --- contexts ----------------------------------------------------------------------------------------------------------


class Kernels:
    """Replaces an ``IRuntimeCache``, which needs a driver. The kernels are one byte string."""

    def __init__(self) -> None:
        self.compiled = b""

    def deserialize(self, stored: bytes) -> bool:
        self.compiled = stored
        return True

    def serialize(self) -> bytes:
        return self.compiled


class Engine:
    """Replaces an engine of TensorRT-RTX, which needs a driver. It is also the runtime config and the context."""

    device_memory_size_v2 = 1000

    def __init__(self) -> None:
        self.create_runtime_config = lambda: self
        self.create_runtime_cache = Kernels
        self.strategy: Any = None
        self.cache: Any = None
        self.memory: tuple[int, int] | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def set_runtime_cache(self, cache: Any) -> None:
        self.cache = cache

    def create_execution_context(self, config: Any) -> Any:
        assert config is self
        return self

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = address, size


def test_contexts_use_memory_of_the_caller_and_share_their_kernels() -> None:
    trt = SimpleNamespace(IRuntimeCache=Kernels, ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="ours"))
    kernels, one, two = KernelCache(), Engine(), Engine()
    for engine in (one, two):
        context, memory = create_context(trt, engine, kernels, torch.device("cpu"))  # type: ignore[arg-type]
        assert context is engine
        assert engine.strategy == "ours"
        assert engine.memory == (memory.data_ptr(), 1000)
    assert one.cache is two.cache


def test_kernels_are_stored_for_the_next_session() -> None:
    first, engine = KernelCache(), Engine()
    assert first.serialize() is None
    first.attach(engine)
    assert first.serialize() is None
    engine.cache.compiled = b"kernels"
    stored = first.serialize()
    KernelCache(stored).attach(again := Engine())
    assert again.cache.compiled == stored == b"kernels"


# --- graphs that cannot be plans -------------------------------------------------------------------------------------


class _Graph(nn.Module):
    def __init__(self, run: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.run = run
        self.register_buffer("kept", torch.zeros(4))

    def forward(self, ring: Tensor, new: Tensor) -> Any:
        return self.run(self.kept, ring, new)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda kept, ring, new: kept.add_(new) + ring, "writes into .*add_"),
        (lambda kept, ring, new: (kept.copy_(new) + ring, new * 2), "writes into .*copy_"),
        (lambda kept, ring, new: ring.mul_(2) + new, "writes into .*mul_"),
        (lambda kept, ring, new: ring.index_put((torch.tensor([1]),), new[:1]), "writes into .*index_put"),
        (lambda kept, ring, new: ring.scatter(0, torch.tensor([1]), new), "writes into .*scatter"),
        (lambda kept, ring, new: ring.index_copy(0, torch.tensor([1]), new[:1]), "writes into .*index_copy"),
        (lambda kept, ring, new: kept + new, "does not read its input ring"),
        (lambda kept, ring, new: (ring + new, ring), "output"),
    ],
)
def test_graphs_that_write_or_ignore_their_inputs_are_refused(run: Any, reason: str) -> None:
    with pytest.raises(PlanError, match=reason) as caught:
        export(_Graph(run), {"ring": torch.zeros(4), "new": torch.ones(4)})
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of PyTorch itself
@pytest.mark.parametrize("part", ["step", "decide"])
def test_graphs_of_the_model_read_all_their_inputs_and_write_none(part: str) -> None:
    model = PerceiverS(PRESETS["tiny"]).eval()
    for precision, dtype in DTYPES.items():
        program = export(*graph_of(PlanSpec(part, 2, precision, "", model.config), model.to_precision(dtype)))
        signature = program.run_decompositions({}).graph_signature  # mutations are only listed after decomposition
        assert signature.buffers_to_mutate == signature.user_inputs_to_mutate == {}


# --- errors ----------------------------------------------------------------------------------------------------------


def test_without_torch_tensorrt_the_error_states_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(RuntimeUnavailable, match=r"pip install 'perceivers-live\[tensorrt\]'"):
        load_compiler()


def test_without_a_gpu_the_error_states_that_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeUnavailable, match="GPU"):
        environment(sys)


def test_a_failing_compile_process_reports_one_line(tmp_path: Path) -> None:
    compilation = Compilation(tmp_path / "nowhere", "fp16", (1,), PlanCache(tmp_path / "plans"))
    compilation._process.wait(120)
    message = str(compilation.outcome())
    assert compilation._process.returncode == 1, "it did not exit by itself"
    assert message
    assert "\n" not in message
    compilation.stop()
    assert not (tmp_path / "plans").exists()


@pytest.mark.parametrize(("closed", "code"), [(False, 0), (True, 1)])
def test_the_compile_process_exits_by_itself_or_with_its_parent(closed: bool, code: int) -> None:
    program = (
        "import sys, threading, time\nfrom engine.runtimes.tensorrt.compile_process import end_with_parent\n"
        "threading.Thread(target=end_with_parent, daemon=True).start()\ntime.sleep(float(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, "60" if closed else "0.2"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    if closed:
        process.stdin.close()
    assert process.wait(60) == code
    process.stdin.close()


def test_an_exception_that_a_library_only_logs_is_kept() -> None:
    library = logging.getLogger("some_compiler.deep.inside")
    with logged_exceptions("some_compiler") as found:
        try:
            raise ValueError("no converter for aten.triu")
        except ValueError:
            library.error("while interpreting the module", exc_info=True)
        library.error("not an exception")
    assert [str(one) for one in found] == ["no converter for aten.triu"]
    assert not logging.getLogger("some_compiler").handlers
