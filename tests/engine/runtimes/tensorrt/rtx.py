"""Builds real TensorRT-RTX engines from the bundled checkpoint on a machine without a GPU, and reports about them.

    python -m tests.engine.runtimes.tensorrt.rtx REPORT.json step-1-fp16 step-64-bf16 decide-0-fp32

torch-tensorrt expects a GPU, CUDA builds of PyTorch and the standard TensorRT. TensorRT-RTX compiles ahead of time on any
machine, so a few things are simulated before torch-tensorrt is imported: the GPU's properties, the name of the distribution
(which selects the RTX back end), and the absence of its C++ runtime. Conversion and compilation are real; only opening the
finished engine is not possible, because deserialising needs a driver. This runs in a separate process because the changes
would break other tests.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.checkpoint import bundled, load_model, read_config
from engine.events import ACTIONS, NO_VELOCITY, PITCHES, WAITS
from engine.graphs import decide_inputs, ring_names, step_inputs
from engine.model import PerceiverS
from engine.rings import MASKED, rotary_angles
from engine.runtimes.tensorrt.build import DTYPES, build, graph_of, load_compiler
from engine.runtimes.tensorrt.cache import PlanSpec
from engine.sounding import MAX_AGE
from tests.engine.slots import slot_positions

START_POSITIONS = (0, 100, 50_000)  # empty, partly filled and wrapped rings


def simulate_gpu() -> Any:
    """Imports torch-tensorrt with TensorRT-RTX behind it, and returns it."""
    gpu = types.SimpleNamespace(name="none", major=8, minor=9, total_memory=8 << 30, multi_processor_count=1)
    torch.cuda.get_device_capability = lambda *_: (8, 9)  # type: ignore[assignment, misc]
    torch.cuda.current_device = lambda: 0
    torch.cuda.mem_get_info = lambda *_: (8 << 30, 8 << 30)
    torch.cuda.get_device_properties = lambda *_: gpu  # type: ignore[assignment, misc, return-value]
    if not hasattr(torch._C, "_CudaDeviceProperties"):
        torch._C._CudaDeviceProperties = types.SimpleNamespace  # type: ignore[misc, assignment]
    distributions, isfile = importlib.metadata.packages_distributions, os.path.isfile
    importlib.metadata.packages_distributions = lambda: {**distributions(), "torch_tensorrt": ["torch-tensorrt-rtx"]}
    os.path.isfile = lambda path: "libtorchtrt" not in str(path) and isfile(path)  # type: ignore[assignment]
    try:
        return load_compiler()
    finally:
        importlib.metadata.packages_distributions, os.path.isfile = distributions, isfile


class BuildRecord:
    """What torch-tensorrt made of one module: lowered graphs, their results for ``states``, and the networks for TensorRT."""

    def __init__(self, states: list[dict[str, Tensor]]) -> None:
        self.states = states
        self.results: list[list[list[Tensor]]] = []
        self.operators: set[str] = set()
        self.types: dict[str, set[str]] = {"softmax": set(), "matmul": set(), "pow": set()}  # of the inputs
        self.networks: list[dict[str, Any]] = []

    def lowered(self, graph: torch.fx.GraphModule) -> None:
        names = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
        with torch.no_grad():
            results = [torch.fx.Interpreter(graph).run(*(state[name] for name in names)) for state in self.states]
        self.results.append([[one] if isinstance(one, Tensor) else list(one) for one in results])
        for node in graph.graph.nodes:
            if node.op == "call_function":
                self.operators.add(str(node.target))
                for word, types in self.types.items():
                    if word in str(node.target):
                        types.add(str(node.args[0].meta["val"].dtype))

    def network(self, network: Any, capturable: bool) -> None:
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        outputs = [network.get_output(i) for i in range(network.num_outputs)]
        self.networks.append(
            {
                "inputs": [(one.name, list(one.shape), one.dtype.name) for one in inputs],
                "outputs": [(one.name, list(one.shape), one.dtype.name) for one in outputs],
                "capturable": capturable,
            }
        )


@contextmanager
def recorded(record: BuildRecord) -> Iterator[None]:
    """Records compilations in ``record``. Finished engines are returned unopened."""
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter as interpreter

    trt = interpreter.trt

    class Builder(trt.Builder):  # type: ignore[name-defined, misc]
        def build_serialized_network(self, network: Any, config: Any) -> Any:
            record.network(network, config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION))
            return super().build_serialized_network(network, config)

    class UnopenedEngine:
        def __init__(self, plan: Any) -> None:
            self.serialize = lambda: plan

        def get_aliased_input_tensor(self, name: str) -> str:
            return ""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.deserialize_cuda_engine = UnopenedEngine

    class TensorRT:
        def __getattr__(self, name: str) -> Any:
            return {"Builder": Builder, "Runtime": Runtime}.get(name) or getattr(trt, name)

    interpreter.trt = TensorRT()
    try:
        with interpreter.TRT_INTERPRETER_CALL_PRE_OBSERVER.add(record.lowered):
            yield
    finally:
        interpreter.trt = trt


def step_state(model: PerceiverS, count: int, start: int, seed: int) -> dict[str, Tensor]:
    """Inputs of ``Step`` as in a session at position ``start``. Empty rows contain noise."""
    rng, config = np.random.default_rng(seed), model.config
    inputs = step_inputs(model, count)
    fields = (rng.integers(0, WAITS, count), rng.integers(0, ACTIONS, count), rng.integers(0, NO_VELOCITY + 1, count))
    inputs["events"] = torch.from_numpy(np.stack(fields, axis=1))
    inputs["ages"] = torch.from_numpy(np.where(rng.random(inputs["ages"].shape) < 0.9, -1, rng.integers(0, MAX_AGE)))
    positions = np.arange(start, start + count)
    inputs["positions"] = torch.from_numpy(positions)
    inputs["cos"], inputs["sin"] = map(torch.from_numpy, rotary_angles(positions, positions * 13, config))
    for i, window in enumerate((*config.scales, config.window)):
        inputs[f"held{i}"] = torch.from_numpy(slot_positions(start - 1, config.ring(window)))
    for name in ring_names(config):
        inputs[name] = torch.from_numpy(rng.normal(size=inputs[name].shape)).to(inputs[name].dtype)
    return inputs


def decide_state(model: PerceiverS, seed: int) -> dict[str, Tensor]:
    """Inputs of ``Decide``; half of the keys and the short waits are impossible."""
    rng = np.random.default_rng(seed)
    inputs = {name: torch.from_numpy(rng.normal(size=one.shape)).to(one.dtype) for name, one in decide_inputs(model).items()}
    inputs["hidden"] *= 20
    inputs["wait_bias"][: int(rng.integers(0, 30))] = MASKED
    inputs["action_bias"][rng.permutation(PITCHES)[: PITCHES // 2]] = MASKED
    inputs["temperature"], inputs["min_p"] = torch.tensor([0.8]), torch.tensor([0.02])
    inputs["noise"] = torch.from_numpy(rng.gumbel(size=inputs["noise"].shape).astype(np.float32))
    return inputs


def difference(results: list[list[Tensor]], module: nn.Module, states: list[dict[str, Tensor]]) -> float:
    """The difference from the results of a module in float32: the largest deviation of any output, in units of that output's
    largest value; for integers the share of different results.
    """
    deviations, others = [0.0], 0
    for outputs, state in zip(results, states, strict=True):
        with torch.no_grad():
            eager = module(*(one.float() if one.is_floating_point() else one for one in state.values()))
        for mine, theirs in zip(outputs, [eager] if isinstance(eager, Tensor) else eager, strict=True):
            if theirs.is_floating_point():
                deviations.append(float((mine.double() - theirs.double()).abs().max() / theirs.double().abs().max()))
            else:
                others += not torch.equal(mine, theirs)
    return max(*deviations, others / len(states))


def build_and_report(spec: PlanSpec, file: Path) -> dict[str, Any]:
    """Builds a plan, writes it to a file, and returns a report about it."""
    model = load_model(bundled()).to_precision(DTYPES[spec.precision])
    if spec.part == "step":
        states = [step_state(model, spec.count, start, seed=start) for start in START_POSITIONS]
    else:
        states = [decide_state(model, seed) for seed in range(64)]
    record, began = BuildRecord(states), time.monotonic()
    with recorded(record):
        file.write_bytes(build(spec, model))
    module, _ = graph_of(spec, load_model(bundled()))
    return {
        "seconds": round(time.monotonic() - began, 1),
        "bytes": file.stat().st_size,
        "networks": record.networks,
        "lowered": len(record.results),
        "operators": sorted(record.operators),
        "types": {word: sorted(types) for word, types in record.types.items()},
        "differences": [difference(results, module, states) for results in record.results],
    }


def main(report: Path, names: Sequence[str]) -> None:
    compiler = simulate_gpu()
    tensorrt, config = importlib.import_module("tensorrt_rtx"), read_config(bundled())[0]
    versions = {"torch": torch.__version__, "torch_tensorrt": compiler.__version__, "tensorrt_rtx": tensorrt.__version__}
    graphs = {}
    for name in names:
        part, count, precision = name.split("-")
        graphs[name] = build_and_report(PlanSpec(part, int(count), precision, "", config), report.with_name(f"{name}.plan"))
    report.write_text(json.dumps({"versions": versions, "graphs": graphs}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
