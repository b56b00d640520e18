"""Damaged or forged ONNX files are refused in one line when they are opened, not while playing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from engine.checkpoint import save_model  # noqa: E402
from engine.config import CheckpointError, ModelConfig  # noqa: E402
from engine.events import ACTIONS, VELOCITY_BINS, WAITS  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes import RuntimeUnavailable, SamplingBias  # noqa: E402
from engine.runtimes.onnx import DECIDE_FILE, PREFILL_CROSS_FILE, STEP_FILE, OnnxRuntime  # noqa: E402
from trainer.export import write_onnx  # noqa: E402

SIZES = {"hidden": 2, "wait_bias": WAITS, "action_bias": ACTIONS, "velocity_bias": VELOCITY_BINS, "temperature": 1, "min_p": 1}
INPUTS = SIZES | {"noise": WAITS + ACTIONS + VELOCITY_BINS}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    config = ModelConfig(width=2, heads=1, kv_heads=1, layers=1, scales=(2,), window=2, mlp=1, slack=1)
    save_model(PerceiverS(config), folder)
    write_onnx(PerceiverS(config), folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, bundle: Path) -> Path:
    """A copy of the bundle for a test to change."""
    for path in bundle.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def put(folder: Path, name: str, content: bytes) -> None:
    (folder / name).unlink()
    (folder / name).write_bytes(content)


def check_refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        OnnxRuntime(folder)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def constant_graph(folder: Path, event: object) -> onnx.ModelProto:
    """A ``decide.onnx`` with the folder's weights that always returns ``event``."""
    constants = onnx.load(folder / DECIDE_FILE, load_external_data=False).graph.initializer
    weights = [one for one in constants if one.data_location == TensorProto.EXTERNAL]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name, size in INPUTS.items()]
    value = numpy_helper.from_array(np.asarray(event))
    output = helper.make_tensor_value_info("event", value.data_type, value.dims)
    node = helper.make_node("Constant", [], ["event"], value=value)
    used = [helper.make_node("Identity", [one.name], [f"used {one.name}"]) for one in weights]  # unused ones are dropped
    graph = helper.make_graph([node, *used], "decide", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_a_handmade_graph_that_returns_a_valid_event_is_used(folder: Path) -> None:
    put(folder, DECIDE_FILE, constant_graph(folder, [3, 60, 7]).SerializeToString())
    noise = np.zeros(WAITS + ACTIONS + VELOCITY_BINS, np.float32)
    zeros = [np.zeros(size, np.float32) for size in (WAITS, ACTIONS, VELOCITY_BINS)]
    bias = SamplingBias(*zeros, 1.0, 0.0, noise)
    assert OnnxRuntime(folder).decide(0, bias) == (3, 60, 7)


@pytest.mark.parametrize(
    "event", [[101, 60, 7], [0, 261, 7], [0, -1, 7], [0, 60, 32], [0, 60], [], 5, [0.5, float("nan"), 1], "abc"]
)
def test_a_graph_that_returns_an_invalid_event_is_refused(folder: Path, event: object) -> None:
    put(folder, DECIDE_FILE, constant_graph(folder, event).SerializeToString())
    assert "do not fit its config" in check_refused(folder)


@pytest.mark.parametrize(
    ("name", "other"), [(DECIDE_FILE, PREFILL_CROSS_FILE), (PREFILL_CROSS_FILE, DECIDE_FILE), (STEP_FILE, DECIDE_FILE)]
)
def test_a_graph_in_place_of_another_is_refused(folder: Path, bundle: Path, name: str, other: str) -> None:
    put(folder, name, (bundle / other).read_bytes())
    check_refused(folder)


@pytest.mark.parametrize("name", [DECIDE_FILE, PREFILL_CROSS_FILE])
@pytest.mark.parametrize("content", [b"", b"\x00" * 1000, b"\xff" * 1000, b"\x80\x04\x95pickle", b"PK\x03\x04"])
def test_a_file_that_is_not_a_graph_is_refused(folder: Path, name: str, content: bytes) -> None:
    put(folder, name, content)
    check_refused(folder)


def test_a_truncated_graph_is_refused(folder: Path, bundle: Path) -> None:
    whole = (bundle / DECIDE_FILE).read_bytes()
    for share in (0.1, 0.5, 0.999):
        put(folder, DECIDE_FILE, whole[: int(share * len(whole))])
        check_refused(folder)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "inside/../../outside.bin"])
def test_a_graph_reads_no_file_outside_its_folder(folder: Path, location: str) -> None:
    (folder.parent / "outside.bin").write_bytes(np.array([3, 60, 7], np.int64).tobytes())
    model = constant_graph(folder, [3, 60, 7])
    del model.graph.node[0]
    event = model.graph.initializer.add(name="event", data_type=TensorProto.INT64, dims=[3], data_location=TensorProto.EXTERNAL)
    event.external_data.add(key="location", value=location)
    put(folder, DECIDE_FILE, model.SerializeToString())
    assert DECIDE_FILE in check_refused(folder)


def test_telemetry_of_onnx_runtime_is_disabled(bundle: Path, tmp_path: Path) -> None:
    """Official builds create an identifier in the user's cache and report over the network unless telemetry is disabled."""
    code = (
        f"from pathlib import Path; from engine.runtimes.choose import open_runtime; open_runtime('onnx', Path({str(bundle)!r}))"
    )
    homeless = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY" and "XDG" not in name}
    subprocess.run([sys.executable, "-c", code], env={**homeless, "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_a_graph_with_missing_or_other_weights_is_refused(folder: Path) -> None:
    """A weight that the checkpoint does not have means that the graph computes something else."""
    for change in ("less", "more"):
        model = constant_graph(folder, [3, 60, 7])
        if change == "less":
            model.graph.initializer.pop()
            model.graph.node.pop()
        else:
            model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
            model.graph.initializer[-1].name = "another"
            model.graph.node.add(op_type="Identity", input=["another"], output=["used another"])
        other = model.SerializeToString()
        original = (folder / DECIDE_FILE).read_bytes()
        put(folder, DECIDE_FILE, other)
        assert "for these weights" in check_refused(folder)
        put(folder, DECIDE_FILE, original)


@pytest.mark.parametrize("damage", ["cut", "missing", "of another shape", "whole numbers"])
def test_weights_that_do_not_fit_are_refused(folder: Path, damage: str) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage != "missing":
        tensors = load_file(bundle_of(folder))
        name = "layers.0.query.weight"
        tensors[name] = tensors[name][:1] if damage == "of another shape" else tensors[name].astype(np.int32)
        save_file(tensors, path)
    assert "model.safetensors" in check_refused(folder)


def bundle_of(folder: Path) -> Path:
    """The weights that a folder's graphs link to."""
    return (folder / STEP_FILE).resolve().with_name("model.safetensors")


def test_a_missing_graph_is_named_in_the_error(folder: Path) -> None:
    (folder / DECIDE_FILE).unlink()
    with pytest.raises(RuntimeUnavailable, match=DECIDE_FILE):
        OnnxRuntime(folder)
