"""The largest model that is fast enough on this computer: python -m benchmarks.sizes [--limit-ms 10]

Exports models of increasing size with random weights, which does not affect the time. Prints p50, p95 and p99 of the time to
absorb one event with full rings in ms, with float32 and with int8 weights; and the largest model whose p99 is within the limit.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
import warnings
from pathlib import Path

import click
import numpy as np
import torch

from engine.checkpoint import save_model
from engine.config import PRESETS
from engine.engine import Engine
from engine.model import PerceiverS
from engine.runtimes.onnx import OnnxRuntime
from perceivers_live.commands.measuring import improvised
from trainer.export import write_onnx

SHAPES = ((4, 256), (8, 256), (12, 256), (8, 384), (12, 384), (16, 384), (12, 512), (16, 512))  # layers, width


def step_times(runtime: OnnxRuntime, count: int) -> np.ndarray:
    """The times to absorb single events with full rings in ms, [count]."""
    rng = np.random.default_rng(0)
    engine = Engine(runtime)
    engine.absorb(improvised(engine.config.reach + engine.config.slack, rng))
    taken = []
    for event in improvised(count, rng):
        began = time.perf_counter()
        engine.absorb([event])
        taken.append(time.perf_counter() - began)
    return np.array(taken) * 1000


@click.command()
@click.option("--limit-ms", default=10.0, show_default=True)
@click.option("--threads", default=0, show_default=True)
@click.option("--count", default=400, show_default=True, help="Measured events per row.")
def main(limit_ms: float, threads: int, count: int) -> None:
    warnings.simplefilter("ignore")
    print(f"{'layers':>7}{'width':>7}{'M parameters':>14}{'weights':>9}{'p50':>8}{'p95':>8}{'p99':>8}")
    largest = "none"
    for layers, width in SHAPES:
        config = dataclasses.replace(PRESETS["small"], layers=layers, width=width, heads=width // 64)
        torch.manual_seed(0)
        model = PerceiverS(config).eval()
        size = sum(p.numel() for p in model.parameters()) / 1e6
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_model(model, folder)
            write_onnx(model, folder, int8=True)
            for int8 in (False, True):
                p50, p95, p99 = np.percentile(step_times(OnnxRuntime(folder, threads=threads, int8=int8), count), [50, 95, 99])
                weights = "int8" if int8 else "float32"
                print(f"{layers:7}{width:7}{size:14.1f}{weights:>9}{p50:8.2f}{p95:8.2f}{p99:8.2f}", flush=True)
                if p99 <= limit_ms:
                    largest = f"{size:.1f} M parameters ({layers} layers of width {width}) with {weights} weights"
    print(f"largest within {limit_ms:g} ms at p99: {largest}")


if __name__ == "__main__":
    main()
