"""Latency of the engine on this machine: python benchmarks/latency.py [--checkpoint FOLDER] [--runtime onnx] [--threads N]

Prints p50/p95/p99 in ms for absorbing 1, 8 and 64 events and for a whole decision with sampling (decide and absorb), with the
rings full, and the start-up time. The last column is the ratio of the p50 to that of reading as many bytes as a step reads
(weights and rings), copied by numpy in the same run.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from engine.checkpoint import bundled
from engine.engine import Engine
from engine.events import Event
from engine.runtimes import open_runtime
from engine.runtimes.onnx import STEP_FILE, STEP_INT8_FILE
from engine.sampling import Steering, odds


def improvised(count: int, rng: np.random.Generator) -> list[Event]:
    """Legal events: each key that is down comes up again."""
    events: list[Event] = []
    while len(events) < count:
        pitch = int(rng.integers(30, 90))
        events += [Event(int(rng.integers(0, 30)), pitch, int(rng.integers(32))), Event(int(rng.integers(1, 30)), 128 + pitch)]
    return events[:count]


def row(name: str, seconds: list[float], floor: float) -> None:
    ms = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    print(f"{name:28}{ms[0]:9.2f}{ms[1]:9.2f}{ms[2]:9.2f}{ms[0] / floor:12.1f}")


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), default=bundled())
@click.option("--runtime", default="auto")
@click.option("--threads", default=0)
@click.option("--count", default=400, help="Measurements of a row.")
def main(checkpoint: Path, runtime: str, threads: int, count: int) -> None:
    began = time.perf_counter()
    engine = Engine(open_runtime(runtime, checkpoint, threads=threads))
    started = time.perf_counter() - began
    rng = np.random.default_rng(0)
    step = STEP_INT8_FILE if engine.runtime.name == "onnx-int8" else STEP_FILE
    rings = sum(ring.nbytes for ring in engine.runtime.rings())
    read = np.ones((rings + (checkpoint / step).stat().st_size) // 8)
    target = np.empty_like(read)
    copies = []
    for _ in range(50):
        began = time.perf_counter()
        np.copyto(target, read)
        copies.append((time.perf_counter() - began) / 2)  # a copy reads and writes
    floor = float(np.median(copies)) * 1000
    began = time.perf_counter()
    engine.absorb(improvised(engine.config.reach + 256, rng))
    filled = time.perf_counter() - began
    history = engine.position + 1
    print(f"runtime {engine.runtime.name}, start-up {started:.2f} s, {history} events of history in {filled:.2f} s")
    print(f"a step reads {read.nbytes / 1e6:.1f} MB: {floor:.2f} ms at the measured {read.nbytes / 1e6 / floor:.1f} GB/s")
    print(f"{'ms':28}{'p50':>9}{'p95':>9}{'p99':>9}{'p50/floor':>12}")
    for size, repeats in ((1, count), (8, count // 4), (64, count // 8)):
        taken = []
        for _ in range(repeats):
            events = improvised(size, rng)
            began = time.perf_counter()
            engine.absorb(events)
            taken.append(time.perf_counter() - began)
        row(f"absorb {size}", taken, floor)
    taken = []
    for i in range(count):
        began = time.perf_counter()
        event = engine.decide(
            odds(engine.sounding, Steering(), np.random.default_rng(i), own=set(engine.sounding.held().tolist()), own_pedal=True)
        )
        engine.absorb([event])
        taken.append(time.perf_counter() - began)
    row("decide + absorb (an event)", taken, floor)


if __name__ == "__main__":
    main()
