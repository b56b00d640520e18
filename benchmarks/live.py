"""Latencies of the daemon: python -m benchmarks.live [--trials 60] [--seconds 30] [--page] [--slow 2] [--json FILE]

The daemon runs on a JACK server of the benchmark (64 frames at 48 kHz) and is played through real MIDI ports: idle, and with a
busy process on every core. With ``--page``: idle, with a page connected, and with a page and four badly behaved clients
(`page_clients.py`). ``--slow``: how many times as long the model takes as on this machine. In milliseconds:

    start to listening           from the command until the daemon's ports and OSC are ready
    round trip                   a message to another process and back, through two MIDI ports each way: the floor of the others
    key -> silence               from a key press in `respond` until the machine's last note-off has arrived
    takeover -> note decided     from the OSC command until the first note is planned
    takeover -> note heard       from the OSC command until the first note has arrived; the model chooses its time, at most 0.5 s
    key -> planned anew          from a key press in `duet` until the first event that takes it into account is planned
    lateness, sent               from the planned time of an event until it has been passed to the driver
    lateness, in time            the same, for events that were planned before their time: the part of the player's thread
    lateness, heard              from the planned time of a note until it has arrived
    thru, stuck model            the human's notes through the daemon, while its model hangs and is killed and replaced
    not served                   percent of the ticks in the machine's turns, `alone` in `respond`, or in a duet with the human

``not served`` is 1 - ISRw of StreamMUSE (Zheng et al., "Real-Time Language Model Jamming", 2026). A tick is served if the machine
had decided about it in time, silence included, and its events left within it. It counts 1 - b / 32, where b is the number of
ticks for which the current plan has not taken the human's notes into account. StreamMUSE's tick is a sixteenth note, here 125 ms.
Our events are timed in ticks of 10 ms, which is more demanding.

A player with a log inside the daemon (`live_daemon.py`) records what cannot be measured from outside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from benchmarks.live_notes import PLANNED, SOUNDED, Note, after, heard_late, in_time, known, read, ticks
from engine.events import NOTE_OFF as NOTES
from engine.realtime import DRIVER, set_realtime
from perceivers_live.commands.measuring import Row, machine, row
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.recording import CONTROL_CHANGE, NOTE_OFF, NOTE_ON, SUSTAIN, Message
from tests.live.remote import Remote, free_port
from tests.live.waiting import TIMEOUT

ROOT = Path(__file__).parents[1]
TICKS = (0.01, 0.125)  # seconds
LOWEST = 20  # a key lower than the machine plays
SETTINGS = "[page]\nport = 0\n[recording]\nrecord = false\n"
PORTS = ("--in", "human-keys:port", "--out", "human-ear:port")
STARTS = 5
PASSED = 60  # notes, over two seconds: the model is given one to answer
LOST = 1.0  # second after which a note counts as lost, and as late as that
START_BUDGET = 2000.0
BUDGETS = {"key -> silence": 10.0, "key -> planned anew": 50.0, "takeover -> note heard": 60.0, "not served": 0.1}
LATENESS = {"idle": 1.0, "busy": 2.0, "page": 1.0, "hostile": 2.0}  # budget of what is sent, ms
PAGE_CLIENTS = {"page": ["reader"], "hostile": ["reader", "silent", "slow", "large", "flood"]}
SETTLING = 2.0  # seconds until the clients are what they are
HOG = """
import os
if hasattr(os, "sched_setscheduler"):
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
while True:
    pass
"""
ECHO = """
import sys, rtmidi
out, back = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, "echo-out"), rtmidi.MidiIn(rtmidi.API_UNIX_JACK, "echo-in")
out.open_virtual_port("port")
back.set_callback(lambda event, _: out.send_message(event[0]))
back.open_virtual_port("port")
sys.stdin.read()
back.delete()
"""


class Trial(NamedTuple):
    """Time of a takeover, and seconds until a key press silenced the machine; None: it did not happen."""

    asked: float | None
    silenced: float | None


class Human:
    """A keyboard and a listener in this process, which record the times of sent and received messages."""

    def __init__(self) -> None:
        import rtmidi

        set_realtime(DRIVER)  # as in an audio program
        self._out, self._in = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, "human-keys"), rtmidi.MidiIn(rtmidi.API_UNIX_JACK, "human-ear")
        self.begin()
        self._out.open_virtual_port("port")
        self._in.set_callback(self._arrived)
        self._in.open_virtual_port("port")

    def begin(self) -> None:
        """Clears the received messages."""
        self.heard: list[Message] = []
        self.strikes: list[Message] = []
        self.sounding: set[int] = set()  # the pedal as -1

    def _arrived(self, event: tuple[list[int], float], _: object) -> None:
        message = Message(time.perf_counter(), *event[0][:3])
        kind = message.status & 0xF0
        if kind == NOTE_ON and message.data2:
            self.strikes.append(message)
            self.sounding.add(message.data1)
        elif kind in (NOTE_OFF, NOTE_ON):
            self.sounding.discard(message.data1)
        elif (kind, message.data1) == (CONTROL_CHANGE, SUSTAIN):
            (self.sounding.add if message.data2 >= 64 else self.sounding.discard)(-1)
        self.heard.append(message)

    def send(self, *message: int) -> float:
        """Sends a message and returns its time."""
        now = time.perf_counter()
        self._out.send_message(message)
        return now

    def play(self, seconds: float, rng: random.Random) -> None:
        """Plays notes of about a quarter of a second."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pitch = rng.randint(48, 84)
            self.send(NOTE_ON, pitch, rng.randint(40, 100))
            time.sleep(rng.uniform(0.1, 0.25))
            self.send(NOTE_OFF, pitch, 64)
            time.sleep(rng.uniform(0.0, 0.2))

    def close(self) -> None:
        """Closes the ports. Nothing may be sent at the same time."""
        self._in.cancel_callback()
        time.sleep(0.1)  # a running callback ends
        self._out.delete()
        self._in.delete()


def handover(human: Human, remote: Remote) -> float | None:
    """Sends a takeover and waits for the first note. Returns the time of the takeover."""
    before, asked = len(human.strikes), time.perf_counter()
    remote.send("takeover")
    return asked if waited(lambda: len(human.strikes) > before, 2.0) else None


def interruption(human: Human) -> float | None:
    """Presses a key while the machine sounds. Returns the seconds until its last note-off has arrived."""
    if not waited(lambda: human.sounding, 1.0):
        return None
    before = len(human.heard)
    struck = human.send(NOTE_ON, LOWEST, 70)
    waited(lambda: not human.sounding, 1.0)
    time.sleep(0.1)
    human.send(NOTE_OFF, LOWEST, 64)
    time.sleep(0.05)  # a takeover by OSC could arrive earlier
    last = human.heard[before:]
    return last[-1].time - struck if last else None


def waited(condition: Callable[[], object], patience: float) -> bool:
    """Waits for a condition; False after ``patience`` seconds."""
    deadline = time.perf_counter() + patience
    while not condition():
        if time.perf_counter() > deadline:
            return False
        time.sleep(0.002)
    return True


@contextlib.contextmanager
def load(under: str) -> Iterator[str]:
    """``busy``: one process on every core that does nothing, all the time."""
    command = [sys.executable, "-c", HOG]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)] if under == "busy" else []
    try:
        yield under
    finally:
        for process in processes:
            process.kill()
            process.wait()


def round_trips(jack: JackServer, human: Human, count: int) -> list[float]:
    with subprocess.Popen([sys.executable, "-c", ECHO], env=jack.env, stdin=subprocess.PIPE) as echo:
        jack.connect("human-keys:port", jack.wait_for_port("echo-in"))
        jack.connect(jack.wait_for_port("echo-out"), "human-ear:port")
        taken = []
        for _ in range(count):
            before = len(human.heard)
            sent = human.send(0xB0, 1, 0)
            if waited(lambda seen=before: len(human.heard) > seen, 1.0):
                taken.append(human.heard[before].time - sent)
            time.sleep(random.uniform(0.005, 0.01))
        assert echo.stdin is not None
        echo.stdin.close()
    return taken


def starts(jack: JackServer) -> list[float]:
    """Seconds until a daemon listens."""
    taken = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as folder:
            home = Home(Path(folder))
            home.configure(SETTINGS)
            began = time.perf_counter()
            daemon = Daemon((*PORTS, "--osc-port", str(free_port())), jack.env, home)
            try:
                daemon.wait_for_line("listening;", TIMEOUT)
                taken.append(time.perf_counter() - began)
            finally:
                daemon.end()
    return taken


def stuck(human: Human, remote: Remote, daemon: Daemon) -> list[float]:
    """Seconds that the human's notes take through the daemon while its model does not answer."""
    remote.send("mode", "listen")
    remote.send("thru", 1)
    remote.ask("thru")
    for children in Path(f"/proc/{daemon.process.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if b"engine.remote.serve" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGSTOP)
    taken = []
    for i in range(PASSED):
        pitch, before = 24 + i % 8, len(human.strikes)
        sent = human.send(NOTE_ON, pitch, 64)

        def passed(pitch: int = pitch, before: int = before) -> list[float]:
            return [one.time for one in human.strikes[before:] if one.data1 == pitch]

        waited(passed, LOST)
        taken.append(passed()[0] - sent if passed() else LOST)
        human.send(NOTE_OFF, pitch, 64)
        time.sleep(0.03)
    return taken


class Performance(NamedTuple):
    """Handovers and interruptions, then a duet from a moment on; the daemon's notes; and what ``stuck`` measured."""

    trials: list[Trial]
    duet: float
    notes: list[Note]
    stuck: list[float]


@contextlib.contextmanager
def visitors(daemon: Daemon, under: str) -> Iterator[None]:
    """Clients of the daemon's page, in a process of their own."""
    if under not in PAGE_CLIENTS:
        yield
        return
    url = daemon.wait_for_line(r"the page is at (http://\S+)", TIMEOUT)[1]
    command = [sys.executable, "-m", "benchmarks.page_clients", url, *PAGE_CLIENTS[under]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as clients:
        try:
            time.sleep(SETTLING)
            yield
        finally:
            clients.kill()


def performed(jack: JackServer, human: Human, under: str, trials: int, seconds: float, slow: float) -> Performance:
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        path, home, port = Path(folder, "notes"), Home(Path(folder)), free_port()
        home.configure(SETTINGS)
        program = (sys.executable, "-m", "benchmarks.live_daemon", str(path), str(slow))
        daemon = Daemon((*PORTS, "--osc-port", str(port), "--seed", "1"), {**jack.env, "PYTHONPATH": str(ROOT)}, home, program)
        try:
            daemon.wait_for_line("listening;", TIMEOUT)
            human.begin()
            with closing(Remote(port)) as remote, visitors(daemon, under):
                done = []
                for _ in range(trials):
                    asked = handover(human, remote)
                    time.sleep(rng.uniform(0.1, 0.4))
                    done.append(Trial(asked, interruption(human)))
                remote.send("mode", "duet")
                duet = time.perf_counter()
                human.play(seconds, rng)
                end = time.perf_counter()
                through = stuck(human, remote, daemon)
        finally:
            daemon.end()
        return Performance(done, duet, [one for one in read(path) if one.when < end], through)


def measure(jack: JackServer, human: Human, under: str, trials: int, seconds: float, slow: float) -> Iterator[Row]:
    trips = ms(round_trips(jack, human, 300))
    floor = float(np.median(trips))

    def made(name: str, taken: Sequence[float], floor: float | None = None, budget: float | None = None) -> Row:
        if not len(taken):
            raise click.ClickException(f"{name}, {under}: there was nothing to measure")
        budget = BUDGETS.get(name.split(",")[0]) if budget is None else budget
        return dataclasses.replace(row(f"{name}, {under}", list(taken), floor=floor), budget=budget)

    yield made("start to listening", ms(starts(jack)), budget=START_BUDGET)
    yield made("round trip", trips)
    done, duet, notes, through = performed(jack, human, under, trials, seconds, slow)
    asked = [one.asked for one in done if one.asked is not None]
    yield made("key -> silence", ms([one.silenced for one in done if one.silenced is not None]), floor)
    planned = [one.when for one in notes if one.what == PLANNED and one.action < NOTES]
    yield made("takeover -> note decided", ms(after(asked, planned)))
    yield made("takeover -> note heard", ms(after(asked, [one.time for one in human.strikes])), floor)
    yield made("key -> planned anew", ms([when - key for key, when, action in known(notes) if action < NOTES and key > duet]))
    sounded = [one for one in notes if one.what == SOUNDED]
    yield made("lateness, sent", ms([one.when - one.meant for one in sounded]), budget=LATENESS[under])
    yield made("lateness, in time", ms([one.when - one.meant for one in in_time(notes)]), budget=LATENESS[under])
    yield made("lateness, heard", ms(heard_late(notes, [(one.time, one.data1) for one in human.strikes])), floor / 2)
    yield made("thru, stuck model", ms(through), floor)
    for name, part in (
        ("alone", [one for one in notes if one.when < duet]),
        ("duet", [one for one in notes if one.when >= duet]),
    ):
        for tick in TICKS:
            served = ticks(part, tick)
            missed = made(f"not served, {1000 * tick:g} ms, {name}", [100 * (1 - float(np.mean(served)))])
            yield dataclasses.replace(missed, unit="%", n=len(served))


def ms(seconds: Sequence[float]) -> list[float]:
    return [1000 * one for one in seconds]


def report(rows: Iterator[Row], json_file: Path | None) -> None:
    print(machine())
    print(f"{'':34}{'unit':>5}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'floor':>8}{'budget':>8}{'n':>7}")
    done = []
    for one in rows:
        done.append(one)
        floor, budget = (f"{value:8.2f}" if value is not None else f"{'':8}" for value in (one.floor, one.budget))
        print(
            f"{one.name:34}{one.unit:>5}{one.p50:9.2f}{one.p95:9.2f}{one.p99:9.2f}{one.max:9.2f}{floor}{budget}{one.n:7}",
            flush=True,
        )
    over = [one.name for one in done if one.budget is not None and one.p99 > one.budget]
    print("all p99 within budget" if not over else f"p99 over budget: {'; '.join(over)}")
    if json_file is not None:
        json_file.write_text(
            json.dumps({"machine": machine(), "rows": [dataclasses.asdict(one) for one in done]}), encoding="utf-8"
        )


@click.command()
@click.option("--trials", default=60, show_default=True, help="Handovers and interruptions.")
@click.option("--seconds", default=30.0, show_default=True, help="Length of the duet.")
@click.option("--page", is_flag=True, help="With clients of the page, well and badly behaved, in place of busy cores.")
@click.option("--slow", type=click.FloatRange(min=1), default=1.0, show_default=True, help="Times as long as here for the model.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here as well.")
def main(trials: int, seconds: float, page: bool, slow: float, json_file: Path | None) -> None:
    with ExitStack() as stack:
        jack = stack.enter_context(JackServer(period=64))
        os.environ.update({name: jack.env[name] for name in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER")})
        human = Human()
        stack.callback(human.close)

        def rows() -> Iterator[Row]:
            for situation in ("idle", *PAGE_CLIENTS) if page else ("idle", "busy"):
                with load(situation) as under:
                    yield from measure(jack, human, under, trials, seconds, slow)

        report(rows(), json_file)


if __name__ == "__main__":
    main()
