"""A resumed run keeps its settings; options that contradict them are refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("symusic")

from engine.config import PRESETS, ModelConfig
from trainer.resume import ExistingRun, resumed_settings
from trainer.run import TrainingError
from trainer.segmentation import Segmentation
from trainer.settings import Training

CONFIG: ModelConfig = PRESETS["tiny"]
TRAINING = Training(preset="tiny", batch=8, steps=100, learning_rate=1e-3, segmentation=Segmentation(latents=32, context=64))
RUN = ExistingRun(Path("runs/mine"), CONFIG, TRAINING, "events")


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
