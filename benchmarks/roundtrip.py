"""Round trips to another process: python -m benchmarks.roundtrip [--count 2000] [--rounds 5] [--load]

Measures, in turns, a pipe of Python's ``multiprocessing``, which pickles, and the frames of ``engine.remote``. The call is empty
(``empty``) or a decision (``decide``, with biases and noise), of a runtime that answers at once. Last, an event of the bundled
model, absorbed and decided. ``--load`` keeps every core busy meanwhile. Prints µs.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np

from engine.checkpoint import bundled
from engine.config import PRESETS
from engine.events import ACTIONS, VELOCITY_BINS, WAITS
from engine.remote.address import Address
from engine.remote.runtime import RemoteRuntime, local_process
from engine.remote.serve import serve, standard_streams
from engine.runtimes import SamplingBias
from engine.sampling import NOISES
from engine.sounding import AGES
from perceivers_live.commands.measuring import machine, row

WARMUP = 100
RNG = np.random.default_rng(0)
BIASES = [RNG.random(size).astype(np.float32) for size in (WAITS, ACTIONS, VELOCITY_BINS, NOISES)]
BIAS = SamplingBias(*BIASES[:3], 1.0, 0.02, BIASES[3])
EVENT = np.array([[10, 60, 16]], np.int64), np.full((1, AGES), -1, np.int16), np.array([10], np.int64)


class Echo:
    """A runtime that answers at once."""

    name, config, step_bytes, warm_for = "echo", PRESETS["small"], 0, None

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int]:
        return 10, 60, 16

    def keep_warm(self) -> None:
        pass

    close = keep_warm


def answer_pickled(connection: Connection) -> None:
    runtime = Echo()
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        connection.send(("", getattr(runtime, method)(*arguments)))


class Pickled:
    """The same calls over a ``multiprocessing`` pipe."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=answer_pickled, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: object) -> object:
        self._connection.send((method, arguments))
        assert self._connection.poll(1.0)
        return self._connection.recv()[1]

    def close(self) -> None:
        self._connection.close()
        self._process.join()


def taken(ask: Callable[[], object], count: int) -> list[float]:
    """Microseconds of each of ``count`` calls."""
    times = []
    for _ in range(count + WARMUP):
        began = time.perf_counter()
        ask()
        times.append(1e6 * (time.perf_counter() - began))
    return times[WARMUP:]


def busy() -> None:
    os.nice(5)
    while True:
        pass


@click.command()
@click.option("--count", default=2000, show_default=True, help="Round trips of each kind in a round.")
@click.option("--rounds", default=5, show_default=True, help="Turns of each.")
@click.option("--load", is_flag=True, help="Keep every core busy.")
@click.option("--serve", "serving", is_flag=True, hidden=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(count: int, rounds: int, load: bool, serving: bool, json_file: Path | None) -> None:
    if serving:
        serve(standard_streams(), Echo, bundled())  # type: ignore[arg-type]
        return
    pickled = Pickled()
    framed = RemoteRuntime(Address((sys.executable, "-m", "benchmarks.roundtrip", "--serve"), "echo", local=True))
    model = local_process("onnx", bundled())

    def event() -> None:
        model.step(*EVENT, 1)
        model.decide(1, BIAS)

    asked: dict[str, tuple[Callable[[], object], int]] = {
        "empty, pickled": (lambda: pickled.ask("keep_warm"), count),
        "empty, framed": (framed.ping, count),
        "decide, pickled": (lambda: pickled.ask("decide", 7, BIAS), count),
        "decide, framed": (lambda: framed.decide(7, BIAS), count),
        "an event of the bundled model, framed": (event, count // 20),
    }
    burners = [multiprocessing.Process(target=busy, daemon=True) for _ in range((os.cpu_count() or 1) if load else 0)]
    for burner in burners:
        burner.start()
    times: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(rounds):
        for name, (ask, times_asked) in asked.items():
            times[name] += taken(ask, times_asked)
    for burner in burners:
        burner.kill()
    pickled.close()
    framed.close()
    model.close()
    rows = [row(name, one, unit="µs") for name, one in times.items()]
    print(f"{machine()}{', every core busy' if load else ''}; round trips between two processes, µs")
    print(f"{'':40}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'n':>8}")
    for one in rows:
        print(f"{one.name:40}{one.p50:9.0f}{one.p95:9.0f}{one.p99:9.0f}{one.max:9.0f}{one.n:8}")
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine(), "rows": [dataclasses.asdict(one) for one in rows]}))


if __name__ == "__main__":
    main()
