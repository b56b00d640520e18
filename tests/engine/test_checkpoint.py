"""Checkpoints: saving and loading is exact; invalid files are refused in one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from engine.checkpoint import load_model, read_config, save_model  # noqa: E402
from engine.config import PRESETS, CheckpointError, ModelConfig  # noqa: E402
from engine.model import PerceiverS  # noqa: E402

TINY = PRESETS["tiny"].to_dict()


@pytest.fixture(scope="module")
def model() -> PerceiverS:
    torch.manual_seed(3)
    return PerceiverS(PRESETS["tiny"]).eval()


@pytest.fixture(scope="module")
def weights(model: PerceiverS, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    save_model(model, folder)
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, weights: bytes) -> Path:
    (tmp_path / "model.safetensors").write_bytes(weights)
    write_config(tmp_path, {"model": TINY})
    return tmp_path


def write_config(folder: Path, data: Any) -> None:
    (folder / "config.json").write_text(json.dumps(data))


def peak_memory(*, reset: bool = False) -> float:
    """The most memory that this process has used, in bytes; ``reset``: from now on. 0 where the system cannot tell."""
    if not Path("/proc/self/clear_refs").exists():
        return 0.0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def check_refused(folder: Path) -> str:
    """Checks that ``load_model`` refuses a folder with a one-line error and uses little memory. Returns the error message."""
    before = peak_memory(reset=True)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert peak_memory() - before < 100e6
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_saved_weights_and_config_are_loaded_exactly(model: PerceiverS, tmp_path: Path) -> None:
    save_model(model, tmp_path / "new" / "folder", steps=7, data={"name": "é"})
    loaded = load_model(tmp_path / "new" / "folder")
    assert loaded.config == model.config
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert read_config(tmp_path / "new" / "folder") == (model.config, {"steps": 7, "data": {"name": "é"}})
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["config.json", "model.safetensors"]


def test_saving_again_replaces_the_old_checkpoint(folder: Path) -> None:
    torch.manual_seed(4)
    other = PerceiverS(PRESETS["tiny"])
    save_model(other, folder)
    assert torch.equal(load_model(folder).embedding.wait.weight, other.embedding.wait.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_read_as_float32(model: PerceiverS, folder: Path, dtype: torch.dtype) -> None:
    save_file({name: tensor.to(dtype) for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    assert {parameter.dtype for parameter in load_model(folder).parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_weights_that_are_not_floating_point_are_refused(model: PerceiverS, folder: Path, dtype: torch.dtype) -> None:
    save_file({name: tensor.to(dtype) for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    check_refused(folder)


# --- files -----------------------------------------------------------------------------------------------------------


def test_missing_files_are_named_in_the_error(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in check_refused(folder)
    (folder / "config.json").unlink()
    assert "config.json" in check_refused(folder)
    assert "not a checkpoint" in check_refused(folder / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_folders_in_place_of_files_are_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    check_refused(folder)


@pytest.mark.parametrize("share", [0.0, 0.000005, 0.001, 0.5, 0.999999])
def test_truncated_weights_are_refused(folder: Path, weights: bytes, share: float) -> None:
    (folder / "model.safetensors").write_bytes(weights[: int(share * len(weights))])
    check_refused(folder)


def header(entries: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


INVALID_WEIGHTS = {
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "pickle": b"\x80\x04\x95" + bytes(500),
    "zip": b"PK\x03\x04" + bytes(500),
    "header of an exabyte": struct.pack("<Q", 1 << 60) + b"{}",
    "header is no JSON": struct.pack("<Q", 4) + b"nope",
    "nothing inside": header({}),
    "claims a terabyte": header({"a": {"dtype": "F32", "shape": [1 << 19, 1 << 19], "data_offsets": [0, 1 << 40]}}),
    "overflowing shape": header({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}}, bytes(8)),
    "unknown type": header({"a": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "other names": header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
}


@pytest.mark.parametrize("name", INVALID_WEIGHTS)
def test_invalid_weight_files_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").write_bytes(INVALID_WEIGHTS[name])
    check_refused(folder)


def test_weights_larger_than_the_configs_model_are_not_read(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 36)  # sparse
    assert "larger" in check_refused(folder)


def test_a_tensor_of_another_shape_is_refused(model: PerceiverS, folder: Path) -> None:
    tensors = dict(model.state_dict())
    tensors["head.wait_out.bias"] = torch.zeros(7)
    save_file(tensors, folder / "model.safetensors")
    assert "wait_out.bias" in check_refused(folder)


@pytest.mark.parametrize("change", [{"width": 128}, {"layers": 3}, {"scales": [64]}, {"mlp": 2}, {"heads": 1}])
def test_weights_of_another_config_are_refused(folder: Path, change: dict[str, Any]) -> None:
    write_config(folder, {"model": TINY | change})
    assert "config" in check_refused(folder)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch")
    write_config(folder, {"model": TINY})
    return folder


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_is_read_or_refused(scratch: Path, weights: bytes, flips: list[tuple[float, int]]) -> None:
    data = bytearray(weights)
    (size,) = struct.unpack("<Q", weights[:8])
    for where, byte in flips:
        data[int(where * (8 + size))] = byte
    (scratch / "model.safetensors").write_bytes(data)
    try:
        load_model(scratch)
    except CheckpointError as error:
        assert "\n" not in str(error)


# --- config.json -----------------------------------------------------------------------------------------------------

INVALID_CONFIGS = {
    "empty": b"",
    "cut": json.dumps({"model": TINY}).encode()[:-5],
    "no JSON": b"width: 64",
    "not UTF-8": b"\xff\xfe\x00\x01",
    "null": b"null",
    "a list": b"[1, 2]",
    "no model": b'{"progress": {}}',
    "model is a list": b'{"model": [64, 2]}',
    "deep lists": b"[" * 100_000,
    "deep tables": b'{"model":' * 50_000 + b"1" + b"}" * 50_000,
    "too long": b" " * (2 << 20),
    "endless number": b'{"model": {"width": ' + b"9" * 100_000 + b"}}",
}


@pytest.mark.parametrize("name", INVALID_CONFIGS)
def test_invalid_configs_are_refused(folder: Path, name: str) -> None:
    (folder / "config.json").write_bytes(INVALID_CONFIGS[name])
    check_refused(folder)


INVALID_VALUES: list[tuple[str, Any]] = [
    *((field, value) for field in ("width", "heads", "layers", "window", "mlp", "slack") for value in (0, -1, 1 << 40, 1.5)),
    *(("width", value) for value in (None, True, "64", "6\n4", [], {}, float("nan"), float("inf"), 10**300, 1 << 20, 63)),
    ("layers", 129),
    ("kv_heads", 3),
    ("heads", 3),
    *(("scales", value) for value in (None, 64, "64", [], {}, [0], [-1], [1.5], [True], [[64]], [None], [1 << 40], [64] * 9)),
    ("scales", ["a\nb"]),
    *(("rotary_base", value) for value in (None, True, "x", 0, -1, 1, float("nan"), float("inf"), -float("inf"), 1e300)),
    ("surprise", 1),
    ("two\nlines", 1),
    ("endless" * 10_000, 1),
    ("scales", ["endless" * 10_000]),
    ("combine", "endless" * 10_000),
]


@pytest.mark.parametrize(
    ("field", "value"), INVALID_VALUES, ids=[f"{field[:20]}={str(value)[:20]!r}" for field, value in INVALID_VALUES]
)
def test_invalid_config_values_are_refused(folder: Path, field: str, value: Any) -> None:
    write_config(folder, {"model": TINY | {field: value}})
    check_refused(folder)


LARGEST = {"width": 8192, "heads": 64, "kv_heads": 64, "layers": 128, "mlp": 1 << 20, "scales": [1 << 20] * 8, "window": 1 << 20}


def test_a_huge_config_with_small_weights_is_refused_without_allocating(folder: Path) -> None:
    write_config(folder, {"model": TINY | LARGEST})
    check_refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 8192, "heads": 4096, "slack": 1 << 20},
        LARGEST,
        {"width": 8192, "heads": 64, "kv_heads": 64, "layers": 128, "window": 1 << 20, "slack": 1 << 20, "scales": [1024]},
    ],
    ids=["hidden states", "everything", "rings"],
)
def test_sizes_beyond_the_memory_limit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        ModelConfig.from_dict(TINY | change)  # its rings alone would be 32 GB, or terabytes


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_config(name: str) -> None:
    data = json.loads(json.dumps(PRESETS[name].to_dict()))
    assert ModelConfig.from_dict(data) == PRESETS[name]
