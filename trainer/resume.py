"""Resuming a run: its own settings remain valid, and options that contradict them are refused.

Settings of the steps can be changed, and how much the examples are varied (``VARIATION``): without variation, the last steps of a
cool-down see music as it was played.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from engine.config import CheckpointError, ModelConfig
from engine.text import printable
from trainer.run import STATE, TrainingError
from trainer.segmentation import Segmentation
from trainer.settings import Settings, Training, changed

FIXED = ("preset", "pedal", "batch", "seed")  # changes would give another model or other examples
VARIATION = ("transpose", "stretch", "loudness")  # of the examples; can be changed


@dataclasses.dataclass(frozen=True)
class ExistingRun:
    """The settings of the run in ``folder``. ``data``: name of its packed data, which depends on the content."""

    folder: Path
    config: ModelConfig
    training: Training
    pedal: str
    data: str


def existing_run(folder: Path) -> ExistingRun | None:
    """The run in a folder; None if there is none. Raises ``TrainingError`` if its settings cannot be read."""
    if not (folder / STATE).exists():
        return None
    try:
        with safe_open(folder / STATE, framework="np") as file:
            about = json.loads(file.metadata()["run"])
        settings = about["training"]
        training = Training(**settings | {"segmentation": Segmentation(**settings["segmentation"])})
        return ExistingRun(folder, ModelConfig.from_dict(about["model"]), training, about["pedal"], about["data"])
    except (OSError, SafetensorError, CheckpointError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {printable(error)}"
        raise TrainingError(
            f"{folder / STATE}: cannot be resumed ({reason}); choose another --out, with --init {folder} if its weights are good"
        ) from error


def resumed_settings(
    run: ExistingRun, options: Mapping[str, Any], given: Collection[str], model: Iterable[str], segmentation: Iterable[str]
) -> Training:
    """The settings of a resumed run: its own, with the changes that were ``given``.

    Args:
        options: values by name, of ``Training`` and ``pedal``.
        given: the names among them that the user gave.
        model: ``name=value`` changes of the model.
        segmentation: ``name=value`` changes of the examples.

    Raises:
        TrainingError: something given contradicts the run.
        DataError: a change cannot be read.
    """
    for name in FIXED:
        own = run.pedal if name == "pedal" else getattr(run.training, name)
        if name in given and options[name] != own:
            raise _contradiction(run, f"--{name} {options[name]}", own)
    _check_unchanged(run, "model", run.config, model)
    variation = [change for change in segmentation if change.partition("=")[0] in VARIATION]
    _check_unchanged(run, "segmentation", run.training.segmentation, [one for one in segmentation if one not in variation])
    names = {field.name for field in dataclasses.fields(Training)}
    changes = {name: options[name] for name in names & {*given} & options.keys()}
    return dataclasses.replace(run.training, **changes, segmentation=changed(run.training.segmentation, variation))


def _check_unchanged(run: ExistingRun, option: str, own: Settings, changes: Iterable[str]) -> None:
    for change in changes:
        if changed(own, [change]) != own:
            raise _contradiction(run, f"--{option} {change}", getattr(own, change.partition("=")[0]))


def _contradiction(run: ExistingRun, found: str, own: object) -> TrainingError:
    shown = ",".join(map(str, own)) if isinstance(own, tuple) else own
    return TrainingError(
        f"{run.folder}: {found} contradicts the run in this folder, which has {shown}; leave it out, or choose another --out"
    )
