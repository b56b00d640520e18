"""Streaming equals the training forward on every runtime: any chunk sizes, past every ring's wrap, with rewinds."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.checkpoint import save_model  # noqa: E402
from engine.config import PRESETS  # noqa: E402
from engine.engine import Engine, EngineError  # noqa: E402
from engine.events import Event  # noqa: E402
from engine.graphs import Decide, Step  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes import Runtime, RuntimeUnavailable  # noqa: E402
from engine.runtimes.choose import open_runtime  # noqa: E402
from engine.runtimes.pytorch import SIZES, ChunkStep, Decision, TorchRuntime  # noqa: E402
from engine.runtimes.tensorrt.cache import PlanCache, PlanSpec, plan_specs  # noqa: E402
from engine.runtimes.tensorrt.compile_process import Compilation, compile_missing  # noqa: E402
from engine.runtimes.tensorrt.execute import KernelCache, environment, load_tensorrt  # noqa: E402
from engine.runtimes.tensorrt.runtime import TensorRTRuntime, _rows  # noqa: E402
from engine.sampling import SamplingControls, sampling_bias  # noqa: E402
from engine.sounding import ages_of  # noqa: E402
from tests.music import improvise  # noqa: E402
from trainer.export import write_onnx  # noqa: E402

DEVICES = [n for n, on in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if on]


def tensorrt_runs() -> bool:
    try:
        environment(load_tensorrt())
    except RuntimeUnavailable:
        return False
    return find_spec("torch_tensorrt") is not None


TENSORRT = ["tensorrt"] if tensorrt_runs() else []
LENGTH = 400  # the longest ring of the tiny preset has 72 rows


TINY = PRESETS["tiny"]
SHAPES = {
    "tiny": TINY,
    "one scale": dataclasses.replace(TINY, scales=(64,)),
    "long scale first": dataclasses.replace(TINY, scales=(64, 24)),
    "sum of scales": dataclasses.replace(TINY, combine="sum"),
    "rotary over time": dataclasses.replace(TINY, heads=4, kv_heads=2, rotary="half-time"),
    "sliding window only": dataclasses.replace(TINY, scales=()),
}


def random_model(shape: str) -> PerceiverS:
    torch.manual_seed(1)
    model = PerceiverS(SHAPES[shape]).eval()
    for block in model.blocks:  # untrained blocks add nothing
        torch.nn.init.normal_(block.out.weight, std=0.3)
        torch.nn.init.normal_(block.down.weight, std=0.3)
    return model


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = random_model(request.param)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(model, folder)
    write_onnx(model, folder)
    return folder


@pytest.fixture(scope="module")
def music() -> list[Event]:
    return improvise(LENGTH, seed=3)


@pytest.fixture(scope="module")
def full_forward(checkpoint: Path, music: list[Event]) -> np.ndarray:
    runtime = open_runtime("eager", checkpoint)
    events = np.array(music)
    times = torch.from_numpy(np.cumsum(events[:, 0]))
    inputs = (torch.from_numpy(events).long(), torch.from_numpy(ages_of(events)), torch.arange(LENGTH), times)
    with torch.inference_mode():
        hidden = runtime._model.hidden(*(part[None] for part in inputs), LENGTH)
    return hidden[0].numpy()


@pytest.fixture(scope="module")
def plans(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> PlanCache:
    """The TensorRT plans of the checkpoint."""
    cache = PlanCache(tmp_path_factory.mktemp("plans"))
    compile_missing(checkpoint, "fp32", SIZES, cache)
    return cache


@pytest.fixture(params=["eager", "onnx", *DEVICES, *TENSORRT])
def runtime(request: pytest.FixtureRequest, checkpoint: Path) -> Runtime:
    if request.param == "tensorrt":
        made = TensorRTRuntime(checkpoint, precision="fp32", cache=request.getfixturevalue("plans"))
        assert made.serving == "tensorrt"
        return made
    if request.param in DEVICES:
        return TorchRuntime(checkpoint, request.param, precision=torch.float32)
    return open_runtime(request.param, checkpoint)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() < 1e-4 * max(1.0, np.abs(b).max()))


def test_absorbing_one_event_at_a_time_equals_the_full_forward(
    runtime: Runtime, music: list[Event], full_forward: np.ndarray
) -> None:
    engine = Engine(runtime)
    assert close(engine.hidden(), full_forward[0])
    for i, event in enumerate(music[1:], 1):
        engine.absorb([event])
        assert close(engine.hidden(), full_forward[i]), f"differs at position {i}"


def test_absorbing_chunks_of_any_size_equals_the_full_forward(
    runtime: Runtime, music: list[Event], full_forward: np.ndarray
) -> None:
    rng = np.random.default_rng(5)
    engine, done = Engine(runtime), 1
    while done < LENGTH:
        size = min(int(rng.integers(1, 90)), LENGTH - done)
        engine.absorb(music[done : done + size])
        done += size
        assert close(engine.hidden(), full_forward[done - 1]), f"differs at position {done - 1}"


def test_state_after_a_rewind_equals_one_without_the_rewound_events(
    runtime: Runtime, music: list[Event], full_forward: np.ndarray
) -> None:
    rng = np.random.default_rng(7)
    engine, done = Engine(runtime), 1
    while done < LENGTH:
        size = min(int(rng.integers(1, 20)), LENGTH - done)
        engine.absorb(music[done : done + size])
        done += size
        there = engine.position
        engine.absorb(improvise(int(rng.integers(2, engine.config.slack + 2)), seed=done)[1:])  # a plan that is not played
        engine.rewind(int(rng.integers(there, engine.position + 1)))
        engine.rewind(there)
        assert close(engine.hidden(), full_forward[done - 1]), f"differs at position {done - 1}"


def test_rewind_beyond_the_slack_recomputes(runtime: Runtime, music: list[Event], full_forward: np.ndarray) -> None:
    engine = Engine(runtime)
    engine.absorb(music[1:30])
    engine.rewind(12)
    assert engine.position == 12
    assert close(engine.hidden(), full_forward[12])


def test_a_restored_snapshot_continues_exactly(runtime: Runtime, music: list[Event]) -> None:
    engine = Engine(runtime)
    engine.absorb(music[1:150])
    snapshot = engine.snapshot()
    engine.absorb(music[150:200])
    expected = engine.hidden()
    engine.absorb(improvise(100, seed=9)[1:])
    engine.restore(snapshot)
    engine.absorb(music[150:200])
    assert np.array_equal(engine.hidden(), expected)
    engine.restore(snapshot)
    engine.rewind(145)
    assert engine.position == 145


def test_absorbing_a_long_history_at_once_equals_the_full_forward(
    runtime: Runtime, music: list[Event], full_forward: np.ndarray
) -> None:
    """The oldest events are only written to the cross-attention rings: hidden states within the slack need no more."""
    engine = Engine(runtime)
    engine.absorb(music[1:])
    assert close(engine.hidden(), full_forward[-1])
    slack = engine.config.slack
    assert close(engine.recent_hidden(slack + 1), full_forward[-slack - 1 :])


def test_rebuilding_from_the_history_changes_nothing(runtime: Runtime, music: list[Event], full_forward: np.ndarray) -> None:
    engine = Engine(runtime)
    for i in range(1, 300, 7):
        engine.absorb(music[i : min(i + 7, 300)])
    assert len(engine.snapshot().history) < 300, "the beginning of the history is dropped"
    engine.rebuild()
    assert engine.position == 299
    for i in range(300, LENGTH):
        assert close(engine.hidden(), full_forward[i - 1])
        engine.absorb([music[i]])


class FaultyRuntime:
    """A real runtime whose steps fail while ``fails`` is set."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.fails = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._runtime, name)

    def step(self, *inputs: np.ndarray) -> None:
        if self.fails:
            raise RuntimeError("the device is gone")
        self._runtime.step(*inputs)


def test_events_absorbed_while_the_runtime_failed_are_kept(
    runtime: Runtime, music: list[Event], full_forward: np.ndarray
) -> None:
    faulty = FaultyRuntime(runtime)
    engine = Engine(faulty)
    engine.absorb(music[1:100])
    faulty.fails = True
    for i in range(100, 110):
        with pytest.raises(RuntimeError, match="gone"):
            engine.absorb([music[i]])
    faulty.fails = False
    engine.absorb([music[110]])
    assert engine.position == 110
    assert close(engine.hidden(), full_forward[110])


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_the_compiled_step_is_exact(music: list[Event]) -> None:
    """Tests the compiled functions of ``cuda-compiled`` on a CPU."""
    model = random_model("tiny")
    engine, compiled = Engine(TorchRuntime(model)), Engine(TorchRuntime(model, compiled=True))
    for i, event in enumerate(music[1:200]):
        for one in (engine, compiled):
            one.absorb([event])
        assert close(compiled.hidden(), engine.hidden()), f"differs at position {i}"
        bias = sampling_bias(engine.sounding, SamplingControls(), np.random.default_rng(i), own=set(), own_pedal=False)
        assert compiled.decide(bias) == engine.decide(bias)


class RuntimeWithPyTorchPlans(TensorRTRuntime):
    """A TensorRT runtime with PyTorch functions instead of plans, which need a GPU.

    Capturing a CUDA graph writes into the rings, so each function is run once here.
    """

    def __init__(self, checkpoint: Path, cache: PlanCache) -> None:
        TorchRuntime.__init__(self, checkpoint)
        self.serving, self._compilation, self._cache, self._kernels_key = "cuda", None, cache, "00" * 32
        self._keys = dict.fromkeys(plan_specs(checkpoint, "fp32", SIZES), "")

    def _checked_plan(self, spec: PlanSpec, key: str, kernels: KernelCache) -> ChunkStep | Decision:
        if spec.part == "decide":
            return Decision(self._rings, Decide(self._model), None)
        step = Step(self._model)

        def plan(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return step(*inputs, *self._rings.keys_values)

        function = ChunkStep(self._rings, spec.count, _rows(plan, self._rings), None)
        with torch.inference_mode():
            function.rerun()
        return function


def test_tensorrt_plans_do_not_change_the_results(
    checkpoint: Path, music: list[Event], full_forward: np.ndarray, tmp_path: Path
) -> None:
    runtime = RuntimeWithPyTorchPlans(checkpoint, PlanCache(tmp_path))
    graphs = runtime._steps
    runtime._load_plans()
    assert runtime.serving == "tensorrt"
    assert runtime._steps is not graphs
    engine = Engine(runtime)
    for i, event in enumerate(music[1:], 1):
        engine.absorb([event])
        assert close(engine.hidden(), full_forward[i]), f"differs at position {i}"


class FinishedCompilation(Compilation):
    """A compilation, which needs a GPU, that has finished without errors."""

    def __init__(self) -> None:
        pass

    def outcome(self) -> str | None:
        return ""

    def stop(self) -> None:
        pass


def test_plans_are_not_loaded_while_playing(checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine")
    runtime = RuntimeWithPyTorchPlans(checkpoint, PlanCache(tmp_path))
    graphs, runtime._compilation = runtime._steps, FinishedCompilation()
    runtime.keep_warm()
    assert (runtime.serving, runtime._steps, runtime._compilation) == ("cuda", graphs, None)
    assert "the next start uses them" in caplog.text


def test_rewinding_too_often_raises_an_engine_error(checkpoint: Path, music: list[Event]) -> None:
    engine = Engine(open_runtime("eager", checkpoint))
    engine.absorb(music[1:])

    def rewind_repeatedly() -> None:
        for _ in range(100):
            engine.rewind(engine.position - engine.config.slack)

    with pytest.raises(EngineError, match="cannot rewind"):
        rewind_repeatedly()
    engine.absorb(music[1:10])  # the engine still works


def test_rebuilding_from_the_newest_events_equals_a_session_that_began_there(
    runtime: Runtime, checkpoint: Path, music: list[Event]
) -> None:
    engine, newest = Engine(runtime), 50
    engine.absorb(music[1:200])
    engine.rebuild(newest)
    events = torch.from_numpy(np.array(music[:200])).long()
    ages, times = torch.from_numpy(ages_of(np.array(music[:200]))), torch.cumsum(events[:, 0], 0)
    whole = (events, ages, torch.arange(200), times)
    model = TorchRuntime(checkpoint)._model
    with torch.inference_mode():
        expected = model.hidden(*(part[None, -newest:] for part in whole), newest)[0].numpy()
    assert close(engine.hidden(), expected[-1])
    assert engine.position == 199


def test_exported_files_contain_no_paths(checkpoint: Path) -> None:
    for file in checkpoint.glob("*.onnx"):
        assert b".py" not in file.read_bytes(), file.name
