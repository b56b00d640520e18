"""The cache of compiled plans: undamaged plans with the right key or none; concurrent processes; deletion of old plans."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.checkpoint import bundled
from engine.config import CheckpointError, ModelConfig
from engine.runtimes import RuntimeUnavailable
from engine.runtimes.tensorrt import cache as plancache
from engine.runtimes.tensorrt.cache import HEADER, MAX_PLANS, Environment, PlanCache, PlanSpec, plan_specs, plans_folder
from engine.runtimes.tensorrt.compile_process import compile_missing

HERE = Environment("tensorrt", "11.0.0", "torch-tensorrt 2.13.0", "2.13.0+cu130", "NVIDIA RTX 4090", (8, 9), "13000")
SPEC = PlanSpec("step", 8, "fp16", "ab" * 32, ModelConfig())
KEY, OTHER = "12" * 32, "34" * 32
PLAN = bytes(range(256)) * 8


class PlanError(RuntimeUnavailable):
    """In place of that of ``build``, whose module imports TensorRT."""


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "not" / "yet")


def test_a_plan_is_built_once(cache: PlanCache) -> None:
    assert cache.get(KEY) is None
    assert cache.get_or_build(KEY, lambda: PLAN) == PLAN
    assert cache.get_or_build(KEY, lambda: pytest.fail("built again")) == PLAN
    assert PlanCache(cache.folder).get(KEY) == PLAN
    assert [path.name for path in cache.folder.iterdir()] == [f"{KEY}.plan"]


def test_a_plan_that_was_dropped_is_built_again(cache: PlanCache) -> None:
    cache.put(KEY, PLAN)
    cache.drop(KEY)
    cache.drop(KEY)
    assert cache.get_or_build(KEY, lambda: b"new") == b"new"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(where=st.integers(0, HEADER.size + len(PLAN) - 1), flip=st.integers(1, 255))
def test_a_file_with_a_changed_byte_is_ignored(tmp_path_factory: pytest.TempPathFactory, where: int, flip: int) -> None:
    cache = PlanCache(tmp_path_factory.getbasetemp() / "flipped")
    cache.put(KEY, PLAN)
    (path,) = cache.folder.iterdir()
    data = bytearray(path.read_bytes())
    data[where] ^= flip
    path.write_bytes(data)
    assert cache.get(KEY) is None
    assert cache.get_or_build(KEY, lambda: b"new") == b"new"
    assert cache.get(KEY) == b"new"


@pytest.mark.parametrize("size", [0, 1, HEADER.size - 1, HEADER.size, HEADER.size + 1, HEADER.size + len(PLAN) - 1])
def test_a_truncated_file_is_ignored(cache: PlanCache, size: int) -> None:
    cache.put(KEY, PLAN)
    os.truncate(cache.folder / f"{KEY}.plan", size)
    assert cache.get(KEY) is None
    assert cache.get_or_build(KEY, lambda: b"new") == cache.get(KEY) == b"new"


def test_a_file_with_trailing_bytes_is_ignored(cache: PlanCache) -> None:
    cache.put(KEY, PLAN)
    with (cache.folder / f"{KEY}.plan").open("ab") as file:
        file.write(b"\0")
    assert cache.get(KEY) is None


def test_an_absurdly_large_file_is_not_read(cache: PlanCache) -> None:
    cache.put(KEY, PLAN)
    os.truncate(cache.folder / f"{KEY}.plan", 1 << 40)  # sparse
    assert cache.get(KEY) is None


def test_a_plan_under_the_name_of_another_is_ignored(cache: PlanCache) -> None:
    cache.put(KEY, PLAN)
    shutil.copy(cache.folder / f"{KEY}.plan", cache.folder / f"{OTHER}.plan")
    assert cache.get(OTHER) is None


def test_an_unusable_folder_only_disables_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = PlanCache(tmp_path / "file" / "plans")
    assert cache.get_or_build(KEY, lambda: PLAN) == PLAN
    assert cache.get(KEY) is None
    cache.drop(KEY)


def test_the_least_recently_used_plans_are_deleted(cache: PlanCache) -> None:
    keys = [f"{i:064x}" for i in range(MAX_PLANS)]
    for age, key in enumerate(reversed(keys)):
        cache.put(key, PLAN)
        os.utime(cache.folder / f"{key}.plan", (time.time() - 1000 * age,) * 2)
    assert cache.get(keys[0]) == PLAN  # the oldest is used again
    cache.put(KEY, PLAN)
    assert cache.get(keys[1]) is None
    assert all(cache.get(key) == PLAN for key in [keys[0], *keys[2:], KEY])


def test_old_unfinished_files_are_deleted(cache: PlanCache) -> None:
    cache.put(KEY, PLAN)
    old, new = cache.folder / "old.part", cache.folder / "new.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 1e6,) * 2)
    cache.put(OTHER, PLAN)
    assert not old.exists()
    assert new.exists()


def _write(folder: str, which: int) -> None:
    for i in range(40):
        PlanCache(Path(folder)).put(KEY, bytes([which]) * (1 + (i * 7919 + which) % 300_000))


def test_concurrent_processes_never_see_an_incomplete_plan(cache: PlanCache) -> None:
    cache.put(KEY, b"\0")
    seen = set()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        writers = [pool.submit(_write, str(cache.folder), which) for which in (1, 2)]
        while not all(writer.done() for writer in writers):
            plan = cache.get(KEY)
            assert plan is not None
            seen |= set(plan)
            assert len(set(plan)) == 1
        for writer in writers:
            writer.result()
    assert seen & {1, 2}
    assert [path.name for path in cache.folder.iterdir()] == [f"{KEY}.plan"]


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Environment)])
def test_each_field_of_the_environment_changes_the_key(field: str) -> None:
    changed: Any = (9, 0) if field == "capability" else "other"
    assert SPEC.key(HERE) != SPEC.key(dataclasses.replace(HERE, **{field: changed}))


@pytest.mark.parametrize(
    "change",
    [
        {"part": "decide"},
        {"count": 1},
        {"precision": "bf16"},
        {"weights": "cd" * 32},
        *({"config": dataclasses.replace(SPEC.config, **one)} for one in ({"layers": 5}, {"slack": 1}, {"rotary": "half-time"})),
    ],
)
def test_each_property_of_a_plan_changes_the_key(change: dict[str, Any]) -> None:
    assert SPEC.key(HERE) == dataclasses.replace(SPEC).key(HERE)
    assert SPEC.key(HERE) != dataclasses.replace(SPEC, **change).key(HERE)


def test_changed_graph_sources_change_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = SPEC.key(HERE)
    original = Path(plancache.engine.__file__).parent
    for name in plancache.GRAPH_SOURCES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(original / name, tmp_path / name)
    monkeypatch.setattr(plancache.engine, "__file__", str(tmp_path / "__init__.py"))
    assert SPEC.key(HERE) == before
    for name in plancache.GRAPH_SOURCES:
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        assert SPEC.key(HERE) != before
        before = SPEC.key(HERE)


@pytest.mark.parametrize("source", ["model.py", "attention.py", "graphs.py"])
def test_the_key_covers_every_module_that_the_graph_is_made_of(source: str) -> None:
    """The values of ``config`` are in the key themselves."""
    text = (Path(plancache.engine.__file__).parent / source).read_text(encoding="utf-8")
    modules = {f"{name.replace('.', '/')}.py" for name in re.findall(r"^from engine\.([\w.]+) import", text, re.MULTILINE)}
    assert modules
    assert modules - {"config.py"} <= set(plancache.GRAPH_SOURCES)


def test_compiling_fails_if_the_plans_cannot_be_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next start would compile again."""
    pytest.importorskip("torch")
    build, execute = ModuleType("build"), ModuleType("execute")
    vars(build).update(build=lambda spec, model: PLAN, PlanError=PlanError)
    vars(execute).update(environment=lambda trt: HERE, load_tensorrt=lambda: None)
    monkeypatch.setitem(sys.modules, "engine.runtimes.tensorrt.build", build)
    monkeypatch.setitem(sys.modules, "engine.runtimes.tensorrt.execute", execute)
    compile_missing(bundled(), "fp16", (1,), PlanCache(tmp_path / "plans"))
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeUnavailable, match="file: compiled plans cannot be stored there"):
        compile_missing(bundled(), "fp16", (1,), PlanCache(tmp_path / "file"))


def test_a_plan_that_cannot_be_built_is_remembered_until_it_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")

    def fail(spec: PlanSpec, model: object) -> bytes:
        raise PlanError("no converter\nand a traceback")

    build, execute = ModuleType("build"), ModuleType("execute")
    vars(build).update(build=fail, PlanError=PlanError)
    vars(execute).update(environment=lambda trt: HERE, load_tensorrt=lambda: None)
    monkeypatch.setitem(sys.modules, "engine.runtimes.tensorrt.build", build)
    monkeypatch.setitem(sys.modules, "engine.runtimes.tensorrt.execute", execute)
    cache = PlanCache(tmp_path / "plans")
    keys = [spec.key(HERE) for spec in plan_specs(bundled(), "fp16", (1,))]
    with pytest.raises(PlanError):
        compile_missing(bundled(), "fp16", (1,), cache)
    assert [cache.refusal(key) for key in keys] == ["no converter", None]
    vars(build)["build"] = lambda spec, model: PLAN
    compile_missing(bundled(), "fp16", (1,), cache)
    assert [cache.refusal(key) for key in keys] == [None, None]


def test_a_checkpoint_has_a_plan_for_each_count_and_one_for_decisions(tmp_path: Path) -> None:
    specs = plan_specs(bundled(), "fp16", (1, 8))
    assert [(spec.part, spec.count, spec.precision) for spec in specs] == [
        ("step", 1, "fp16"),
        ("step", 8, "fp16"),
        ("decide", 0, "fp16"),
    ]
    shutil.copy(bundled() / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert plan_specs(tmp_path, "fp16", (1, 8))[0].weights != specs[0].weights
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        plan_specs(tmp_path, "fp16", (1,))


# --- folder ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="about XDG folders")
def test_plans_are_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert plans_folder() == tmp_path / "elsewhere" / "perceivers-live" / "plans"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert plans_folder() == tmp_path / ".cache" / "perceivers-live" / "plans"


def test_the_error_without_a_home_folder_states_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it does without a home folder
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(RuntimeUnavailable, match="set HOME"):
        plans_folder()
