"""Settings of a run, and changes to them from the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

from engine.config import PRESETS, ModelConfig
from trainer.data import DataError
from trainer.segmentation import Segmentation


@dataclasses.dataclass(frozen=True)
class Training:
    """``batch``: examples of ``segmentation.latents`` targets in an optimizer step, over all processes and all ``accumulate``
    gradient-accumulation steps. ``cooldown``: share of the steps over which the learning rate falls to 0. ``ema``: decay of the
    moving average of the weights, 0 = none. ``patience``: stop after this many validations without improvement, 0 = never.
    """

    preset: str = "small"
    steps: int = 4000
    batch: int = 4
    accumulate: int = 1
    learning_rate: float = 3e-3
    warmup: int = 50
    cooldown: float = 0.3
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.0
    precision: str = "auto"
    compile: bool = False
    parallel: str = "ddp"
    workers: int = 1
    seed: int = 0
    validate_every: int = 250
    validation_batches: int = 6
    patience: int = 0
    save_every: int = 100
    samples: bool = True
    segmentation: Segmentation = dataclasses.field(default_factory=Segmentation)


Settings = TypeVar("Settings", Segmentation, ModelConfig)


def changed(settings: Settings, changes: Iterable[str]) -> Settings:
    """``settings`` with ``name=value`` changes. Lists are separated by commas; ``name=`` is an
    empty list. Raises ``DataError``.
    """
    values: dict[str, Any] = {}
    fields = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    for change in changes:
        name, equals, text = change.partition("=")
        if name not in fields or not equals:
            raise DataError(f"{change!r}: write name=value; the names are {', '.join(fields)}")
        old = fields[name]
        try:
            if isinstance(old, tuple):
                values[name] = tuple(int(part) for part in text.split(",") if part)
            else:
                values[name] = type(old)(text)
        except ValueError:
            raise DataError(f"{change!r}: a value such as {old!r} is needed") from None
    return dataclasses.replace(settings, **values)


def model_config(preset: str, changes: Iterable[str] = ()) -> ModelConfig:
    """A preset with changes. Raises ``DataError`` or ``CheckpointError`` for invalid changes."""
    return ModelConfig.from_dict(changed(PRESETS[preset], changes).to_dict())
