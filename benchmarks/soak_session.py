"""The session that `soak.py` tests: a daemon on a JACK server, a keyboard and a synthesizer; counts hung and lost notes."""

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

from benchmarks.soak_log import Missing, PortLog, hanging, missing_notes
from benchmarks.soak_report import Outcome
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import message_of
from engine.midi_file import read_file
from tests.free_port import free_port
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.recording import Message
from tests.live.remote import Remote
from tests.live.waiting import TIMEOUT

ATTEMPTS = 20  # to set a control; one second each
MARKER_SECONDS = 0.25  # until the next marker message is sent
THRU_KEYS = tuple(range(24, 32))  # keys below the machine's register
QUIET = 1.0  # seconds before hung notes are counted,
TIMEOUT_UNDER_LOAD = 5.0  # and at most this many more for messages that are still on their way, if the computer is under load
MARKER = 119  # a controller that is not used otherwise
ROOT = Path(__file__).parents[1]
SETTINGS = "[page]\nport = 0\n[recording]\nrecord = true\n"


class SoakSession:
    """The daemon and its peer, a keyboard and a synthesizer. ``hung``, ``lost``, ``dropped``: notes counted since the current
    fault began.
    """

    def __init__(self, jack: JackServer, folder: Path, performances: list[Path], seed: int) -> None:
        self.jack, self.home, self.rng = jack, Home(folder), random.Random(seed)
        self.home.configure(SETTINGS)
        self.performances = performances
        self.port, self.logs = free_port(), count(1)
        self.peer = Peer(jack)
        self.daemon = self.start_daemon()
        self.remote = Remote(self.port)
        self.remote.send("register_low", THRU_KEYS[-1] + 1)
        self.outcomes: dict[str, Outcome] = defaultdict(Outcome)
        self.hung = self.lost = self.dropped = 0
        self.busy: list[subprocess.Popen[bytes]] = []

    def start_daemon(self) -> Daemon:
        """Starts a daemon with a new log, and waits until it listens."""
        ports = ("--in", "stage-keys", "--out", "stage-synth", "--osc-port", str(self.port))
        path = self.home.data / f"ports-{next(self.logs)}.log"
        program = (sys.executable, "-m", "benchmarks.soak_daemon", str(path))
        daemon = Daemon(ports, {**self.jack.env, "PYTHONPATH": str(ROOT)}, self.home, program)
        self.log = PortLog(path)
        daemon.wait_for_line("listening;", TIMEOUT)
        return daemon

    def play(self, seconds: float) -> None:
        """Plays an excerpt of a performance in real time, and releases all keys and the pedal at its end."""
        actions = self._excerpt(seconds)
        began, held, pedal = time.perf_counter(), set(), False
        for timed in actions:
            time.sleep(max(0.0, began + timed.time - time.perf_counter()))
            self.peer.send(*message_of(timed.action, timed.velocity))
            if timed.action < NOTE_OFF:
                held.add(timed.action - NOTE_ON)
            elif timed.action < SUSTAIN_DOWN:
                held.discard(timed.action - NOTE_OFF)
            else:
                pedal = timed.action == SUSTAIN_DOWN
        for pitch in held:
            self.peer.send(*message_of(NOTE_OFF + pitch, 0))
        if pedal:
            self.peer.send(*message_of(SUSTAIN_UP, 0))

    def _excerpt(self, seconds: float) -> list[Timed]:
        actions = read_file(self.rng.choice(self.performances))
        begin = self.rng.uniform(0, max(0.0, actions[-1].time - seconds))
        return [timed._replace(time=timed.time - begin) for timed in actions if begin <= timed.time < begin + seconds]

    def check_thru(self) -> None:
        """Once both ports of the daemon are open, plays notes for it to pass through, and counts those that do not arrive."""
        self.set_control("thru", 1)
        self.wait_for_arrival(lambda: self.peer.received)
        with self.checking_thru() as note_ons:
            for pitch in THRU_KEYS:
                note_ons.append((0x90, pitch))
                self.peer.send(0x90, pitch, 64)
                time.sleep(0.01)
                self.peer.send(0x80, pitch, 0)
                time.sleep(0.01)
        self.set_control("thru", 0)

    @contextmanager
    def checking_thru(self) -> Iterator[list[tuple[int, int]]]:
        """Yields a list for the (status, pitch) of the note-ons sent meanwhile, and counts those that do not arrive."""
        note_ons: list[tuple[int, int]] = []
        begins = [len(messages) for messages in (self.log.delivered, self.log.accepted, self.peer.received)]
        yield note_ons
        sent = [Message(0.0, status, pitch, 64) for status, pitch in note_ons]

        def missing() -> Missing:
            logs = (self.log.delivered, self.log.accepted, self.peer.received)
            return missing_notes(sent, *(messages[begin:] for messages, begin in zip(logs, begins, strict=True)))

        wait_for(lambda: not any(missing()))
        found = missing()
        self.lost += found.daemon
        self.count_dropped(found)

    def wait_for_arrival(self, received: Callable[[], list[Message]]) -> None:
        """Sends marker messages until ``received``, which returns all messages received so far, has one: everything sent before
        has arrived too. Raises ``RuntimeError`` if none arrives.
        """
        begin = len(received())
        for number in range(round(ATTEMPTS / MARKER_SECONDS)):
            self.peer.send(0xB0, MARKER, number)
            if wait_for(lambda: any(message[1:3] == (0xB0, MARKER) for message in received()[begin:]), MARKER_SECONDS):
                return
        raise RuntimeError("MIDI messages do not arrive")

    def set_control(self, name: str, value: float | str) -> None:
        """Sets a control by OSC and waits until the daemon confirms it. Retries, because a flood can make OSC messages and
        replies get lost. Raises ``RuntimeError`` if there is no confirmation.
        """
        for _ in range(ATTEMPTS):
            known = len(self.remote.received(name))
            self.remote.send(name, value)
            self.remote.send(name)
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                if any(reply.values[0] == value for reply in self.remote.received(name)[known:]):
                    return
                time.sleep(0.01)
        raise RuntimeError(f"the daemon does not confirm the control {name}")

    def takeover(self, timeout: float, repeat: float) -> float | None:
        """Sends a takeover every ``repeat`` seconds. Returns the seconds from the first one to the machine's first note; None
        after ``timeout`` seconds without one.
        """
        before, began = self.peer.struck, time.perf_counter()
        while time.perf_counter() - began < timeout:
            self.remote.send("takeover")
            deadline = time.perf_counter() + repeat
            while time.perf_counter() < deadline:
                if self.peer.struck > before:
                    return time.perf_counter() - began
                time.sleep(0.0005)
        return None

    def check_hanging(self) -> None:
        """Silences the machine and counts the notes that still sound."""
        self.set_control("mode", "listen")
        time.sleep(QUIET)
        wait_for(lambda: not self.peer.sounding)
        self.count_hanging(self.peer.sounding)
        self.remote.send("panic")
        self.set_control("mode", "respond")

    def count_hanging(self, sounding: set[int], *, excused: bool = True) -> None:
        """Adds hung notes to the counts; see ``soak_log.hanging``."""
        found = hanging(sounding, self.log, excused=excused)
        self.hung += found.daemon
        self.count_dropped(found)

    def count_dropped(self, found: Missing) -> None:
        """Adds the notes that JACK dropped to the count, and prints all missing notes."""
        self.dropped += found.undelivered + found.unsent
        if any(found):
            click.echo(f"{found}; JACK has logged {self.jack.log().count('XRun')} xruns", err=True)

    def processes(self) -> list[int]:
        """The process ids of the daemon, first, and its child processes."""
        found = [self.daemon.process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
        return found

    def resources(self) -> tuple[float, int, int]:
        """Resident memory in MB, threads and open files of all ``processes``."""
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


def wait_for(condition: Callable[[], object], timeout: float = TIMEOUT_UNDER_LOAD) -> bool:
    """Waits for a condition; False after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
