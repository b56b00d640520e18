"""Which runtime ``auto`` chooses: int8 weights if float32 is too slow and int8 is faster; the next one if one does not load."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.checkpoint import bundled
from engine.config import CheckpointError
from engine.runtimes import choose
from engine.runtimes.choose import faster_onnx, open_runtime, step_ms
from engine.runtimes.onnx import STEP_INT8_FILE


def fix_step_times(monkeypatch: pytest.MonkeyPatch, float32: float, int8: float) -> None:
    """Makes ``step_ms`` return these milliseconds."""
    monkeypatch.setattr(choose, "step_ms", lambda runtime: int8 if runtime.name == "onnx-int8" else float32)


def without_int8(folder: Path) -> Path:
    for path in bundled().iterdir():
        if path.name != STEP_INT8_FILE:
            (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize(("taken", "instead", "name"), [(3.9, 1.0, "onnx"), (4.1, 3.0, "onnx-int8"), (9.0, 9.5, "onnx")])
def test_int8_is_chosen_if_float32_is_slow_and_int8_is_faster(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, taken: float, instead: float, name: str
) -> None:
    fix_step_times(monkeypatch, taken, instead)
    with caplog.at_level(logging.INFO):
        assert faster_onnx(bundled(), 0).name == name
    assert (f"{taken:.1f} ms in float32, {instead:.1f} ms with int8 weights: {name}" in caplog.text) == (taken > 4)


def test_without_an_int8_graph_float32_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fix_step_times(monkeypatch, 9.0, 1.0)
    assert faster_onnx(without_int8(tmp_path), 0).name == "onnx"


def test_a_steady_runtime_does_not_depend_on_the_machines_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "AUTO", choose.AUTO[-2:])
    fix_step_times(monkeypatch, 9.0, 1.0)
    assert open_runtime("auto", bundled(), steady=True).name == "onnx"
    assert open_runtime("auto", bundled()).name == "onnx-int8"


def test_a_missing_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none: not a checkpoint \(No such file or directory: config.json\)"):
        open_runtime("auto", tmp_path / "none")


def test_a_pytorch_that_does_not_load_is_one_line_and_auto_goes_on(tmp_path: Path) -> None:
    """A missing library of a GPU driver raises ``OSError``."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    program = """
import sys
from engine.checkpoint import bundled
from engine.runtimes import RuntimeUnavailable, choose

choose.DRIVERS = (sys.executable,)  # as if there were a driver
print(choose.open_runtime("auto", bundled(), steady=True).name)
try:
    choose.open_runtime("cuda", bundled())
except RuntimeUnavailable as error:
    print(error)
"""
    where = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[3])))
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": where}, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["onnx", "cuda: OSError: libcudart.so.13: cannot open shared object file"], done.stderr


def test_measuring_resets_the_runtime() -> None:
    float32 = open_runtime("onnx", bundled())
    assert step_ms(float32) > 0
    assert not any(ring.any() for ring in float32.rings())
