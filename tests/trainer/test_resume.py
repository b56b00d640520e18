"""A resumed run keeps its settings; options that contradict them are refused by name. What cannot be exported is refused too."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip("torch")
pytest.importorskip("symusic")

from engine.checkpoint import save_model
from engine.config import PRESETS, CheckpointError, ModelConfig
from engine.midi_file import write_file
from engine.model import PerceiverS
from tests.trainer.test_train import scales
from trainer.export import export
from trainer.resume import ExistingRun, existing_run, resumed_settings
from trainer.run import STATE, TrainingError
from trainer.segmentation import Segmentation
from trainer.settings import Training

CONFIG: ModelConfig = PRESETS["tiny"]
TRAINING = Training(preset="tiny", batch=8, steps=100, learning_rate=1e-3, segmentation=Segmentation(latents=32, context=64))
RUN = ExistingRun(Path("runs/mine"), CONFIG, TRAINING, "events", "data")


def resume(model: tuple[str, ...] = (), segmentation: tuple[str, ...] = (), **given: Any) -> Training:
    """The settings of the run, resumed with these command-line options. Omitted options have the defaults of the command line."""
    options = dataclasses.asdict(Training()) | {"pedal": "events"} | given
    return resumed_settings(RUN, options, given.keys(), model, segmentation)


def test_omitted_options_keep_the_runs_values() -> None:
    assert resume() == TRAINING


def test_options_that_may_change_are_changed() -> None:
    assert resume(steps=200, learning_rate=5e-4, workers=0) == dataclasses.replace(
        TRAINING, steps=200, learning_rate=5e-4, workers=0
    )


def test_variation_of_the_examples_may_change() -> None:
    segmentation = dataclasses.replace(TRAINING.segmentation, transpose=0, stretch=0.0, loudness=0)
    assert resume(segmentation=("transpose=0", "stretch=0", "loudness=0")) == dataclasses.replace(
        TRAINING, segmentation=segmentation
    )


def test_run_whose_settings_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert existing_run(tmp_path) is None
    for about in ('{"training": {"no_such_setting": 1, "segmentation": {}}}', "{}", "no json"):
        save_file({"model.weight": np.zeros(1, np.float32)}, tmp_path / STATE, {"run": about})
        with pytest.raises(TrainingError, match="cannot be resumed"):
            existing_run(tmp_path)
    (tmp_path / STATE).write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="cannot be resumed"):
        existing_run(tmp_path)


def test_changed_data_is_reported_when_a_run_is_resumed(tmp_path: Path) -> None:
    music, examples = tmp_path / "music", ("latents=32", "context=64", "near=32", "sampled=16")
    music.mkdir()
    call = [sys.executable, "-m", "perceivers_live.cli", "train", str(music), f"--out={tmp_path / 'run'}", "--preset=tiny"]
    call += [f"--cache={tmp_path / 'cache'}", "--workers=0", "--no-samples", "--device=cpu", "--batch=1"]
    call += [f"--segmentation={one}" for one in examples]

    def reported(steps: int) -> bool:
        done = subprocess.run([*call, f"--steps={steps}"], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return "the data has changed" in done.stderr

    for i in range(2):
        write_file(music / f"{i}.mid", [("piano", scales(i))])
    assert not reported(1)
    assert not reported(2)
    write_file(music / "2.mid", [("piano", scales(2))])
    assert reported(3)
    assert not reported(4)


def test_model_without_pedal_events_is_not_exported(tmp_path: Path) -> None:
    save_model(PerceiverS(CONFIG), tmp_path / "run", pedal="extend")
    with pytest.raises(CheckpointError, match="--pedal extend"):
        export(tmp_path / "run", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_options_equal_to_the_runs_values_are_accepted() -> None:
    layers, context = f"layers={CONFIG.layers}", "context=64"
    assert resume((layers,), (context,), preset="tiny", batch=8, pedal="events", seed=0) == TRAINING


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preset": "base"}, ["--preset base", "has tiny"]),
        ({"batch": 4}, ["--batch 4", "has 8"]),
        ({"seed": 7}, ["--seed 7", "has 0"]),
        ({"pedal": "extend"}, ["--pedal extend", "has events"]),
        ({"model": ("layers=9",)}, ["--model layers=9", f"has {CONFIG.layers}"]),
        ({"model": ("scales=1024",)}, ["--model scales=1024", f"has {','.join(map(str, CONFIG.scales))}"]),
        ({"segmentation": ("draw=traditional",)}, ["--segmentation draw=traditional", "has effective"]),
    ],
)
def test_options_that_contradict_the_run_are_refused_by_name(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(TrainingError) as refused:
        resume(**given)
    for word in ("runs/mine", *words):
        assert word in str(refused.value)
