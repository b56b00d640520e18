"""A run that goes on: what it was begun with holds, and options that contradict it are refused."""

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

FIXED = ("preset", "pedal", "batch", "seed")  # with others, the examples or the model would not be those of the run


@dataclasses.dataclass(frozen=True)
class Begun:
    """What the run in ``folder`` was begun with."""

    folder: Path
    config: ModelConfig
    training: Training
    pedal: str


def begun(folder: Path) -> Begun | None:
    """The run that is in a folder; None if there is none, or not known what it was begun with."""
    if not (folder / STATE).exists():
        return None
    try:
        config, about = read_config(folder)
        settings = about["training"]
        training = Training(**settings | {"segmentation": Segmentation(**settings["segmentation"])})
        return Begun(folder, config, training, str(about.get("pedal", "events")))
    except (CheckpointError, KeyError, TypeError):  # killed in its first save, or of another version
        return None


def goes_on(
    run: Begun, options: Mapping[str, Any], given: Collection[str], model: Iterable[str], segmentation: Iterable[str]
) -> Training:
    """The settings with which a run goes on: its own, but for what was ``given``.

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


def _check_unchanged(run: Begun, option: str, own: Settings, changes: Iterable[str]) -> None:
    for change in changes:
        if changed(own, [change]) != own:
            raise _contradiction(run, f"--{option} {change}", getattr(own, change.partition("=")[0]))


def _contradiction(run: Begun, found: str, own: object) -> TrainingError:
    shown = ",".join(map(str, own)) if isinstance(own, tuple) else own
    return TrainingError(
        f"{run.folder}: {found} contradicts the run that is there, which has {shown}; leave it out, or choose another --out"
    )
