"""Lateness of the player while the model runs: python -m benchmarks.isolation [--seconds 10] [--rounds 3] [--runtime onnx]

The real player sends an event every 5 ms. Meanwhile the model does not run; or it generates events without a pause in a thread of
the same process, with two values of the interpreter's switch interval; or it does so in a separate process, as in a session.
Prints the lateness of the player's events in ms, and the time of a full garbage collection with the whole daemon loaded, before
and after ``gc.freeze``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np

from engine.checkpoint import bundled
from engine.engine import Engine
from engine.events import NOTE_OFF, NOTE_ON
from engine.runtimes.choose import open_runtime
from perceivers_live.commands.measuring import computer, improvised, play_event, row, timed
from perceivers_live.player.ledger import Ledger
from perceivers_live.player.player import SWITCH_INTERVAL, Planned, Player, PlayerThread

SPACING = 0.005  # seconds between two events


def generate(runtime: str, stop: Callable[[], bool], ready: Callable[[], object]) -> None:
    """Generates events as in a performance, without a pause, until ``stop``; calls ``ready`` when the model is loaded."""
    engine = Engine(open_runtime(runtime, bundled()))
    engine.absorb(improvised(2000, np.random.default_rng(0)))
    ready()
    seed = 0
    while not stop():
        play_event(engine, seed)
        seed += 1


@contextlib.contextmanager
def running_model(where: str, runtime: str) -> Iterator[None]:
    """Runs the model meanwhile; ``where``: ``thread``, ``process`` or ``none``."""
    if where == "none":
        yield
        return
    make_event, make_worker = (
        (threading.Event, threading.Thread) if where == "thread" else (multiprocessing.Event, multiprocessing.Process)
    )
    stop, ready = make_event(), make_event()
    worker = make_worker(target=_work, args=(runtime, stop, ready), daemon=True)
    worker.start()
    ready.wait()
    try:
        yield
    finally:
        stop.set()
        worker.join(5)


def _work(runtime: str, stop: threading.Event, ready: threading.Event) -> None:
    generate(runtime, stop.is_set, ready.set)


def lateness(seconds: float, switch: float) -> list[float]:
    """Plays for ``seconds`` and returns the lateness of every event in ms. ``switch``: the interpreter's switch interval in
    seconds.
    """
    player = Player(Ledger(lambda _: None))
    player.lateness = type(player.lateness)(maxlen=None)
    player.begin()
    begin = time.perf_counter() + 0.1
    count = int(seconds / SPACING)
    actions = [(NOTE_ON if i % 2 == 0 else NOTE_OFF) + 60 for i in range(count)]
    player.schedule(Planned(begin + i * SPACING, i + 1, action, 66) for i, action in enumerate(actions))
    thread = PlayerThread(player)
    thread.start()
    sys.setswitchinterval(switch)
    while player.planned():
        time.sleep(0.05)
    thread.stop()
    return [1000 * late for late in player.lateness]


def garbage_collections() -> Iterator[tuple[str, list[float]]]:
    """Rows with the times of full garbage collections in ms, before and after ``gc.freeze``."""
    import perceivers_live.commands.perform  # noqa: F401

    def taken() -> list[float]:
        return [timed(gc.collect) for _ in range(20)]

    gc.collect()
    yield "garbage collection", taken()
    gc.freeze()
    yield "garbage collection after gc.freeze", taken()
    gc.unfreeze()


@click.command()
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Turns of each case.")
@click.option("--runtime", default="onnx", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(seconds: float, rounds: int, runtime: str, json_file: Path | None) -> None:
    cases = {
        "not running": ("none", SWITCH_INTERVAL),
        "in a thread, switch interval 5 ms": ("thread", 0.005),
        f"in a thread, switch interval {1000 * SWITCH_INTERVAL:g} ms": ("thread", SWITCH_INTERVAL),
        "in a separate process": ("process", SWITCH_INTERVAL),
    }
    late: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (where, switch) in cases.items():
            with running_model(where, runtime):
                late[name] += lateness(seconds, switch)
    rows = [row(name, taken) for name, taken in [*late.items(), *garbage_collections()]]
    print(f"{computer()}; lateness in ms of an event every {SPACING * 1000:g} ms")
    print(f"{'model (' + runtime + ')':40}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'n':>8}")
    for result in rows:
        print(f"{result.name:40}{result.p50:9.3f}{result.p95:9.3f}{result.p99:9.3f}{result.max:9.2f}{result.n:8}")
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": computer(), "rows": [dataclasses.asdict(result) for result in rows]}))


if __name__ == "__main__":
    main()
