"""Saving and loading a state is exact, and a file is replaced atomically."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import bundled
from engine.config import CheckpointError
from engine.engine import Engine, Snapshot
from engine.runtimes.choose import open_runtime
from engine.sampling import SamplingControls, sampling_bias
from engine.states import (
    MAX_HEADER_BYTES,
    StateError,
    fingerprint,
    load_state,
    save_state,
)
from tests.engine.states.snapshots import MODEL, TINY, random_state, same
from tests.music import improvise


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (2, 2), (9, 9), (60, 60), (60, 50), (105, 105), (400, 105), (400, 1)])
def test_a_saved_state_is_loaded_exactly(tmp_path: Path, count: int, kept: int) -> None:
    state = random_state(count, kept=kept)
    save_state(state, tmp_path / "new" / "folder" / "state", model=MODEL, controls={"seed": 7}, name="é")
    loaded, extra = load_state(tmp_path / "new" / "folder" / "state", TINY, model=MODEL)
    assert same(loaded, state)
    assert extra == {"controls": {"seed": 7}, "name": "é"}
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["state"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    from engine.checkpoint import save_model
    from engine.model import PerceiverS

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(PerceiverS(TINY), folder)
    return folder


@pytest.mark.parametrize("rewound", [0, 7])
@pytest.mark.parametrize("count", [1, 5, 60, 150, 700])
def test_an_engine_continues_exactly_from_a_loaded_state(tmp_path: Path, checkpoint: Path, count: int, rewound: int) -> None:
    """For histories from the start event alone to longer than every ring, also after a rewind."""
    model, music = fingerprint(checkpoint), improvise(count + 40, seed=2)
    engine, other = (Engine(open_runtime("eager", checkpoint)) for _ in range(2))
    engine.absorb(music[1:count])
    engine.absorb(improvise(1 + rewound, seed=3)[1:])
    engine.rewind(count - 1)
    save_state(engine.snapshot(), tmp_path / "state", model=model)
    other.absorb(improvise(90, seed=4)[1:])  # it has absorbed other music
    loaded, _ = load_state(tmp_path / "state", other.config, model=model)
    assert same(loaded, engine.snapshot())
    other.restore(loaded)
    back = min(3, count - 1)
    for one in (engine, other):
        one.rewind(one.position - back)
        one.absorb(music[count : count + 40])
    assert same(engine.snapshot(), other.snapshot())
    choices = sampling_bias(engine.sounding, SamplingControls(), np.random.default_rng(1), own=(), own_pedal=False)
    assert engine.decide(choices) == other.decide(choices)


def test_the_bundled_models_state_is_saved_and_loaded(tmp_path: Path) -> None:
    engine = Engine(open_runtime("onnx", bundled()))
    engine.absorb(improvise(80, seed=5)[1:])
    state, model = engine.snapshot(), fingerprint(bundled())
    save_state(state, tmp_path / "state", model=model)
    assert same(load_state(tmp_path / "state", engine.config, model=model)[0], state)


def test_saving_again_replaces_the_file_atomically(tmp_path: Path, state: Snapshot) -> None:
    path, held = tmp_path / "state", tmp_path / "held"
    save_state(random_state(9), path, model=MODEL)
    held.hardlink_to(path)  # like a process that is reading the old file
    save_state(state, path, model=MODEL)
    assert same(load_state(path, TINY, model=MODEL)[0], state)
    assert same(load_state(held, TINY, model=MODEL)[0], random_state(9))


def test_a_failed_save_leaves_the_old_file_unchanged(tmp_path: Path, state: Snapshot) -> None:
    path = tmp_path / "state"
    save_state(state, path, model=MODEL)
    for extra in [object(), math.nan, "x" * (MAX_HEADER_BYTES + 1)]:
        with pytest.raises(StateError):
            save_state(random_state(9), path, model=MODEL, extra=extra)
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # simulates a full disk
    try:
        with pytest.raises(StateError, match="cannot be written"):
            save_state(random_state(9), path, model=MODEL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(load_state(path, TINY, model=MODEL)[0], state)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_an_unwritable_path_is_refused_in_one_line(tmp_path: Path, state: Snapshot) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "state", tmp_path / "folder", tmp_path / "a\0b"):
        with pytest.raises(StateError) as caught:
            save_state(state, path, model=MODEL)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


# --- fingerprints ----------------------------------------------------------------------------------------------------


def test_a_fingerprint_depends_on_the_model_only(tmp_path: Path, checkpoint: Path) -> None:
    one = fingerprint(checkpoint)
    shutil.copytree(checkpoint, tmp_path / "copy")
    (tmp_path / "copy" / "README").touch()
    assert fingerprint(tmp_path / "copy") == one
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config | {"steps": 9}))
    assert fingerprint(tmp_path / "copy") == one
    (tmp_path / "copy" / "config.json").write_text(json.dumps({"model": config["model"] | {"combine": "sum"}}))
    assert fingerprint(tmp_path / "copy") != one
    shutil.copy(checkpoint / "config.json", tmp_path / "copy")
    weights = bytearray((checkpoint / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "copy" / "model.safetensors").write_bytes(weights)
    assert fingerprint(tmp_path / "copy") != one


def test_a_folder_without_weights_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        fingerprint(tmp_path)
    shutil.copy(bundled() / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        fingerprint(tmp_path)
    shutil.copy(bundled() / "step.onnx", tmp_path)  # contains no weights
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        fingerprint(tmp_path)
