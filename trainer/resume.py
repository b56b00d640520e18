"""Resuming a run: its own settings remain valid, and options that contradict them are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.checkpoint import read_config
from engine.config import CheckpointError, ModelConfig
from trainer.run import STATE, TrainingError
from trainer.segmentation import Segmentation
from trainer.settings import Settings, Training, changed

FIXED = ("preset", "pedal", "batch", "seed")  # changes would give another model or other examples


@dataclasses.dataclass(frozen=True)
class ExistingRun:
    """The settings of the run in ``folder``."""

    folder: Path
    config: ModelConfig
    training: Training
    pedal: str


def existing_run(folder: Path) -> ExistingRun | None:
    """The run in a folder; None if there is none, or if its settings cannot be read."""
    if not (folder / STATE).exists():
        return None
    try:
        config, about = read_config(folder)
        settings = about["training"]
        training = Training(**settings | {"segmentation": Segmentation(**settings["segmentation"])})
        return ExistingRun(folder, config, training, str(about.get("pedal", "events")))
    except (CheckpointError, KeyError, TypeError):  # killed in its first save, or of another version
        return None


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
    _check_unchanged(run, "segmentation", run.training.segmentation, segmentation)
    names = {field.name for field in dataclasses.fields(Training)}
    return dataclasses.replace(run.training, **{name: options[name] for name in names & {*given} & options.keys()})


def _check_unchanged(run: ExistingRun, option: str, own: Settings, changes: Iterable[str]) -> None:
    for change in changes:
        if changed(own, [change]) != own:
            raise _contradiction(run, f"--{option} {change}", getattr(own, change.partition("=")[0]))


def _contradiction(run: ExistingRun, found: str, own: object) -> TrainingError:
    shown = ",".join(map(str, own)) if isinstance(own, tuple) else own
    return TrainingError(
        f"{run.folder}: {found} contradicts the run in this folder, which has {shown}; leave it out, or choose another --out"
    )
