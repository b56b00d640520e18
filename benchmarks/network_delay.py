"""The model behind a network with delay: python -m benchmarks.network_delay [--delay 0 --delay 10 ...] [--losses 3] [--rate 30]

The bundled model runs behind a real ``sshd`` on loopback, and plays a solo through the same runtime and standby as with
``--engine``. A relay between ``ssh`` and ``sshd`` delays every byte in both directions, with a random jitter of 10 %. With
``--rate``, a call of so many notes per second precedes the solo, which keeps this rate. Columns, for each delay (one way, ms):

    event         time of a decision in a solo, ms: p50 / p99; several decisions are made in one round trip
    possible      notes per second that these decisions allow
    lateness      of events, ms: p50 / p99
    in time       share of events that are at most 10 ms late
    notes/s       notes per second of the solo
    key           from a key press to the last note-off of the machine, ms: p50 / max
    silence       the longest time without planned events while the connection works, s
    link down     the same after the relay is stopped, so that the connection hangs, s
    ssh killed    the same after ``ssh`` is killed, s
    hung          hung notes; should be 0
    faults        faults that ended a turn; should be 0
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import random
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue

import click
import numpy as np

from engine.adjustment import CallStatistics, Goal, Target
from engine.ahead import DecisionRequest
from engine.checkpoint import bundled
from engine.engine import Engine
from engine.remote.address import parse
from engine.remote.standby import StandbyRuntime, open_runtime_at
from engine.sampling import SamplingControls
from perceivers_live.commands.measuring import computer
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import OscSettings, Settings
from perceivers_live.performer.performer import State
from perceivers_live.player.player import LATE
from perceivers_live.session.session import Session
from tests.engine.remote.ssh_server import SshServer
from tests.free_port import free_port

JITTER = 0.1  # relative to the delay
WAIT_TIMEOUT = 60.0  # seconds
KEY_PRESSES = 8
CALL_SECONDS = 4.0


def relay(port: int, target: int, delay: float) -> None:
    """Forwards connections from port ``port`` to port ``target`` on loopback, delayed by ``delay`` seconds."""
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            near = server.accept()[0]
            far = socket.create_connection(("127.0.0.1", target))
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                chunks: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                threading.Thread(target=_receive, args=(source, chunks, delay), daemon=True).start()
                threading.Thread(target=_send_when_due, args=(sink, chunks), daemon=True).start()


def _receive(source: socket.socket, chunks: SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    rng, last = random.Random(1), 0.0
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            last = max(last, time.perf_counter() + delay * (1 + rng.uniform(-JITTER, JITTER)))  # chunks stay in order, as in TCP
            chunks.put((last, data))
    chunks.put((0.0, b""))


def _send_when_due(sink: socket.socket, chunks: SimpleQueue[tuple[float, bytes]]) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, data = chunks.get()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            sink.sendall(data)


class Port:
    """An output port that records messages and the times at which they were sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, tuple[int, ...]]] = []

    def send(self, message: Sequence[int]) -> None:
        self.sent.append((time.perf_counter(), tuple(message)))

    def note_on_times(self, since: float) -> list[float]:
        """Times of the note-ons from ``since`` on."""
        return [when for when, message in list(self.sent) if when >= since and message[0] & 0xF0 == 0x90 and message[2]]

    def hanging(self) -> int:
        """Number of notes that were not released."""
        held: set[int] = set()
        for _, message in self.sent:
            if message[0] & 0xF0 == 0x90 and message[2]:
                held.add(message[1])
            elif message[0] & 0xF0 in (0x80, 0x90):
                held.discard(message[1])
        return len(held)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table; the module's docstring defines the columns. ``delay`` is in ms."""

    delay: float
    event_p50: float
    event_p99: float
    possible: float
    late_p50: float
    late_p99: float
    in_time: float
    notes_a_second: float
    key_p50: float
    key_max: float
    silence: float
    silence_dead: float
    silence_killed: float
    hung: int
    faults: float


class RemoteSession:
    """A session whose runtime is behind a relay. It plays a solo after a call of ``rate`` notes per second."""

    def __init__(self, server: SshServer, relay_port: int, rate: float) -> None:
        address = parse(server.address.replace(str(server.port), str(relay_port)), "onnx", 1)
        runtime = open_runtime_at(address, bundled())
        assert isinstance(runtime, StandbyRuntime)
        self.runtime, self.port = runtime, Port()
        self.controls = Controls({"mode": "respond", "seed": 5, "patience": 4.0})
        settings = Settings(osc=OscSettings(enabled=False))
        self.session = Session(Engine(runtime), settings, self.controls, self.port.send)
        self._thread = threading.Thread(target=self.session.run)
        self._thread.start()
        self.call(rate)
        self.controls.set("mode", "solo")

    def call(self, rate: float) -> None:
        """Plays an even run up and down for ``CALL_SECONDS`` at ``rate`` notes per second; nothing if it is 0."""
        began, count = time.perf_counter(), round(CALL_SECONDS * rate)
        for i in range(count):
            pitch = 48 + abs(i % 48 - 24)
            time.sleep(max(0.0, began + i / rate - time.perf_counter()))
            self.session.receive(time.perf_counter(), (0x90, pitch, 60))
            self.session.receive(time.perf_counter(), (0x80, pitch, 0))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition. Raises ``click.ClickException`` after ``WAIT_TIMEOUT`` seconds."""
        end = time.monotonic() + WAIT_TIMEOUT
        while not condition():
            if time.monotonic() > end:
                raise click.ClickException(f"timeout: {what}; {self.session.stats()}")
            time.sleep(0.01)

    def close(self) -> None:
        self.session.stop()
        self._thread.join()
        self.runtime.close()

    def play_undisturbed(self, seconds: float) -> tuple[list[float], float, float]:
        """Plays for ``seconds`` with a working connection. Returns the lateness of events in ms, notes per second, and the
        longest time without planned events in seconds.
        """
        self.until(lambda: len(self.port.note_on_times(0)) > 5, "a solo")
        self.session.player.lateness.clear()
        began = time.perf_counter()
        silence = self.silence(lambda: time.perf_counter() > began + seconds)
        late = [1000 * seconds_late for seconds_late in self.session.player.lateness]
        return late, len(self.port.note_on_times(began)) / seconds, silence

    def silence(self, until: Callable[[], bool]) -> float:
        """Waits for ``until``. Returns the longest time without planned events in seconds."""
        longest, planned = 0.0, time.perf_counter()
        while not until():
            now = time.perf_counter()
            if self.session.player.planned():
                planned = now
            longest = max(longest, now - planned)
            time.sleep(0.002)
        return longest

    def silence_after_loss(self, break_link: Callable[[], None], restore_link: Callable[[], None]) -> float:
        """Breaks the connection and restores it after 3 s. Returns the longest time without planned events until the remote
        runtime is in use again, in seconds.
        """
        began = time.perf_counter()
        break_link()
        silence = self.silence(lambda: time.perf_counter() > began + 3)
        restore_link()
        return max(silence, self.silence(lambda: not self.runtime.standby))

    def _sounds(self) -> bool:
        """Whether the machine holds a note; starts a takeover if it is listening."""
        if self.session.performer.state is State.LISTENING:
            self.session.commands()["takeover"]()
        return bool(self.session.player.ledger.notes)

    def key_press_times(self) -> list[float]:
        """Times from key presses to the machine's last note-off in ms. After each, a takeover starts the machine again."""
        self.controls.set("mode", "respond")
        taken = []
        for _ in range(KEY_PRESSES):
            self.until(self._sounds, "a reply")
            began = time.perf_counter()
            self.session.receive(began, (0x90, 30, 80))
            self.until(lambda: not self.session.player.ledger.notes, "silence")
            ends = [when for when, message in self.port.sent if when >= began and message[0] & 0xF0 == 0x80]
            taken.append(1000 * (ends[-1] - began) if ends else 0.0)
            self.session.receive(time.perf_counter(), (0x80, 30, 0))
            time.sleep(0.2)
        return taken


def decision_times(runtime: StandbyRuntime, count: int) -> tuple[list[float], float]:
    """Makes ``count`` decisions of a solo. Returns the time of each in ms, and the note-ons per second of that time. A decision
    that the server made ahead takes no round trip.
    """
    engine, taken, notes = Engine(runtime), list[float](), 0
    goal = Goal(0.0, Target.of(CallStatistics(8.0, 64.0), 0.0, 0.0), 4.0)
    request = DecisionRequest(5, SamplingControls(), frozenset(), False, frozenset(), (), goal, engine.step)
    for _ in range(count):
        began = time.perf_counter()
        event = engine.decide_request(request)
        engine.absorb([event])
        request = request.next(event)
        taken.append(1000 * (time.perf_counter() - began))
        notes += event.is_note_on
    return taken, 1000 * notes / sum(taken)


@contextlib.contextmanager
def relaying(server: SshServer, port: int, delay: float) -> Iterator[BaseProcess]:
    """Runs a relay from ``port`` to the server in another process; ``delay`` in seconds."""
    process = multiprocessing.get_context("spawn").Process(target=relay, args=(port, server.port, delay), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def measure(server: SshServer, port: int, delay: float, seconds: float, losses: int, rate: float) -> Row:
    """Measures a row; ``delay`` in ms, one way. ``losses``: number of connection losses of each kind."""
    with relaying(server, port, delay / 1000) as relay_process:
        assert relay_process.pid is not None
        pid = relay_process.pid
        time.sleep(2)  # until it listens
        remote = RemoteSession(server, port, rate)
        try:
            late, note_rate, silence = remote.play_undisturbed(seconds)
            down, killed = [0.0], [0.0]
            for _ in range(losses):
                down.append(remote.silence_after_loss(lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT)))
                killed.append(
                    remote.silence_after_loss(lambda: os.kill(remote.runtime._first._server.pid, signal.SIGKILL), lambda: None)
                )
            keys = remote.key_press_times()
            faults = remote.session.stats()["faults"]
            remote.session.stop()
            remote._thread.join()
            taken, possible = decision_times(remote.runtime, 400)
        finally:
            remote.close()
    event_p50, event_p99 = np.percentile(taken, [50, 99]).tolist()
    late_p50, late_p99 = np.percentile(late, [50, 99]).tolist()
    return Row(
        delay,
        event_p50,
        event_p99,
        possible,
        late_p50,
        late_p99,
        float(np.mean([ms <= 1000 * LATE for ms in late])),
        note_rate,
        float(np.median(keys)),
        max(keys),
        silence,
        max(down),
        max(killed),
        remote.port.hanging(),
        faults,
    )


@click.command()
@click.option("--delay", "delays", type=float, multiple=True, default=(0, 2, 10, 40), show_default=True, help="One way, ms.")
@click.option("--seconds", default=20.0, show_default=True, help="Length of the solo with a working connection.")
@click.option("--losses", default=3, show_default=True, help="Connection losses of each kind.")
@click.option("--rate", default=0.0, show_default=True, help="Notes per second of a call before the solo; 0: no call.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(delays: tuple[float, ...], seconds: float, losses: int, rate: float, json_file: Path | None) -> None:
    print(f"{computer()}; the bundled model behind ssh and a relay with delay")
    print(f"{'one way':>8}{'event ms':>16}{'possible':>10}{'lateness ms':>16}{'in time':>9}{'notes/s':>9}{'key ms':>15}", end="")
    print(f"{'silence s':>11}{'link down':>11}{'ssh killed':>12}{'hung':>6}{'faults':>8}")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "sshd").mkdir()
        with SshServer(folder / "sshd") as server:
            os.environ["PATH"] = f"{server.client(folder / 'client', known=False)}:{os.environ['PATH']}"
            with (folder / "client" / "config").open("a") as config:
                config.write("StrictHostKeyChecking accept-new\n")  # ssh takes each port of the relay for another host

            for delay in delays:
                row = measure(server, free_port(), delay, seconds, losses, rate)
                rows.append(row)
                event, late = f"{row.event_p50:.1f} / {row.event_p99:.1f}", f"{row.late_p50:.2f} / {row.late_p99:.1f}"
                key, rates = f"{row.key_p50:.2f} / {row.key_max:.2f}", f"{100 * row.in_time:8.1f}%{row.notes_a_second:9.1f}"
                print(
                    f"{delay:8g}{event:>16}{row.possible:10.1f}{late:>16}{rates}{key:>15}",
                    end="",
                )
                print(
                    f"{row.silence:11.2f}{row.silence_dead:11.2f}{row.silence_killed:12.2f}{row.hung:6}{row.faults:8.0f}",
                    flush=True,
                )
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": computer(), "rows": [dataclasses.asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
