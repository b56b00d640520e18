"""Time of a step and an event, compared with another version: python -m benchmarks.steps OTHER [--rounds 20] [--window 256]

OTHER is a checkout of the other version (``git worktree add OTHER REVISION``), which runs its own code and its own bundled
checkpoint. With ``--window``, this version runs a model with random weights and that window in the latent layers. Each version is
a separate process. They take turns, so that other load on the machine affects both. Prints the time in ms to absorb 1 (``step``),
8 and 64 events, and to sample and absorb one (``event``); and the speed-up: the other version's p50 divided by this version's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np

HERE = Path(__file__).parents[1]
ROWS = ("step", "event", "absorb 8", "absorb 64")
HISTORY = 9000  # events; more than the longest scale


class Version:
    """A process that runs a version's code. ``root``: its checkout. Raises ``click.ClickException`` if the process fails to
    start.
    """

    def __init__(self, root: Path, int8: bool, window: int) -> None:
        command = [sys.executable, __file__, "--serve", str(root), *(["--int8"] if int8 else []), "--window", str(window)]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        if self._read_line() != "ready":
            raise click.ClickException(f"{root}: the version's process has failed; see its message above")

    def measure(self, row: str, count: int) -> list[float]:
        """The times of ``count`` repetitions of a row of ``ROWS`` in ms."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([row, count]) + "\n")
        self._process.stdin.flush()
        taken: list[float] = json.loads(self._read_line())
        return taken

    def close(self) -> None:
        self._process.communicate()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def serve(int8: bool, window: int) -> None:
    """Runs in a version's process: answers requests until its input ends. Only this function and ``random_model`` import the
    version's code.
    """
    from engine import sampling
    from engine.checkpoint import bundled
    from engine.engine import Engine
    from engine.events import Event
    from engine.runtimes.onnx import OnnxRuntime

    with tempfile.TemporaryDirectory() as name:
        checkpoint = random_model(Path(name), window, int8) if window else bundled()
        engine = Engine(OnnxRuntime(checkpoint, int8=int8))
    rng = np.random.default_rng(0)
    make_bias = getattr(sampling, "sampling_bias", None) or vars(sampling)["odds"]  # the earlier names
    make_controls = getattr(sampling, "SamplingControls", None) or vars(sampling)["Steering"]

    def event(seed: int) -> None:
        own = set(engine.sounding.held().tolist())
        bias = make_bias(engine.sounding, make_controls(), np.random.default_rng(seed), own=own, own_pedal=True)
        engine.absorb([engine.decide(bias)])

    def improvised(count: int, rng: np.random.Generator) -> list[Event]:
        pitches = [int(pitch) for pitch in rng.integers(30, 90, count // 2 + 1)]
        return [event for pitch in pitches for event in (Event(10, pitch, 20), Event(10, 128 + pitch))][:count]

    def timed(action: Callable[[], object]) -> float:
        began = time.perf_counter()
        action()
        return (time.perf_counter() - began) * 1000

    engine.absorb(improvised(HISTORY, rng))
    actions: dict[str, Callable[[int], object]] = {
        "step": lambda seed: engine.absorb(improvised(1, rng)),
        "event": event,
        "absorb 8": lambda seed: engine.absorb(improvised(8, rng)),
        "absorb 64": lambda seed: engine.absorb(improvised(64, rng)),
    }
    print("ready", flush=True)
    for line in sys.stdin:
        row, count = json.loads(line)
        print(json.dumps([timed(partial(actions[row], seed)) for seed in range(count)]), flush=True)


def random_model(folder: Path, window: int, int8: bool) -> Path:
    """Writes a model of the bundled shape with another window. Its weights are random, which does not affect the time."""
    import torch

    from engine.checkpoint import bundled, read_config, save_model
    from engine.model import PerceiverS
    from trainer.export import write_onnx

    model = PerceiverS(dataclasses.replace(read_config(bundled())[0], window=window)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    save_model(model, folder)
    write_onnx(model, folder, int8=int8)
    return folder


@click.command()
@click.argument("other", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rounds", default=20, show_default=True, help="Turns of each version.")
@click.option("--window", default=0, help="Latent window of this version's model; 0: the bundled model.")
@click.option("--serve", "serving", is_flag=True, hidden=True)
@click.option("--int8", is_flag=True, hidden=True)
def main(other: Path, rounds: int, window: int, serving: bool, int8: bool) -> None:
    if serving:
        serve(int8, window)
        return
    print(f"{'':24}{'other p50':>11}{'p99':>8}{'this p50':>11}{'p99':>8}{'speed-up':>15}")
    for int8 in (False, True):
        versions = [Version(other.resolve(), int8, 0), Version(HERE, int8, window)]
        for row in ROWS:
            count = 4 if row == "absorb 64" else 20
            taken: list[list[float]] = [[], []]
            for _ in range(rounds):
                for times, version in zip(taken, versions, strict=True):
                    times += version.measure(row, count)
            (old, old99), (new, new99) = (np.percentile(times, [50, 99]) for times in taken)
            name = f"{row}, {'int8' if int8 else 'float32'}"
            print(f"{name:24}{old:11.2f}{old99:8.2f}{new:11.2f}{new99:8.2f}{old / new:15.2f}", flush=True)
        for version in versions:
            version.close()


if __name__ == "__main__":
    main()
