"""The training loop: reads top to bottom, resumes exactly, loses at most the last interval.

    perceivers-live train DATA --preset small --out runs/small --steps 4000

A run's folder holds the newest checkpoint (``config.json``, ``model.safetensors``, ``optimizer.safetensors``), the best one by
validation (``best/``) and ``log.jsonl``. Every example is drawn from a generator seeded by its step, so a resumed run sees
what the unbroken one would have seen.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from engine.checkpoint import load_model, read_config, save_model
from engine.config import PRESETS, CheckpointError
from engine.model import PerceiverS, losses
from trainer import optimizer as optim
from trainer.data import Corpus, DataError
from trainer.segmentation import Example, Segmentation, batch

log = logging.getLogger(__name__)
VALIDATION_SEED = 1 << 32


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
    segmentation: Segmentation = dataclasses.field(default_factory=Segmentation)


def event_losses(model: PerceiverS, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats of each target event [B, N, 3] and the weights [B, N]."""
    device = next(model.parameters()).device
    events, ages, positions, targets, legal, weight = (torch.from_numpy(part).to(device) for part in example)
    hidden = model.hidden(events.long(), ages, positions, targets.shape[1])
    targets = targets.long()
    return losses(model.head(hidden, targets[..., 0], targets[..., 1]), targets, legal), weight


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

    def __init__(self, folder: Path, training: Training) -> None:
        self.folder, self.training = folder, training
        self.step, self.best, self.seconds, self.events = 0, math.inf, 0.0, 0
        if (folder / "config.json").exists():
            self._resume()
        else:
            torch.manual_seed(training.seed)
            self.model = PerceiverS(PRESETS[training.preset])
            self.optimizers = optim.build(self.model, weight_decay=training.weight_decay)

    def _resume(self) -> None:
        _, extra = read_config(self.folder)
        progress = extra.get("progress", {})
        self.model = load_model(self.folder).train()
        self.optimizers = optim.build(self.model, weight_decay=self.training.weight_decay)
        state = load_file(self.folder / "optimizer.safetensors")
        if state.pop("step").item() != progress.get("step"):
            raise CheckpointError(f"{self.folder}: weights and optimizer are of different steps")
        optim.load_state_tensors(self.optimizers, state)
        self.step, self.best = progress["step"], progress["best"] if progress["best"] is not None else math.inf
        self.seconds, self.events = progress["seconds"], progress["events"]

    def progress(self) -> dict[str, float | int | None]:
        best = self.best if math.isfinite(self.best) else None
        return {"step": self.step, "best": best, "seconds": round(self.seconds, 1), "events": self.events}

    def save(self) -> None:
        """The whole state in a new folder that then takes the old one's place file by file, config last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = optim.state_tensors(self.optimizers) | {"step": torch.tensor(self.step)}
        save_file(state, self.folder / "optimizer.part")
        (self.folder / "optimizer.part").rename(self.folder / "optimizer.safetensors")
        save_model(self.model, self.folder, progress=self.progress(), training=dataclasses.asdict(self.training))

    def note(self, **row: float) -> None:
        with (self.folder / "log.jsonl").open("a") as lines:
            lines.write(json.dumps({"step": self.step, "seconds": round(self.seconds, 1), **row}) + "\n")


def train(corpus: Corpus, folder: Path, training: Training, stop: threading.Event | None = None) -> Run:
    """Trains until ``training.steps`` or until ``stop`` is set; saves in both cases. Raises ``DataError`` without data and
    ``FloatingPointError`` if the loss stops being a number (the last checkpoint is kept).
    """
    if not corpus.split("train") or not corpus.split("validation"):
        raise DataError("the data needs at least one training and one validation piece")
    torch.set_flush_denormal(True)  # before the first parallel region: denormals in young gradients cost a CPU seconds a step
    run = Run(folder, training)
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=training.steps, initial=run.step, unit="step", desc="training", mininterval=5)
    smooth = 0.0
    for example in batches(corpus, training, run.step):
        began = time.perf_counter()
        value = optim.rate(
            run.step, peak=training.learning_rate, warmup=training.warmup, steps=training.steps, cooldown=training.cooldown
        )
        optim.set_rate(run.optimizers, value)
        nats, weight = event_losses(run.model, example)
        loss = (nats.sum(-1) * weight).sum() / weight.sum()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {run.step}; the last checkpoint is in {folder}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), training.clip)
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
            if score < run.best:
                run.best = score
                save_model(run.model, folder / "best", progress=run.progress(), training=dataclasses.asdict(training))
        last = run.step == training.steps or (stop is not None and stop.is_set())
        if last or run.step % training.save_every == 0:
            run.save()
        if last:
            break
    bar.close()
    return run
