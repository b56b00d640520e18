"""The training loop. Resumes exactly; an interruption loses at most the steps since the last save.

    perceivers-live train DATA --preset small --out runs/small --steps 4000
    torchrun --nproc-per-node 8 -m perceivers_live.cli train DATA --preset base --precision bf16 --compile --parallel fsdp

Every example is drawn by a generator that is seeded with its index, so a resumed run, or a run with another number of processes,
gets the same examples as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from engine.config import ModelConfig
from engine.model import PerceiverS, losses
from trainer import optimizer as optim
from trainer.data import Corpus, DataError
from trainer.parallel import World, distribute, gather, last_of_step, summed
from trainer.run import Run, TrainingError
from trainer.samples import write_sample
from trainer.segmentation import Example, Examples
from trainer.settings import Training, model_config

log = logging.getLogger(__name__)
T = TypeVar("T")
VALIDATION_SEED = 1 << 32


class Objective(nn.Module):
    """The module that is trained: maps the tensors of an ``Example`` to the nats of its target events, [B, N, 3]."""

    def __init__(self, model: PerceiverS) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        events: Tensor,
        ages: Tensor,
        positions: Tensor,
        times: Tensor,
        multiplicity: Tensor,
        targets: Tensor,
    ) -> Tensor:
        targets, latents = targets.long(), targets.shape[1]
        hidden = self.model.hidden(events.long(), ages, positions, times, latents, multiplicity)
        return losses(self.model.head(hidden, targets[..., 0], targets[..., 1]), targets, ages[:, -latents:])


@contextlib.contextmanager
def fast_arithmetic() -> Iterator[None]:
    """Flushes denormals to zero and allows TensorFloat-32, then restores both: they are states of the thread and the process.

    Denormals in early gradients cost a CPU seconds a step. PyTorch's worker threads inherit the flag when the first parallel
    region starts them. PyTorch has no getter for the flag, so it is detected by a multiplication.
    """
    precision = torch.get_float32_matmul_precision()
    flushed = math.ulp(0.0) * 1.0 == 0.0
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_float32_matmul_precision(precision)


@fast_arithmetic()
def train(
    corpus: Corpus,
    folder: Path,
    training: Training,
    stop: threading.Event | None = None,
    *,
    config: ModelConfig | None = None,
    init: Path | None = None,
    here: World | None = None,
) -> Run:
    """Trains until ``training.steps`` or until ``stop`` is set; saves in both cases.

    ``config``: the model, None: the preset. ``init``: checkpoint with the initial weights of a new run. Raises ``DataError``
    without data, ``CheckpointError`` for a run that cannot be resumed, ``TrainingError`` if training cannot continue.
    """
    here = here or World(0, 1, torch.device("cpu"))
    if not corpus.split("train") or not corpus.split("validation"):
        raise DataError("the data needs at least one training and one validation piece")
    if training.batch % (training.accumulate * here.size):
        raise TrainingError(
            f"--batch {training.batch} is not a multiple of {here.size} processes x --accumulate {training.accumulate}"
        )
    config = config or model_config(training.preset)
    run = Run(folder, config, here, seed=training.seed, init=init, ema=training.ema)
    objective = Objective(run.model)
    forward = distribute(objective, training.parallel, here)
    run.begin(weight_decay=training.weight_decay)
    step = Step(run, forward, training)
    about = {"training": dataclasses.asdict(training), "pedal": corpus.pedal, "data": corpus.folder.name}
    with contextlib.ExitStack() as closing:
        curves = Curves(run, training) if here.first else None
        if curves is not None:
            closing.callback(curves.close)
        if _stale(run, training):
            if curves is not None:
                curves.print("the run has stopped early; a larger --patience continues it")
            return run
        try:
            for parts in batches(corpus, training, here, run.progress.step):
                loss, stopping = step(parts, stop is not None and stop.is_set())
                progress = run.progress
                validated = progress.step % training.validate_every == 0 or progress.step == training.steps
                if validated:
                    _validate_and_publish(run, step.forward, corpus, training, curves, about)
                stale = _stale(run, training)
                if curves is not None:
                    curves.stepped(loss, step.rate, step.norm)
                    if stale:
                        curves.print(f"step {progress.step}: no improvement in {progress.stale} validations, stopping")
                last = progress.step == training.steps or stopping or stale
                if last or progress.step % training.save_every == 0:
                    run.save(about)
                if last:
                    break
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error):
                raise TrainingError(
                    f"out of memory at step {run.progress.step}: raise --accumulate ({training.accumulate}) or lower --batch "
                    f"({training.batch}); the last checkpoint is in {folder}"
                ) from error
            if str(error).startswith("DataLoader worker"):
                raise TrainingError(
                    f"a data loader process was killed at step {run.progress.step}, probably for lack of memory or of space in "
                    f"/dev/shm: lower --workers ({training.workers}) or --batch; the last checkpoint is in {folder}"
                ) from error
            raise
    return run


def _stale(run: Run, training: Training) -> bool:
    """Whether the last ``patience`` validations brought no improvement."""
    return bool(training.patience) and run.progress.stale >= training.patience


class Step:
    """One optimizer step over all processes. ``forward``: the module, compiled if so configured. ``rate`` and ``norm``: learning
    rate and gradient norm before clipping of the last step.
    """

    def __init__(self, run: Run, forward: nn.Module, training: Training) -> None:
        self._run, self._training = run, training
        self._module = forward
        self.forward: Callable[..., Tensor] = forward
        if training.compile:  # a graph break would be without FlexAttention, and silently; ddp and fsdp have breaks of their own
            self.forward = torch.compile(forward, dynamic=False, fullgraph=run.here.size == 1)
        self.rate = self.norm = 0.0

    def __call__(self, parts: list[Example], stop: bool) -> tuple[float, bool]:
        """Takes a step. Returns the mean nats an event, and whether any process must stop. Raises ``TrainingError``."""
        run, training, progress = self._run, self._training, self._run.progress
        began = time.perf_counter()
        self.rate = optim.rate(
            progress.step, peak=training.learning_rate, warmup=training.warmup, steps=training.steps, cooldown=training.cooldown
        )
        optim.set_rate(run.optimizers, self.rate)
        local = sum(float(part.weight.sum()) for part in parts)
        counts = summed(torch.tensor([local, float(stop)], dtype=torch.float64, device=run.here.device), run.here)
        events, stopping = counts[0].item(), counts[1].item() > 0
        total = torch.zeros((), dtype=torch.float64, device=run.here.device)
        for i, part in enumerate(parts):
            last_of_step(self._module, i == len(parts) - 1)
            with autocast(training, run.here):
                nats, weight = _nats(self.forward, part, run.here)
            share = (nats.sum(-1) * weight).sum() / events
            (share * run.here.size).backward()  # the processes' gradients are averaged
            total += share.detach()
        loss = summed(total, run.here).item()
        norm = gather(torch.nn.utils.clip_grad_norm_(run.model.parameters(), training.clip))
        self.norm = norm.item()
        for name, value in (("the loss", loss), ("the gradient", self.norm)):
            if not math.isfinite(value):
                raise TrainingError(f"{name} is {value} at step {progress.step}; the last checkpoint is in {run.folder}")
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        run.update_ema()
        progress.seconds += time.perf_counter() - began
        progress.events += int(events)
        return loss, stopping


def autocast(training: Training, here: World) -> contextlib.AbstractContextManager[object]:
    """Autocast to bfloat16 if ``precision`` is ``bf16``, or if it is ``auto`` and the hardware multiplies bfloat16 faster."""
    bf16 = training.precision == "bf16" or (training.precision == "auto" and fast_bf16(here.device))
    return torch.autocast(here.device.type, torch.bfloat16, enabled=bf16)


def fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32: on GPUs with tensor cores for it, on CPUs with AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and supported()


def _nats(forward: Callable[..., Tensor], example: Example, here: World) -> tuple[Tensor, Tensor]:
    *inputs, weight = (torch.as_tensor(part).to(here.device, non_blocking=True) for part in example)
    return forward(*inputs), weight


def validate(forward: Callable[..., Tensor], corpus: Corpus, training: Training, here: World) -> float:
    """Nats an event on fixed parts of the validation pieces, the same for every ``draw``, without augmentation. The processes
    share the work.
    """
    how = dataclasses.replace(training.segmentation, draw="effective", transpose=0, stretch=0.0, loudness=0, cold=0.0)
    examples = Examples(corpus, corpus.split("validation"), how, VALIDATION_SEED)
    count = training.validation_batches * training.batch
    mine = range(here.rank, count, here.size)
    part = training.batch // (training.accumulate * here.size)  # as in training, so that the compiled forward fits
    loader = DataLoader(examples, batch_size=part, sampler=mine, num_workers=training.workers, worker_init_fn=ignore_stop_signals)
    sums = torch.zeros(2, dtype=torch.float64, device=here.device)
    with torch.no_grad(), autocast(training, here):
        for batch in loaded(loader):  # the same number in every process, because gathering a sharded model is collective
            nats, weight = _nats(forward, batch, here)
            sums += torch.stack(((nats.sum(-1) * weight).sum(), weight.sum()))
    nats_sum, events = summed(sums, here).tolist()
    return float(nats_sum / events)


def _validate_and_publish(
    run: Run, forward: Callable[..., Tensor], corpus: Corpus, training: Training, curves: Curves | None, about: dict[str, Any]
) -> None:
    with run.using_average():
        score = validate(forward, corpus, training, run.here)
        better = score < run.progress.best  # False for NaN
        weights = run.weights()
    run.progress.stale = 0 if better else run.progress.stale + 1
    if better:
        run.progress.best = score
    if curves is None:
        return
    curves.validated(score)
    if better:
        run.publish(run.folder / "best", weights, about)
    if training.samples:
        stem = run.folder / "samples" / f"step-{run.progress.step:07d}"
        write_sample(weights, run.model.config, corpus, stem, seed=training.seed)


def ignore_stop_signals(_: int) -> None:
    """Called in each worker process of a loader. Ctrl-C, systemd and batch systems signal the workers too. The training process
    still needs their batches to finish its step, and ends them itself. With PyTorch's own handlers they would end at once, and
    training would fail without saving.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def loaded(loader: Iterable[T]) -> Iterator[T]:
    """The batches of a loader. An error is raised again without the frames of the loader's iterator. They would keep the iterator
    and so its worker processes, which ignore SIGTERM: the program would wait for them and not end.
    """
    try:
        yield from loader
    except Exception as error:
        error.__context__ = None  # it may have such frames, too
        raise error.with_traceback(None) from None


def batches(corpus: Corpus, training: Training, here: World, first: int) -> Iterator[list[Example]]:
    """This process's parts of the batches from step ``first`` on, prepared by worker processes."""
    examples = Examples(corpus, corpus.split("train"), training.segmentation, training.seed)
    size = training.batch // (training.accumulate * here.size)

    def numbers() -> Iterable[int]:
        for step in range(first, training.steps):
            yield from range(step * training.batch + here.rank, (step + 1) * training.batch, here.size)

    loader = DataLoader(
        examples,
        batch_size=size,
        sampler=numbers(),
        num_workers=training.workers,
        worker_init_fn=ignore_stop_signals,
        pin_memory=here.device.type == "cuda",
    )
    parts: list[Example] = []
    for part in loaded(loader):
        parts.append(part)
        if len(parts) == training.accumulate:
            yield parts
            parts = []


class Curves:
    """Prints and logs the progress of a run, in the first process only."""

    def __init__(self, run: Run, training: Training) -> None:
        self._run, self._smooth = run, 0.0
        first = run.progress.step
        run.folder.mkdir(parents=True, exist_ok=True)
        self._board = SummaryWriter(run.folder / "tensorboard", purge_step=first + 1)  # hides what is after the last save
        self._bar = tqdm(total=training.steps, initial=first, unit="step", desc="training", mininterval=5)

    def stepped(self, loss: float, rate: float, norm: float) -> None:
        step = self._run.progress.step
        self._smooth = loss if not self._smooth else 0.95 * self._smooth + 0.05 * loss
        self._bar.set_postfix(loss=f"{self._smooth:.3f}", refresh=False)
        self._bar.update()
        for name, value in (("loss", loss), ("learning rate", rate), ("gradient norm", norm)):
            self._board.add_scalar(f"training/{name}", value, step)
        if step % 25 == 0:
            self._write_log(loss=round(self._smooth, 4), rate=rate)

    def validated(self, score: float) -> None:
        self._board.add_scalar("validation/nats an event", score, self._run.progress.step)
        self._write_log(validation=round(score, 4))
        self.print(f"step {self._run.progress.step}: validation {score:.4f} nats an event")

    def print(self, text: str) -> None:
        self._bar.write(text)

    def _write_log(self, **row: float) -> None:
        progress = self._run.progress
        try:
            with (self._run.folder / "log.jsonl").open("a") as lines:
                lines.write(json.dumps({"step": progress.step, "seconds": round(progress.seconds, 1), **row}) + "\n")
        except OSError as error:
            raise TrainingError(f"{self._run.folder}: the log cannot be written ({error})") from error

    def close(self) -> None:
        self._bar.close()
        self._board.close()
