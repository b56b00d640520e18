"""Latencies of a live session: python -m benchmarks.live [--trials 60] [--seconds 30] [--page] [--slow 2] [--json FILE]

The daemon runs on a JACK server of its own (64 frames at 48 kHz). The benchmark plays to it through real MIDI ports, first on an
idle computer, then with a busy process on every core. With ``--page`` the cases are: idle, one connected page, and a page with
four badly behaved clients (`page_clients.py`). With ``--slow N`` the model takes N times as long. Rows, in ms:

    start to listening           from the command until the daemon's ports and OSC are ready
    round trip                   a message to another process and back, through two MIDI ports each way: the floor of other rows
    key -> silence               from a key press in `respond` until the machine's last note-off has arrived
    takeover -> note decided     from the OSC command until the first note is planned
    takeover -> note heard       from the OSC command until the first note has arrived; the model chooses its time, at most 0.5 s
    key -> new plan              from a key press in `duet` until the first event that takes it into account is planned
    lateness, sent               from the planned time of an event until it has been passed to the driver
    lateness, in time            the same for events planned at least 2 ms before their time, delayed only by the player's thread
    lateness, heard              from the planned time of a note until it has arrived
    thru, stuck model            a note of the human through the daemon, while the model hangs and is killed and replaced
    not served                   percentage of ticks in the machine's turns: `alone` in `respond`, or in a `duet` with the human

``not served`` is 1 - ISRw of StreamMUSE (Zheng et al., "Real-Time Language Model Jamming", 2026). A tick is served if what
happens in it, possibly silence, was decided in time, and its events were sent within it. A served tick counts as 1 - b / 32,
where b is the number of ticks for which the plan has ignored a note of the human. StreamMUSE's tick is a sixteenth note, here
125 ms. The daemon times events in steps of 10 ms; ticks of this length are more demanding.

`live_human.py` plays. A player that logs inside the daemon (`live_daemon.py`) records what cannot be measured from outside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from benchmarks.live_human import LOST, Human, interruption, round_trips, takeover, wait_for
from benchmarks.live_log import PLANNED, SOUNDED, LogEntry, delays, heard_late, in_time, read, responses, ticks
from engine import events
from perceivers_live.commands.measuring import Row, computer, row
from tests.free_port import free_port
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.recording import NOTE_OFF, NOTE_ON
from tests.live.remote import Remote
from tests.live.waiting import TIMEOUT

ROOT = Path(__file__).parents[1]
TICKS = (0.01, 0.125)  # seconds
SETTINGS = "[page]\nport = 0\n[recording]\nrecord = false\n"
PORTS = ("--in", "human-keys:port", "--out", "human-ear:port")
STARTS = 5  # measured starts of the daemon
THRU_NOTES = 60  # they take over two seconds, longer than the model's timeout of one
START_BUDGET = 2000.0  # ms
BUDGETS = {"key -> silence": 10.0, "key -> new plan": 50.0, "takeover -> note heard": 60.0, "not served": 0.1}  # ms; %
LATENESS = {"idle": 1.0, "busy": 2.0, "page": 1.0, "hostile": 2.0}  # ms; budgets of ``lateness, sent`` and ``in time``
PAGE_CLIENTS = {"page": ["reader"], "hostile": ["reader", "silent", "slow", "large", "flood"]}
SETTLING = 2.0  # seconds for the clients to connect


class Trial(NamedTuple):
    """Time of a takeover, and seconds from a key press to the machine's last note-off. None: the machine did not play."""

    asked: float | None
    silenced: float | None


def at_normal_priority(pid: int) -> None:
    """Takes real-time priority from a process that has just been started, which inherits it. A user's shell gives none."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def load(case: str) -> Iterator[None]:
    """With ``busy``, keeps every core busy meanwhile."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)] if case == "busy" else []
    for process in processes:
        at_normal_priority(process.pid)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def starts(jack: JackServer) -> list[float]:
    """Seconds from the start of a daemon until it listens, ``STARTS`` times."""
    taken = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as folder:
            home = Home(Path(folder))
            home.configure(SETTINGS)
            began = time.perf_counter()
            daemon = Daemon((*PORTS, "--osc-port", str(free_port())), jack.env, home)
            at_normal_priority(daemon.process.pid)
            try:
                daemon.wait_for_line("listening;", TIMEOUT)
                taken.append(time.perf_counter() - began)
            finally:
                daemon.end()
    return taken


def thru_latencies(human: Human, remote: Remote, daemon: Daemon) -> list[float]:
    """Stops the model's process. Returns the latency of the human's notes through the daemon meanwhile, in seconds."""
    remote.send("mode", "listen")
    remote.send("thru", 1)
    remote.ask("thru")
    stopped = 0
    for children in Path(f"/proc/{daemon.process.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if re.search(rb"engine\.remote\.serve|benchmarks\.slow_serve", Path(f"/proc/{child}/cmdline").read_bytes()):
                os.kill(int(child), signal.SIGSTOP)
                stopped += 1
    if not stopped:
        raise click.ClickException("the daemon has no process for the model")
    taken = []
    for i in range(THRU_NOTES):
        pitch, before = 24 + i % 8, len(human.note_ons)
        sent = human.send(NOTE_ON, pitch, 64)

        def arrivals(pitch: int = pitch, before: int = before) -> list[float]:
            return [message.time for message in human.note_ons[before:] if message.data1 == pitch]

        wait_for(arrivals, LOST)
        taken.append(arrivals()[0] - sent if arrivals() else LOST)
        human.send(NOTE_OFF, pitch, 64)
        time.sleep(0.03)
    return taken


class Performance(NamedTuple):
    """What was measured in a performance: the trials; the time at which the duet after them began; the log of the daemon's
    player; and the latencies of ``thru_latencies`` in seconds.
    """

    trials: list[Trial]
    duet_start: float
    entries: list[LogEntry]
    thru: list[float]


@contextlib.contextmanager
def page_clients(daemon: Daemon, case: str) -> Iterator[None]:
    """Runs clients of the daemon's page in another process, if ``case`` has any."""
    if case not in PAGE_CLIENTS:
        yield
        return
    url = daemon.wait_for_line(r"the page is at (http://\S+)", TIMEOUT)[1]
    command = [sys.executable, "-m", "benchmarks.page_clients", url, *PAGE_CLIENTS[case]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as clients:
        at_normal_priority(clients.pid)
        try:
            time.sleep(SETTLING)
            yield
        finally:
            clients.kill()


def perform(jack: JackServer, human: Human, case: str, trials: int, seconds: float, slow: float) -> Performance:
    """Runs a daemon, the trials, a duet of ``seconds``, and notes through the daemon with a stuck model."""
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        path, home, port = Path(folder, "player.log"), Home(Path(folder)), free_port()
        home.configure(SETTINGS)
        program = (sys.executable, "-m", "benchmarks.live_daemon", str(path), str(slow))
        daemon = Daemon((*PORTS, "--osc-port", str(port), "--seed", "1"), {**jack.env, "PYTHONPATH": str(ROOT)}, home, program)
        at_normal_priority(daemon.process.pid)
        try:
            daemon.wait_for_line("listening;", TIMEOUT)
            print(f"{case}: runtime {daemon.wait_for_line(r'runtime (onnx.*|cuda.*|tensorrt.*)$', TIMEOUT)[1]}", flush=True)
            human.clear()
            with closing(Remote(port)) as remote, page_clients(daemon, case):
                results = []
                for _ in range(trials):
                    asked = takeover(human, remote)
                    time.sleep(rng.uniform(0.1, 0.4))
                    results.append(Trial(asked, interruption(human)))
                remote.send("mode", "duet")
                duet_start = time.perf_counter()
                human.play(seconds, rng)
                end = time.perf_counter()
                thru = thru_latencies(human, remote, daemon)
        finally:
            daemon.end()
        return Performance(results, duet_start, [entry for entry in read(path) if entry.when < end], thru)


def measure(jack: JackServer, human: Human, case: str, trials: int, seconds: float, slow: float) -> Iterator[Row]:
    """Measures the rows of a case: ``idle``, ``busy``, ``page`` or ``hostile``. Raises ``click.ClickException`` if a row has no
    measurements.
    """
    trips = ms(round_trips(jack, human, 300))
    floor = float(np.median(trips))

    def make_row(name: str, taken: Sequence[float], floor: float | None = None, budget: float | None = None) -> Row:
        if not len(taken):
            raise click.ClickException(f"{name}, {case}: there was nothing to measure")
        budget = BUDGETS.get(name.split(",")[0]) if budget is None else budget
        return dataclasses.replace(row(f"{name}, {case}", list(taken), floor=floor), budget=budget)

    yield make_row("start to listening", ms(starts(jack)), budget=START_BUDGET)
    yield make_row("round trip", trips)
    results, duet_start, entries, thru = perform(jack, human, case, trials, seconds, slow)
    asked = [trial.asked for trial in results if trial.asked is not None]
    yield make_row("key -> silence", ms([trial.silenced for trial in results if trial.silenced is not None]), floor)
    planned = [entry.when for entry in entries if entry.what == PLANNED and entry.action < events.NOTE_OFF]
    yield make_row("takeover -> note decided", ms(delays(asked, planned)))
    yield make_row("takeover -> note heard", ms(delays(asked, [message.time for message in human.note_ons])), floor)
    yield make_row(
        "key -> new plan",
        ms(
            [
                replanned - pressed
                for pressed, replanned, action in responses(entries)
                if action < events.NOTE_OFF and pressed > duet_start
            ]
        ),
    )
    sounded = [entry for entry in entries if entry.what == SOUNDED]
    yield make_row("lateness, sent", ms([entry.when - entry.meant for entry in sounded]), budget=LATENESS[case])
    yield make_row("lateness, in time", ms([entry.when - entry.meant for entry in in_time(entries)]), budget=LATENESS[case])
    yield make_row(
        "lateness, heard", ms(heard_late(entries, [(message.time, message.data1) for message in human.note_ons])), floor / 2
    )
    yield make_row("thru, stuck model", ms(thru), floor)
    for name, part in (
        ("alone", [entry for entry in entries if entry.when < duet_start]),
        ("duet", [entry for entry in entries if entry.when >= duet_start]),
    ):
        for tick in TICKS:
            served = ticks(part, tick)
            missed = make_row(f"not served, {1000 * tick:g} ms, {name}", [100 * (1 - float(np.mean(served)))])
            yield dataclasses.replace(missed, unit="%", n=len(served))


def ms(seconds: Sequence[float]) -> list[float]:
    """Seconds in ms."""
    return [1000 * value for value in seconds]


def report(rows: Iterator[Row], json_file: Path | None) -> None:
    """Prints each row as soon as it is measured, and writes all of them to ``json_file``."""
    print(computer())
    print(f"{'':34}{'unit':>5}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'floor':>8}{'budget':>8}{'n':>7}")
    done = []
    for result in rows:
        done.append(result)
        floor, budget = (f"{value:8.2f}" if value is not None else f"{'':8}" for value in (result.floor, result.budget))
        print(
            f"{result.name:34}{result.unit:>5}{result.p50:9.2f}{result.p95:9.2f}{result.p99:9.2f}{result.max:9.2f}"
            f"{floor}{budget}{result.n:7}",
            flush=True,
        )
    over = [result.name for result in done if result.budget is not None and result.p99 > result.budget]
    print("all p99 within budget" if not over else f"p99 over budget: {'; '.join(over)}")
    if json_file is not None:
        json_file.write_text(
            json.dumps({"machine": computer(), "rows": [dataclasses.asdict(result) for result in done]}), encoding="utf-8"
        )


@click.command()
@click.option("--trials", default=60, show_default=True, help="Number of takeovers, each followed by a key press.")
@click.option("--seconds", default=30.0, show_default=True, help="Length of the duet.")
@click.option("--page", is_flag=True, help="Measure with well and badly behaved clients of the page instead of busy cores.")
@click.option("--slow", type=click.FloatRange(min=1), default=1.0, show_default=True, help="Factor of the model's time.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures to this file.")
def main(trials: int, seconds: float, page: bool, slow: float, json_file: Path | None) -> None:
    with ExitStack() as stack:
        jack = stack.enter_context(JackServer(period=64))
        os.environ.update({name: jack.env[name] for name in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER")})
        human = Human()
        stack.callback(human.close)

        def rows() -> Iterator[Row]:
            for case in ("idle", *PAGE_CLIENTS) if page else ("idle", "busy"):
                with load(case):
                    yield from measure(jack, human, case, trials, seconds, slow)

        report(rows(), json_file)


if __name__ == "__main__":
    main()
