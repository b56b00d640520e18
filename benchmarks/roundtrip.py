"""Latency of a request to the model's process: python -m benchmarks.roundtrip [--count 2000] [--rounds 5] [--load]

Measures round trips in µs through a pickling ``multiprocessing`` pipe (``pickled``) and through the protocol of ``engine.remote``
(``framed``), in turns. The process answers immediately, either an empty request (``empty``) or a decision with biases and noise
(``decide``). The last row is a whole event of the bundled model: it is absorbed, and the next one is decided. ``--load`` keeps
every core busy meanwhile.
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
from perceivers_live.commands.measuring import computer, row

WARMUP = 100  # requests before the measured ones
RNG = np.random.default_rng(0)
WAIT, ACTION, VELOCITY, NOISE = (RNG.random(size).astype(np.float32) for size in (WAITS, ACTIONS, VELOCITY_BINS, NOISES))
BIAS = SamplingBias(WAIT, ACTION, VELOCITY, 1.0, 0.02, NOISE)
EVENT = np.array([[10, 60, 16]], np.int64), np.full((1, AGES), -1, np.int16), np.array([10], np.int64)


class Echo:
    """A runtime that answers immediately, without a model."""

    name, config, step_bytes, warm_for = "echo", PRESETS["small"], 0, None

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int]:
        return 10, 60, 16

    def keep_warm(self) -> None:
        pass

    close = keep_warm


def answer_pickled(connection: Connection) -> None:
    """The process at the other end of the pickling pipe."""
    runtime = Echo()
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        connection.send(("", getattr(runtime, method)(*arguments)))


class PickledClient:
    """Sends requests to ``Echo`` in another process over a ``multiprocessing`` pipe."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child_end = context.Pipe()
        self._process = context.Process(target=answer_pickled, args=(child_end,), daemon=True)
        self._process.start()
        child_end.close()

    def ask(self, method: str, *arguments: object) -> object:
        self._connection.send((method, arguments))
        assert self._connection.poll(1.0)
        return self._connection.recv()[1]

    def close(self) -> None:
        self._connection.close()
        self._process.join()


def measure(request: Callable[[], object], count: int) -> list[float]:
    """The time of each of ``count`` requests in µs, after ``WARMUP`` others."""
    times = []
    for _ in range(count + WARMUP):
        began = time.perf_counter()
        request()
        times.append(1e6 * (time.perf_counter() - began))
    return times[WARMUP:]


def busy() -> None:
    """Keeps a core busy."""
    os.nice(5)
    while True:
        pass


@click.command()
@click.option("--count", default=2000, show_default=True, help="Round trips per turn.")
@click.option("--rounds", default=5, show_default=True, help="Turns of each request.")
@click.option("--load", is_flag=True, help="Keep every core busy.")
@click.option("--serve", "serving", is_flag=True, hidden=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(count: int, rounds: int, load: bool, serving: bool, json_file: Path | None) -> None:
    if serving:
        serve(standard_streams(), Echo, bundled())  # type: ignore[arg-type]
        return
    pickled = PickledClient()
    framed = RemoteRuntime(Address((sys.executable, "-m", "benchmarks.roundtrip", "--serve"), "echo", local=True))
    model = local_process("onnx", bundled())

    def event() -> None:
        model.step(*EVENT, 1)
        model.decide(1, BIAS)

    requests: dict[str, tuple[Callable[[], object], int]] = {
        "empty, pickled": (lambda: pickled.ask("keep_warm"), count),
        "empty, framed": (framed.ping, count),
        "decide, pickled": (lambda: pickled.ask("decide", 7, BIAS), count),
        "decide, framed": (lambda: framed.decide(7, BIAS), count),
        "event of the bundled model, framed": (event, count // 20),
    }
    busy_processes = [multiprocessing.Process(target=busy, daemon=True) for _ in range((os.cpu_count() or 1) if load else 0)]
    for process in busy_processes:
        process.start()
    times: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, (request, repeats) in requests.items():
            times[name] += measure(request, repeats)
    for process in busy_processes:
        process.kill()
    pickled.close()
    framed.close()
    model.close()
    rows = [row(name, taken, unit="µs") for name, taken in times.items()]
    print(f"{computer()}{', every core busy' if load else ''}; round trips between two processes, µs")
    print(f"{'':40}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'n':>8}")
    for result in rows:
        print(f"{result.name:40}{result.p50:9.0f}{result.p95:9.0f}{result.p99:9.0f}{result.max:9.0f}{result.n:8}")
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": computer(), "rows": [dataclasses.asdict(result) for result in rows]}))


if __name__ == "__main__":
    main()
