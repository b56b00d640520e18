"""A run's folder: the state for resuming, in one file that is replaced at once; checkpoints; the log.

state.safetensors    weights, optimizer state, progress and settings
config.json, model.safetensors    the newest checkpoint         best/    the best checkpoint by validation
log.jsonl, tensorboard/    loss, learning rate, validation       samples/    generated music
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoint import read_config, save_weights
from engine.config import CheckpointError, ModelConfig
from engine.errors import UserError
from engine.model import PerceiverS
from engine.replacing import replacing
from trainer import optimizer as optim
from trainer.initialise import initialise
from trainer.parallel import World, gather, shard_like

STATE = "state.safetensors"


class TrainingError(UserError):
    """Training that cannot continue; the message is one line for the user."""


@dataclasses.dataclass
class Progress:
    """Progress of a run. ``best``: lowest validation loss in nats an event. ``stale``: validations since ``best``.
    ``earlier_...``: values of the checkpoint that the run was initialised from.
    """

    step: int = 0
    best: float = math.inf
    stale: int = 0
    seconds: float = 0.0
    events: int = 0
    earlier_seconds: float = 0.0
    earlier_events: int = 0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"best": self.best if math.isfinite(self.best) else None}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Progress:
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        return cls(**values | {"best": math.inf if data["best"] is None else data["best"]})


class Run:
    """The model, its optimizers and its progress. ``average``: moving average of the weights, if there is one.

    Usage: construct it, distribute ``model`` over the processes, then call ``begin``, which needs the final layout of the
    weights.
    """

    def __init__(self, folder: Path, config: ModelConfig, here: World, *, seed: int, init: Path | None, ema: float) -> None:
        self.folder, self.here, self._ema = folder, here, ema
        self.progress = Progress()
        self.average: dict[str, Tensor] = {}
        self._saved: dict[str, Tensor] = {}
        if (folder / STATE).exists():
            config = self._read()
        elif (folder / "config.json").exists():
            raise CheckpointError(f"{folder}: a checkpoint without the state of a run ({STATE} is missing); it cannot be resumed")
        torch.manual_seed(seed)
        self.model = PerceiverS(config)
        if init is not None and not self._saved:
            initialise(self.model, init)
            self._continue(init)
        self._load("model.", self.model.state_dict())
        self.model.to(here.device)

    def _continue(self, init: Path) -> None:
        _, about = read_config(init)
        before = Progress.from_dict({"best": None, **about.get("progress", {})})
        self.progress.earlier_events = before.events + before.earlier_events
        self.progress.earlier_seconds = before.seconds + before.earlier_seconds

    def _read(self) -> ModelConfig:
        path = self.folder / STATE
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["run"])
                self._saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            self.progress = Progress.from_dict(about["progress"])
            return ModelConfig.from_dict(about["model"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> CheckpointError:
        reason = str(error).splitlines()[0] if str(error) else ""
        return CheckpointError(f"{self.folder / STATE}: cannot be resumed ({type(error).__name__}: {reason})")

    def _load(self, prefix: str, into: dict[str, Tensor]) -> None:
        """Copies the saved tensors named ``prefix`` + name into existing tensors."""
        if not self._saved:
            return
        try:
            with torch.no_grad():
                for name, tensor in into.items():
                    tensor.copy_(shard_like(self._saved[prefix + name].to(tensor.device), tensor))
        except (KeyError, RuntimeError) as error:
            raise self._damaged(error) from error

    def begin(self, *, weight_decay: float) -> None:
        """Builds the optimizers and restores their saved state. The model must be on its device and distributed."""
        self.optimizers = optim.build(self.model, weight_decay=weight_decay)
        if self._ema:
            self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            if any(name.startswith("average.") for name in self._saved):
                self._load("average.", self.average)
        if self._saved:
            try:
                optim.load_state_tensors(self.optimizers, self._part("optimizer."))
            except (KeyError, RuntimeError, ValueError) as error:
                raise self._damaged(error) from error
        self._saved = {}

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in self._saved.items() if name.startswith(prefix)}

    def update_ema(self) -> None:
        """Updates the moving average. Call it after an optimizer step."""
        if self.average:
            now = self.model.state_dict()
            decay = min(self._ema, (1 + self.progress.step) / (10 + self.progress.step))
            torch._foreach_lerp_(list(self.average.values()), [now[name].detach() for name in self.average], 1 - decay)

    @contextmanager
    def using_average(self) -> Iterator[None]:
        """Context: the model has its averaged weights, for validation, samples and checkpoints."""
        if not self.average:
            yield
            return
        now = self.model.state_dict()
        kept = {name: tensor.detach().clone() for name, tensor in now.items()}
        with torch.no_grad():
            for name, tensor in now.items():
                tensor.copy_(self.average[name])
            try:
                yield
            finally:
                for name, tensor in now.items():
                    tensor.copy_(kept[name])

    def weights(self) -> dict[str, Tensor]:
        """A copy of the model's whole weights on the CPU. Collective: all processes must call it."""
        now = self.model.state_dict()
        return {name: gather(tensor.detach()).to("cpu", copy=True).contiguous() for name, tensor in now.items()}

    def save(self, about: dict[str, Any]) -> None:
        """Saves state and checkpoint. Raises ``TrainingError`` if the disk cannot be written, or if weights are not finite;
        earlier files then stay unchanged.
        """
        weights = self.weights()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
            raise TrainingError(f"weights are not finite at step {self.progress.step}; the last save is kept")
        state = {f"model.{name}": tensor for name, tensor in weights.items()}
        state |= {f"average.{name}": gather(tensor).cpu().contiguous() for name, tensor in self.average.items()}
        state |= {f"optimizer.{name}": tensor for name, tensor in optim.state_tensors(self.optimizers).items()}
        if not self.here.first:
            return
        run = {"model": self.model.config.to_dict(), "progress": self.progress.to_dict(), **about}
        try:
            with replacing(self.folder / STATE) as part:
                save_file(state, part, {"run": json.dumps(run)})
        except (OSError, SafetensorError) as error:
            raise self._unwritable(error, self.folder) from error
        self.publish(self.folder, weights, about)

    def publish(self, folder: Path, weights: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Writes a checkpoint for evaluation and export."""
        try:
            save_weights(weights, self.model.config, folder, progress=self.progress.to_dict(), **about)
        except (OSError, SafetensorError) as error:
            raise self._unwritable(error, folder) from error

    def _unwritable(self, error: Exception, folder: Path) -> TrainingError:
        return TrainingError(f"{folder}: cannot be written at step {self.progress.step} ({error}); the last save is intact")
