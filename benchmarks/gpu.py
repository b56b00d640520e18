"""The runtimes for GPUs compared: python -m benchmarks.gpu [--preset base] [--history 32768] [--count 400] [--json FILE]

Milliseconds an event, including sampling, on one model with random weights (they do not influence the time):

    eager            PyTorch, an operator at a time
    torch.compile    the same code, compiled by Inductor
    cuda             the same code, captured as CUDA graphs: the runtime `cuda`
    tensorrt         TensorRT plans inside CUDA graphs: the runtime `tensorrt`; its plans are compiled first, which is not timed

Without an NVIDIA GPU, the first two are measured on the CPU, and the reason for leaving out the others is printed.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from engine.checkpoint import save_model
from engine.config import PRESETS
from engine.engine import Engine
from engine.model import PerceiverS
from engine.runtimes import CHUNKS, Runtime, RuntimeUnavailable, pytorch
from engine.runtimes.tensorrt.cache import PlanCache
from engine.runtimes.tensorrt.compile_process import compile_missing
from engine.sampling import Steering, sampling_bias
from perceivers_live.commands.bench import Row, improvised, machine, row, timed

WARM_UP = 20  # events, before any is timed


def on_device(checkpoint: Path, instead: Callable[..., Any] | None = None) -> Runtime:
    """PyTorch's runtime on the GPU, otherwise on the CPU; ``instead`` replaces the capture of CUDA graphs."""
    usual = pytorch.captured
    pytorch.captured = instead or usual
    try:
        return pytorch.TorchRuntime(checkpoint, "cuda" if torch.cuda.is_available() else "eager")
    finally:
        pytorch.captured = usual


def cuda(checkpoint: Path) -> Runtime:
    return pytorch.TorchRuntime(checkpoint, "cuda")


def tensorrt(checkpoint: Path) -> Runtime:
    from engine.runtimes.tensorrt.runtime import PRECISION, TensorRTRuntime

    cache = PlanCache(checkpoint / "plans")
    compile_missing(checkpoint, PRECISION, CHUNKS, cache)
    runtime = TensorRTRuntime(checkpoint, cache=cache)
    if runtime.serving != "tensorrt":
        raise RuntimeUnavailable("the plans do not run here; see the log")
    return runtime


WAYS: dict[str, Callable[[Path], Runtime]] = {
    "eager": lambda checkpoint: on_device(checkpoint, lambda run, *_: run),
    "torch.compile": lambda checkpoint: on_device(checkpoint, lambda run, *_: torch.compile(run)),
    "cuda": cuda,
    "tensorrt": tensorrt,
}


def event(engine: Engine, seed: int) -> None:
    """Generates one event as when playing: bias, decision, absorbing; waits for the device."""
    own = set(engine.sounding.held().tolist())
    asked = sampling_bias(engine.sounding, Steering(), np.random.default_rng(seed), own=own, own_pedal=True)
    engine.absorb([engine.decide(asked)])
    engine.hidden()


def measure(checkpoint: Path, history: int, count: int) -> Iterator[Row]:
    for name, way in WAYS.items():
        try:
            engine = Engine(way(checkpoint))
            engine.absorb(improvised(history, np.random.default_rng(0)))
            for seed in range(WARM_UP):
                event(engine, seed)
        except Exception as reason:  # compilers raise many types
            if not isinstance(reason, RuntimeUnavailable):
                traceback.print_exc()
            click.echo(f"{name:16}not here: {str(reason).strip().splitlines()[0] if str(reason).strip() else repr(reason)}")
            continue
        one = row(name, [timed(lambda engine=engine, seed=seed: event(engine, seed)) for seed in range(WARM_UP, WARM_UP + count)])
        click.echo(f"{one.name:16}{one.p50:9.3f}{one.p95:9.3f}{one.p99:9.3f}{one.max:9.3f}{one.n:7}")
        yield one
        engine.runtime.close()


@click.command()
@click.option("--preset", type=click.Choice(list(PRESETS)), default="base", show_default=True)
@click.option("--history", default=32768, show_default=True, help="Events of history.")
@click.option("--count", default=400, show_default=True, help="Events that are timed.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here as well.")
def main(preset: str, history: int, count: int, json_file: Path | None) -> None:
    torch.manual_seed(0)
    model = PerceiverS(PRESETS[preset]).eval()
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    click.echo(f"{machine()}; {device}; {preset}, {size:.1f} M parameters, {history} events of history; ms an event")
    click.echo(f"{'':16}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'n':>7}")
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        rows = list(measure(Path(folder), history, count))
    if json_file is not None:
        json_file.write_text(
            json.dumps({"machine": machine(), "device": device, "rows": [dataclasses.asdict(one) for one in rows]})
        )


if __name__ == "__main__":
    main()
