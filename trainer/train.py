"""The training loop: reads top to bottom, resumes exactly, loses at most the last interval.

    perceivers-live train DATA --preset small --out runs/small --steps 4000

A run's folder holds what a resumed run needs in one file, so that it is written whole or not at all (``state.safetensors``),
the newest checkpoint (``config.json``, ``model.safetensors``), the best one by validation (``best/``) and ``log.jsonl``. Every
example is drawn from a generator seeded by its step, so a resumed run sees what the unbroken one would have seen.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from engine.checkpoint import save_model
from engine.config import PRESETS, CheckpointError, ModelConfig
from engine.model import PerceiverS, losses
from trainer import optimizer as optim
from trainer.data import Corpus, DataError
from trainer.initialise import initialise
from trainer.segmentation import Example, Segmentation, batch

log = logging.getLogger(__name__)
VALIDATION_SEED = 1 << 32
STATE = "state.safetensors"


@dataclasses.dataclass(frozen=True)
class Training:
    """Settings of a run. ``batch`` counts examples of ``segmentation.latents`` targets."""

    preset: str = "small"
    steps: int = 4000
    batch: int = 4
    learning_rate: float = 3e-3
    warmup: int = 50
    cooldown: float = 0.3
    weight_decay: float = 0.02
    clip: float = 1.0
    seed: int = 0
    validate_every: int = 250
    validation_batches: int = 6
    save_every: int = 100
    compile: bool = False
    segmentation: Segmentation = dataclasses.field(default_factory=Segmentation)


def event_losses(
    model: PerceiverS, example: Example, hidden: Callable[..., torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats of each target event [B, N, 3] and the weights [B, N]. ``hidden`` stands in for ``model.hidden``, compiled."""
    device = next(model.parameters()).device
    events, ages, positions, targets, legal, weight = (torch.from_numpy(part).to(device) for part in example)
    z = (hidden or model.hidden)(events.long(), ages, positions, targets.shape[1])
    targets = targets.long()
    return losses(model.head(z, targets[..., 0], targets[..., 1]), targets, legal), weight


def validate(model: PerceiverS, corpus: Corpus, training: Training) -> float:
    """Nats an event on fixed stretches of the validation pieces, not augmented."""
    pieces = corpus.split("validation")
    how = dataclasses.replace(training.segmentation, transpose=0, stretch=0.0, loudness=0, cold=0.0)
    total = count = 0.0
    model.eval()
    with torch.inference_mode():
        for i in range(training.validation_batches):
            example = batch(corpus, pieces, training.batch, how, np.random.default_rng(VALIDATION_SEED + i))
            nats, weight = event_losses(model, example)
            total += (nats.sum(-1) * weight).sum().item()
            count += weight.sum().item()
    model.train()
    return total / count


def batches(corpus: Corpus, training: Training, first: int) -> Iterator[Example]:
    """Examples of step ``first`` and on; the next one is made while the current one is used."""
    pieces = corpus.split("train")

    def make(step: int) -> Example:
        return batch(corpus, pieces, training.batch, training.segmentation, np.random.default_rng((training.seed, step)))

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make, first)
        for step in range(first, training.steps):
            example, ahead = ahead.result(), pool.submit(make, step + 1)
            yield example


class Run:
    """A run's folder: the model, its optimizers and how far it has come."""

    def __init__(self, folder: Path, training: Training, init: Path | None = None) -> None:
        self.folder, self.training = folder, training
        self.step, self.best, self.seconds, self.events = 0, math.inf, 0.0, 0
        if (folder / STATE).exists():
            self._resume()
            return
        if (folder / "config.json").exists():
            raise CheckpointError(f"{folder}: a checkpoint, but no run that could be resumed ({STATE} is missing)")
        torch.manual_seed(training.seed)
        self.model = PerceiverS(PRESETS[training.preset])
        if init is not None:
            initialise(self.model, init)
        self.optimizers = optim.build(self.model, weight_decay=training.weight_decay)

    def _resume(self) -> None:
        path = self.folder / STATE
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["run"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
            self.model = PerceiverS(ModelConfig.from_dict(about["model"]))
            self.model.load_state_dict(weights)
            self.optimizers = optim.build(self.model, weight_decay=self.training.weight_decay)
            prefix = "optimizer."
            optim.load_state_tensors(
                self.optimizers, {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            )
            self.step, best = about["progress"]["step"], about["progress"]["best"]
            self.best = math.inf if best is None else best
            self.seconds, self.events = about["progress"]["seconds"], about["progress"]["events"]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: cannot be resumed ({type(error).__name__}: {str(error).splitlines()[0]})") from error

    def progress(self) -> dict[str, float | int | None]:
        best = self.best if math.isfinite(self.best) else None
        return {"step": self.step, "best": best, "seconds": round(self.seconds, 1), "events": self.events}

    def save(self) -> None:
        """Raises ``FloatingPointError`` rather than put weights that are no numbers in the place of good ones."""
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise FloatingPointError(f"the weights are no numbers at step {self.step}; the last checkpoint is in {self.folder}")
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {f"model.{name}": value.contiguous() for name, value in self.model.state_dict().items()}
        state |= {f"optimizer.{name}": value for name, value in optim.state_tensors(self.optimizers).items()}
        about = {"model": self.model.config.to_dict(), "progress": self.progress()}
        save_file(state, self.folder / "state.part", {"run": json.dumps(about)})
        (self.folder / "state.part").replace(self.folder / STATE)
        save_model(self.model, self.folder, progress=self.progress(), training=dataclasses.asdict(self.training))

    def note(self, **row: float) -> None:
        with (self.folder / "log.jsonl").open("a") as lines:
            lines.write(json.dumps({"step": self.step, "seconds": round(self.seconds, 1), **row}) + "\n")


def train(
    corpus: Corpus, folder: Path, training: Training, stop: threading.Event | None = None, *, init: Path | None = None
) -> Run:
    """Trains until ``training.steps`` or until ``stop`` is set; saves in both cases. ``init``: a checkpoint that a new run begins
    from. Raises ``DataError`` without data and
    ``FloatingPointError`` if the loss stops being a number (the last checkpoint is kept).
    """
    if not corpus.split("train") or not corpus.split("validation"):
        raise DataError("the data needs at least one training and one validation piece")
    torch.set_flush_denormal(True)  # before the first parallel region: denormals in young gradients cost a CPU seconds a step
    run = Run(folder, training, init)
    hidden = torch.compile(run.model.hidden, dynamic=False) if training.compile else run.model.hidden
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=training.steps, initial=run.step, unit="step", desc="training", mininterval=5)
    smooth = 0.0
    for example in batches(corpus, training, run.step):
        began = time.perf_counter()
        value = optim.rate(
            run.step, peak=training.learning_rate, warmup=training.warmup, steps=training.steps, cooldown=training.cooldown
        )
        optim.set_rate(run.optimizers, value)
        nats, weight = event_losses(run.model, example, hidden)
        loss = (nats.sum(-1) * weight).sum() / weight.sum()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {run.step}; the last checkpoint is in {folder}")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), training.clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"the gradient is {norm.item()} at step {run.step}; the last checkpoint is in {folder}")
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        run.step += 1
        run.seconds += time.perf_counter() - began
        run.events += int(weight.sum().item())
        smooth = loss.item() if not smooth else 0.95 * smooth + 0.05 * loss.item()
        bar.set_postfix(loss=f"{smooth:.3f}", refresh=False)
        bar.update()
        if run.step % 25 == 0:
            run.note(loss=round(smooth, 4), rate=value)
        if run.step % training.validate_every == 0 or run.step == training.steps:
            score = validate(run.model, corpus, training)
            run.note(validation=round(score, 4))
            bar.write(f"step {run.step}: validation {score:.4f} nats an event")
            if score < run.best:  # never true for a score that is no number
                run.best = score
                save_model(run.model, folder / "best", progress=run.progress(), training=dataclasses.asdict(training))
        last = run.step == training.steps or (stop is not None and stop.is_set())
        if last or run.step % training.save_every == 0:
            run.save()
        if last:
            break
    bar.close()
    return run
