"""Throughput and memory of training: python -m benchmarks.training [--preset small]

Prints target events per second of whole steps (forward, backward, optimizer), the peak memory of the process, and the FLOP/s
counted by PyTorch, which on a CPU leaves out attention: also relative to the peak of matrix multiplications in the same process.
The first rows use every event of contexts of 1k, 8k and 32k events. The others sample the older events, as the trainer does by
default, with two latent windows and two batch sizes.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import time
from typing import NamedTuple

import click
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.codec import encode
from engine.config import PRESETS
from engine.events import NOTE_OFF, NOTE_ON, Timed
from engine.model import PerceiverS
from trainer import optimizer as optim
from trainer.data import Actions
from trainer.segmentation import Segmentation, draw
from trainer.train import Objective, fast_arithmetic, fast_bf16

CONTEXTS = (1024, 8192, 32768)
LATENTS = 1024


def improvised(count: int) -> Actions:
    """A random performance of at least ``count`` events; every note-on has a note-off."""
    rng = np.random.default_rng(0)
    timed, now = [], 0.0
    for _ in range(count // 2):
        pitch = int(rng.integers(30, 90))
        timed += [Timed(now, NOTE_ON + pitch, int(rng.integers(20, 110))), Timed(now + 0.08, NOTE_OFF + pitch)]
        now += float(rng.uniform(0.09, 0.2))
    assert len(encode(timed)) > count
    times, actions, velocities = (np.array(column) for column in zip(*timed, strict=True))
    return Actions(times, actions, velocities)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The highest FLOP/s of several large matrix products."""
    a, b = (torch.randn(4096, 1024, device=device).to(dtype) for _ in "ab")
    best = 0.0
    for _ in range(20):
        began = time.perf_counter()
        a @ b.T
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * 4096 * 4096 * 1024 / (time.perf_counter() - began))
    return best


class Row(NamedTuple):
    """A configuration: latent ``window`` and ``context`` in events, examples per step ``batch``, whether older events are
    sampled.
    """

    window: int
    batch: int
    context: int
    sampled: bool


ROWS = (
    *(Row(512, 1, context, False) for context in CONTEXTS),
    *(Row(window, batch, 8192, True) for window, batch in ((512, 4), (512, 8), (256, 4), (256, 8))),
)


@fast_arithmetic()
def measure(row: Row, preset: str, steps: int, bf16: bool, compiled: bool) -> tuple[float, float, float, float]:
    """Target events per second, peak memory in MB, FLOP/s of training, and peak FLOP/s of matrix products."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = matmul_peak(device, torch.bfloat16 if bf16 else torch.float32)
    scales = (1024,) if row.context == 1024 else (1024, row.context)
    config = dataclasses.replace(PRESETS[preset], scales=scales, window=row.window)
    segmentation = Segmentation(latents=LATENTS, context=row.context, cold=0.0, draw="traditional")
    if not row.sampled:
        segmentation = dataclasses.replace(segmentation, near=row.context, sampled=0)
    rng = np.random.default_rng(0)
    examples = [draw(improvised(row.context + 2 * LATENTS), segmentation, rng) for _ in range(row.batch)]
    *inputs, weight = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*examples, strict=True))
    objective = Objective(PerceiverS(config)).to(device)
    forward = torch.compile(objective, dynamic=False) if compiled else objective
    optimizers = optim.build(objective.model, weight_decay=0.02)
    optim.set_rate(optimizers, 1e-3)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            nats = forward(*inputs)
        (nats.sum(-1) * weight).mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    taken = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    seconds = float(np.median(taken))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident
    with FlopCounterMode(display=False) as counter:  # after the memory is read, since counting needs more
        (objective(*inputs).sum(-1) * weight).mean().backward()
    return row.batch * LATENTS / seconds, memory / 1e6, counter.get_total_flops() / seconds, peak


@click.command()
@click.option("--preset", default="small", show_default=True)
@click.option("--steps", default=7, show_default=True, help="Steps per row; their median is printed.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--compile", "compiled", is_flag=True)
def main(preset: str, steps: int, precision: str, compiled: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = precision == "bf16" or (precision == "auto" and fast_bf16(device))
    print(f"preset {preset}, {'bf16' if bf16 else 'fp32'}, {torch.get_num_threads()} threads, {device.type}")
    titles = (
        ("window", 8),
        ("batch", 7),
        ("context", 9),
        ("older events", 14),
        ("events/s", 10),
        ("peak MB", 10),
        ("GFLOP/s", 10),
    )
    print("".join(f"{title:>{width}}" for title, width in (*titles, ("of the peak", 13))))
    for row in ROWS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # a new process, so that the peak memory is this row's
            rate, memory, flops, peak = pool.apply(measure, (row, preset, steps, bf16, compiled))
        older = "sampled" if row.sampled else "all"
        print(
            f"{row.window:8}{row.batch:7}{row.context:9}{older:>14}{rate:10.0f}{memory:10.0f}{flops / 1e9:10.0f}"
            f"{flops / peak:13.2f}"
        )


if __name__ == "__main__":
    main()
