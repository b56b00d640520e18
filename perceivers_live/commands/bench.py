"""``perceivers-live bench``: measures latency per event on this computer, and compares it with the limit of memory bandwidth.

Every row is a distribution. ``N events of history`` are those before the first row; each row adds its own, up to 7000 in all.
The floor is the time to read the bytes of a step (weights and rings) at this computer's copy bandwidth, measured in the same
run. The budget is the latency that a performance allows.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np

from engine.engine import Engine
from engine.events import Event
from engine.runtimes import Runtime
from perceivers_live.commands.measuring import Row, computer, copy_bandwidth, improvised, play_event, row, timed
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import Settings
from perceivers_live.performer.performer import Performer
from perceivers_live.player.ledger import Ledger
from perceivers_live.player.player import Player

HISTORIES = (1024, 8192, 32768)  # events
STARTS = 5
READY = "ready"  # printed by the start-up probe


def measure(engine: Engine, settings: Settings, histories: tuple[int, ...], count: int) -> Iterator[Row]:
    """Yields the rows. ``count``: number of measurements of a step; longer operations are measured less often."""
    floor = engine.runtime.step_bytes / copy_bandwidth(engine.runtime)
    rng = np.random.default_rng(0)
    for history in sorted(histories):
        at = f", {history} events of history"
        engine.forget()
        yield row(f"prefill to {history} events", [timed(partial(_settled, engine, improvised(history - 1, rng)))])
        yield row(f"step{at}", [timed(partial(_settled, engine, [event])) for event in improvised(count, rng)], floor=floor)
        yield row(f"event{at}", [timed(partial(play_event, engine, seed)) for seed in range(count)], floor=floor)
        for size in (8, 64, 512):
            chunks = [improvised(size, rng) for _ in range(max(count * 4 // size, 5))]
            yield row(f"absorb {size}{at}", [timed(partial(_settled, engine, chunk)) for chunk in chunks])
        yield row(f"takeover{at}", [_takeover(engine, settings, seed) for seed in range(max(count // 10, 10))])


def _settled(engine: Engine, events: list[Event]) -> None:
    """Absorbs and waits for the result, since a GPU runtime is asynchronous."""
    engine.absorb(events)
    engine.hidden()


def _takeover(engine: Engine, settings: Settings, seed: int) -> float:
    """Milliseconds from the takeover to the first event in the player's plan."""
    player = Player(Ledger(lambda _: None))
    performer = Performer(engine, player, Controls(settings.controls), settings.phrase, seed=seed)
    position, began = engine.position, time.perf_counter()
    performer.takeover(began)
    while not player.planned():
        performer.work(time.perf_counter())
    taken = (time.perf_counter() - began) * 1000
    player.end()
    engine.rewind(position)
    return taken


def start_up(arguments: list[str]) -> list[Row]:
    """Starts fresh processes: milliseconds until the session listens, and resident memory then in MB."""
    seconds, sizes = [], []
    for _ in range(STARTS):
        began = time.perf_counter()
        command = [sys.executable, "-m", "perceivers_live.cli", "bench", "--probe", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline().split()
            seconds.append((time.perf_counter() - began) * 1000)
            if line[:1] != [READY]:
                raise click.ClickException("the start-up probe failed; its own message is above")
            sizes.append(float(line[1]))
    return [row("start-up", seconds), row("resident memory", sizes, unit="MB")]


def probe(engine: Engine, settings: Settings) -> None:
    """Runs in the processes of ``start_up``: a session without ports, which prints ``READY`` when it listens."""
    from perceivers_live.session.observers import Observer
    from perceivers_live.session.session import Session

    def ready() -> None:
        click.echo(f"{READY} {_resident():.1f}")
        session.stop()

    silent = dataclasses.replace(settings, osc=dataclasses.replace(settings.osc, enabled=False))
    session = Session(engine, silent, Controls(settings.controls), lambda _: None, observers=[Observer(started=ready)])
    session.run()


def _resident() -> float:
    """Resident memory of this process and its children in MB. Where /proc is missing: the peak of this process alone."""
    if Path("/proc/self/status").exists():
        family = [os.getpid()]
        for pid in family:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                family += map(int, children.read_text().split())
        lines = [line for pid in family for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def report(rows: Iterator[Row], runtime: Runtime, json_file: Path | None) -> None:
    """Prints the rows as they arrive, and writes them as JSON."""
    click.echo(f"{computer()}; runtime {runtime.name}")
    megabytes = runtime.step_bytes / 1e6
    click.echo(f"a step reads {megabytes:.1f} MB")
    click.echo(f"{'':40}{'unit':>5}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'floor':>8}{'p50/floor':>11}{'budget':>8}{'n':>6}")
    done = []
    for one in rows:
        done.append(one)
        floor = f"{one.floor:8.2f}{one.p50 / one.floor:11.1f}" if one.floor else f"{'':19}"
        budget = f"{one.budget:8.0f}" if one.budget else f"{'':8}"
        figures = f"{one.p50:9.2f}{one.p95:9.2f}{one.p99:9.2f}{one.max:9.2f}"
        click.echo(f"{one.name:40}{one.unit:>5}{figures}{floor}{budget}{one.n:6}")
    over = [one for one in done if one.budget and one.p99 > one.budget]
    click.echo("all p99 within budget" if not over else f"p99 over budget: {', '.join(one.name for one in over)}")
    if json_file is not None:
        text = json.dumps({"machine": computer(), "runtime": runtime.name, "rows": [dataclasses.asdict(one) for one in done]})
        json_file.write_text(text, encoding="utf-8")
