"""The stage of the soak: a daemon on a JACK server, its keyboard and synthesizer, and the count of hanging and lost notes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import click

from benchmarks.soak_log import Missing, PortLog, hanging, missing_strikes
from benchmarks.soak_report import Outcome
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import message_of
from engine.midi_file import read_file
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.recording import Message
from tests.live.remote import Remote, free_port
from tests.live.waiting import TIMEOUT

ATTEMPTS = 20  # to reach the daemon, a second each
ATTEMPT_SECONDS = 0.25  # seconds until the ports are looked for again
CHECKED = tuple(range(24, 32))  # keys below what the machine plays
QUIET = 1.0  # seconds of silence after which what sounds hangs,
PATIENCE = 5.0  # and at most so many for what is under way, on a machine under load
MARK = 119  # a controller that nothing else here uses
ROOT = Path(__file__).parents[1]
SETTINGS = "[page]\nport = 0\n[recording]\nrecord = true\n"


class SoakStage:
    """The daemon and its peer. ``hung``, ``lost``, ``dropped``: notes counted under the present disturbance."""

    def __init__(self, jack: JackServer, folder: Path, performances: list[Path], seed: int) -> None:
        self.jack, self.home, self.rng = jack, Home(folder), random.Random(seed)
        self.home.configure(SETTINGS)
        self.performances = performances
        self.port, self.logs = free_port(), count(1)
        self.peer = Peer(jack)
        self.daemon = self.start_daemon()
        self.remote = Remote(self.port)
        self.remote.send("register_low", CHECKED[-1] + 1)
        self.outcomes: dict[str, Outcome] = defaultdict(Outcome)
        self.hung = self.lost = self.dropped = 0  # that were seen to be, under the present disturbance
        self.busy: list[subprocess.Popen[bytes]] = []

    def start_daemon(self) -> Daemon:
        ports = ("--in", "stage-keys", "--out", "stage-synth", "--osc-port", str(self.port))
        path = self.home.data / f"ports-{next(self.logs)}.log"
        program = (sys.executable, "-m", "benchmarks.soak_daemon", str(path))
        daemon = Daemon(ports, {**self.jack.env, "PYTHONPATH": str(ROOT)}, self.home, program)
        self.log = PortLog(path)
        daemon.wait_for_line("listening;", TIMEOUT)
        return daemon

    def play(self, seconds: float) -> None:
        """A stretch of a performance, in real time; every key is released at its end."""
        actions = self._stretch(seconds)
        began, held, pedal = time.perf_counter(), set(), False
        for one in actions:
            time.sleep(max(0.0, began + one.time - time.perf_counter()))
            self.peer.send(*message_of(one.action, one.velocity))
            if one.action < NOTE_OFF:
                held.add(one.action - NOTE_ON)
            elif one.action < SUSTAIN_DOWN:
                held.discard(one.action - NOTE_OFF)
            else:
                pedal = one.action == SUSTAIN_DOWN
        for pitch in held:
            self.peer.send(*message_of(NOTE_OFF + pitch, 0))
        if pedal:
            self.peer.send(*message_of(SUSTAIN_UP, 0))

    def _stretch(self, seconds: float) -> list[Timed]:
        actions = read_file(self.rng.choice(self.performances))
        begin = self.rng.uniform(0, max(0.0, actions[-1].time - seconds))
        return [one._replace(time=one.time - begin) for one in actions if begin <= one.time < begin + seconds]

    def pass_on(self) -> None:
        """Plays what the daemon has to pass on, once both of its ports are open."""
        self.turn("thru", 1)
        self.catch_up(lambda: self.peer.received)
        with self.passing_on() as strikes:
            for pitch in CHECKED:
                strikes.append((0x90, pitch))
                self.peer.send(0x90, pitch, 64)
                time.sleep(0.01)
                self.peer.send(0x80, pitch, 0)
                time.sleep(0.01)
        self.turn("thru", 0)

    @contextmanager
    def passing_on(self) -> Iterator[list[tuple[int, int]]]:
        """Counts the strikes (status, pitch) that are put into the list meanwhile and do not arrive."""
        strikes: list[tuple[int, int]] = []
        begins = [len(station) for station in (self.log.delivered, self.log.accepted, self.peer.received)]
        yield strikes
        sent = [Message(0.0, status, pitch, 64) for status, pitch in strikes]

        def missing() -> Missing:
            stations = (self.log.delivered, self.log.accepted, self.peer.received)
            return missing_strikes(sent, *(station[begin:] for station, begin in zip(stations, begins, strict=True)))

        waited(lambda: not any(missing()))
        found = missing()
        self.lost += found.daemon
        self.count_dropped(found)

    def catch_up(self, station: Callable[[], list[Message]]) -> None:
        """Waits until everything that was sent has arrived at a station (all messages there so far)."""
        begin = len(station())
        for number in range(round(ATTEMPTS / ATTEMPT_SECONDS)):
            self.peer.send(0xB0, MARK, number)
            if waited(lambda: any(one[1:3] == (0xB0, MARK) for one in station()[begin:]), ATTEMPT_SECONDS):
                return
        raise RuntimeError("what is played does not arrive")

    def turn(self, name: str, value: float | str) -> None:
        """Sets a control and sees that it has arrived: OSC and MIDI are not in order, and after a flood datagrams are lost, and
        replies are fewer than questions.
        """
        for _ in range(ATTEMPTS):
            known = len(self.remote.received(name))
            self.remote.send(name, value)
            self.remote.send(name)
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                if any(one.values[0] == value for one in self.remote.received(name)[known:]):
                    return
                time.sleep(0.01)
        raise RuntimeError(f"the daemon does not answer when it is asked for {name}")

    def heard(self, timeout: float, again: float) -> float | None:
        """Seconds from asking the machine to take over (``again`` and again) to its first note."""
        before, began = self.peer.struck, time.perf_counter()
        while time.perf_counter() - began < timeout:
            self.remote.send("takeover")
            deadline = time.perf_counter() + again
            while time.perf_counter() < deadline:
                if self.peer.struck > before:
                    return time.perf_counter() - began
                time.sleep(0.0005)
        return None

    def listen_for_hanging(self) -> None:
        """Counts what sounds although everyone is silent."""
        self.turn("mode", "listen")
        time.sleep(QUIET)
        waited(lambda: not self.peer.sounding)
        self.count_hanging(self.peer.sounding)
        self.remote.send("panic")
        self.turn("mode", "respond")

    def count_hanging(self, sounding: set[int], *, excused: bool = True) -> None:
        found = hanging(sounding, self.log, excused=excused)
        self.hung += found.daemon
        self.count_dropped(found)

    def count_dropped(self, found: Missing) -> None:
        self.dropped += found.undelivered + found.unsent
        if any(found):
            click.echo(f"{found}; JACK has logged {self.jack.log().count('XRun')} xruns", err=True)

    def processes(self) -> list[int]:
        """The daemon and what it has begun."""
        found = [self.daemon.process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
        return found

    def resources(self) -> tuple[float, int, int]:
        """Resident memory in MB, threads, open files, of them all."""
        memory, threads, files = 0.0, 0, 0
        for pid in self.processes():
            status = Path(f"/proc/{pid}/status").read_text().split("\n")
            memory += sum(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
            threads += sum(int(line.split()[1]) for line in status if line.startswith("Threads"))
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return memory, threads, files

    def close(self) -> None:
        for process in self.busy:
            process.kill()
        self.remote.close()
        self.daemon.end()
        self.peer.close()


def waited(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Waits for a condition; False after ``patience`` seconds."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
