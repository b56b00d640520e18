"""Ablations of PerceiverS at equal budgets: python -m benchmarks.ablations FOLDER_OF_MIDI [--steps 300]

Trains small models that differ in one setting each, on the same number of events, two at a time with one thread each. Prints the
loss on the same validation music in nats per event: on random excerpts (`validation`), and on the first 256 events of every piece
(`openings`), where Effective Segmentation should help. Each model trains for a few minutes only, so the results do not show how
the variants compare after full training.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from engine.checkpoint import load_model
from engine.folders import cache_folder
from trainer.data import Corpus, DataError, prepare
from trainer.likelihood import forward_losses, piece_events
from trainer.segmentation import Segmentation
from trainer.settings import Training, changed, model_config
from trainer.train import train

MODEL = ("width=128", "heads=4", "kv_heads=2", "layers=3", "scales=256,4096", "window=256")
TARGETS, BATCH = 256, 8  # of an example; in a step: a block mask has all targets within one window
EXAMPLES = (f"latents={TARGETS}", "context=4096", "near=512", "sampled=1024")
VARIANTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("default: two scales, cascade, band, effective", (), ()),
    ("traditional segmentation", (), ("draw=traditional",)),
    ("long scale first", ("scales=4096,256",), ()),
    ("one short scale, one more layer", ("scales=256", "layers=4"), ()),
    ("one long scale, one more layer", ("scales=4096", "layers=4"), ()),
    ("sum instead of cascade", ("combine=sum",), ()),
    ("block mask", ("mask=block",), ()),
    ("rotary over time on half of the heads", ("rotary=half-time",), ()),
    ("sliding window only, one layer for each scale", ("scales=", "layers=5"), ()),
)


def opening_loss(folder: Path, corpus: Corpus, length: int = 256) -> float:
    """Mean loss in nats per event over the first ``length`` events of every validation piece."""
    model = load_model(folder)
    sums = np.zeros(2)
    with torch.inference_mode():
        for piece in corpus.split("validation"):
            events = piece_events(corpus, piece)
            nats = forward_losses(model, events, 0, 0, min(length, len(events) - 1)).sum(-1)
            sums += nats.sum(), len(nats)
    return float(sums[0] / sums[1])


def measure(
    variant: tuple[str, tuple[str, ...], tuple[str, ...]], cache: Path, steps: int, seed: int
) -> tuple[str, float, float, float, float]:
    """Trains a variant (name, model settings, segmentation settings).

    Returns its name, millions of parameters, loss on excerpts and on openings in nats per event, and training time in seconds.
    """
    name, model, examples = variant
    torch.set_num_threads(1)
    corpus = Corpus(cache)
    segmentation = changed(Segmentation(), (*EXAMPLES, *examples))
    training = Training(
        steps=steps,
        batch=BATCH,
        validate_every=steps,
        validation_batches=24,
        samples=False,
        workers=0,
        seed=seed,
        segmentation=segmentation,
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = train(corpus, Path(folder), training, config=model_config("small", (*MODEL, *model)))
        seconds = time.perf_counter() - began
        size = sum(p.numel() for p in run.model.parameters()) / 1e6
        return name, size, run.progress.best, opening_loss(Path(folder) / "best", corpus), seconds


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--cache", type=click.Path(path_type=Path), default=cache_folder() / "data")
@click.option("--steps", default=300, show_default=True, help=f"Optimizer steps of {BATCH} examples of {TARGETS} targets.")
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Number of models trained at the same time.")
def main(data: Path, cache: Path, steps: int, seed: int, jobs: int) -> None:
    try:
        corpus = prepare(data, cache)
    except DataError as error:
        raise click.ClickException(str(error)) from error
    print(f"{steps} steps, {steps * BATCH * TARGETS / 1e6:.2f} M events each, seed {seed}")
    print(f"{'':50}{'M parameters':>13}{'validation':>12}{'openings':>10}{'seconds':>9}")
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name, *row in pool.map(partial(measure, cache=corpus, steps=steps, seed=seed), VARIANTS):
            print(f"{name:50}{row[0]:13.2f}{row[1]:12.4f}{row[2]:10.4f}{row[3]:9.0f}", flush=True)


if __name__ == "__main__":
    main()
