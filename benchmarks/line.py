"""The model behind a network with delay: python -m benchmarks.line [--delay 0 --delay 10 ...] [--losses 3] [--rate 30]

The model runs behind a real ``sshd`` on loopback. A relay between it and ``ssh`` delays every byte, in both directions, with a
random jitter of a tenth. A solo plays the bundled model with the runtime and standby of ``--engine``. With ``--rate``, a call of
so many notes a second precedes the solo, which keeps its rate. For each delay (one way, ms):

    event       consecutive decisions of a solo, ms: p50 / p99; several are made in a round trip
    possible    notes a second that these decisions allow: note-ons by the time that they took
    lateness    of events, ms: p50 / p99, and the share of them that left at most 10 ms late
    notes/s     that the solo played
    key         from a key press to the note-offs that silence the machine, ms: p50 / max
    silence     seconds: the longest time without planned events: without losses; after the connection hangs (the relay is
                stopped); after ``ssh`` is killed. There must be no hung notes and no faults that end a turn
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

from engine.adjustment import Call, Goal, Target
from engine.ahead import DecisionRequest
from engine.checkpoint import bundled
from engine.engine import Engine
from engine.remote.address import parse
from engine.remote.standby import StandbyRuntime, open_runtime_at
from engine.sampling import SamplingControls
from perceivers_live.commands.measuring import machine
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import OscSettings, Settings
from perceivers_live.performer.performer import State
from perceivers_live.player.player import LATE
from perceivers_live.session.session import Session
from tests.engine.remote.ssh_server import SshServer

JITTER = 0.1  # of the delay
PATIENCE = 60.0
KEYS = 8  # presses
CALL_SECONDS = 4.0


def relay(port: int, target: int, delay: float) -> None:
    """Forwards connections from ``port`` to ``target``, with ``delay`` seconds of delay."""
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            near = server.accept()[0]
            far = socket.create_connection(("127.0.0.1", target))
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pieces: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                threading.Thread(target=_take, args=(source, pieces, delay), daemon=True).start()
                threading.Thread(target=_give, args=(sink, pieces), daemon=True).start()


def _take(source: socket.socket, pieces: SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    chance, last = random.Random(1), 0.0
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            last = max(last, time.perf_counter() + delay * (1 + chance.uniform(-JITTER, JITTER)))  # in order, as TCP is
            pieces.put((last, data))
    pieces.put((0.0, b""))


def _give(sink: socket.socket, pieces: SimpleQueue[tuple[float, bytes]]) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, data = pieces.get()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            sink.sendall(data)


class Port:
    """An output port that records messages and their times."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, tuple[int, ...]]] = []

    def send(self, message: Sequence[int]) -> None:
        self.sent.append((time.perf_counter(), tuple(message)))

    def strikes(self, since: float) -> list[float]:
        return [at for at, message in list(self.sent) if at >= since and message[0] & 0xF0 == 0x90 and message[2]]

    def hanging(self) -> int:
        held: set[int] = set()
        for _, message in self.sent:
            if message[0] & 0xF0 == 0x90 and message[2]:
                held.add(message[1])
            elif message[0] & 0xF0 in (0x80, 0x90):
                held.discard(message[1])
        return len(held)


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the table, see above. ``delay`` in ms."""

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


class Playing:
    """A session that plays on a runtime behind a relay."""

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
        """Plays ``CALL_SECONDS`` of an even run up and down, at ``rate`` notes a second; nothing at 0."""
        began, count = time.perf_counter(), round(CALL_SECONDS * rate)
        for i in range(count):
            pitch = 48 + abs(i % 48 - 24)
            time.sleep(max(0.0, began + i / rate - time.perf_counter()))
            self.session.receive(time.perf_counter(), (0x90, pitch, 60))
            self.session.receive(time.perf_counter(), (0x80, pitch, 0))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise click.ClickException(f"timeout: {what}; {self.session.stats()}")
            time.sleep(0.01)

    def close(self) -> None:
        self.session.stop()
        self._thread.join()
        self.runtime.close()

    def steadily(self, seconds: float) -> tuple[list[float], float, float]:
        """Lateness in ms, notes a second, and the longest silence, without losses."""
        self.until(lambda: len(self.port.strikes(0)) > 5, "a solo")
        self.session.player.lateness.clear()
        began = time.perf_counter()
        silence = self.silence(lambda: time.perf_counter() > began + seconds)
        late = [1000 * one for one in self.session.player.lateness]
        return late, len(self.port.strikes(began)) / seconds, silence

    def silence(self, until: Callable[[], bool]) -> float:
        """The longest time in seconds without planned events."""
        longest, planned = 0.0, time.perf_counter()
        while not until():
            now = time.perf_counter()
            if self.session.player.planned():
                planned = now
            longest = max(longest, now - planned)
            time.sleep(0.002)
        return longest

    def lost(self, lose: Callable[[], None], mend: Callable[[], None]) -> float:
        """The longest silence in seconds from a loss until the runtime is in use again."""
        began = time.perf_counter()
        lose()
        silence = self.silence(lambda: time.perf_counter() > began + 3)
        mend()
        return max(silence, self.silence(lambda: not self.runtime.standby))

    def _sounds(self) -> bool:
        """Whether the machine holds a note; sends a takeover if it holds none."""
        if self.session.performer.state is State.LISTENING:
            self.session.commands()["takeover"]()
        return bool(self.session.player.ledger.notes)

    def pressed(self) -> list[float]:
        """Times from key presses until the machine is silent, ms. A takeover starts it again."""
        self.controls.set("mode", "respond")
        taken = []
        for _ in range(KEYS):
            self.until(self._sounds, "a reply")
            began = time.perf_counter()
            self.session.receive(began, (0x90, 30, 80))
            self.until(lambda: not self.session.player.ledger.notes, "silence")
            ends = [at for at, message in self.port.sent if at >= began and message[0] & 0xF0 == 0x80]
            taken.append(1000 * (ends[-1] - began) if ends else 0.0)
            self.session.receive(time.perf_counter(), (0x80, 30, 0))
            time.sleep(0.2)
        return taken


def events(playing: StandbyRuntime, count: int) -> tuple[list[float], float]:
    """Milliseconds of consecutive decisions of a solo, and note-ons a second of that time. Decisions that were made ahead take no
    round trip.
    """
    engine, taken, notes = Engine(playing), list[float](), 0
    goal = Goal(0.0, Target.of(Call(8.0, 64.0), 0.0, 0.0), 4.0)
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
    process = multiprocessing.get_context("spawn").Process(target=relay, args=(port, server.port, delay), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def measure(server: SshServer, port: int, delay: float, seconds: float, losses: int, rate: float) -> Line:
    with relaying(server, port, delay / 1000) as line:
        assert line.pid is not None
        pid = line.pid
        time.sleep(2)  # until it listens
        playing = Playing(server, port, rate)
        try:
            late, played, silence = playing.steadily(seconds)
            dead, killed = [0.0], [0.0]
            for _ in range(losses):
                dead.append(playing.lost(lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT)))
                killed.append(playing.lost(lambda: os.kill(playing.runtime._first._server.pid, signal.SIGKILL), lambda: None))
            keys = playing.pressed()
            faults = playing.session.stats()["faults"]
            playing.session.stop()
            playing._thread.join()
            taken, possible = events(playing.runtime, 400)
        finally:
            playing.close()
    return Line(
        delay,
        *np.percentile(taken, [50, 99]).tolist(),
        possible,
        *np.percentile(late, [50, 99]).tolist(),
        float(np.mean([one <= 1000 * LATE for one in late])),
        played,
        float(np.median(keys)),
        max(keys),
        silence,
        max(dead),
        max(killed),
        playing.port.hanging(),
        faults,
    )


@click.command()
@click.option("--delay", "delays", type=float, multiple=True, default=(0, 2, 10, 40), show_default=True, help="One way, ms.")
@click.option("--seconds", default=20.0, show_default=True, help="Of a solo without losses.")
@click.option("--losses", default=3, show_default=True, help="Of each kind.")
@click.option("--rate", default=0.0, show_default=True, help="Notes a second of a call before the solo; 0: no call.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(delays: tuple[float, ...], seconds: float, losses: int, rate: float, json_file: Path | None) -> None:
    print(f"{machine()}; the bundled model behind ssh and a relay with delay")
    print(f"{'one way':>8}{'event ms':>16}{'possible':>10}{'lateness ms':>16}{'in time':>9}{'notes/s':>9}{'key ms':>15}", end="")
    print(f"{'silence s':>11}{'line dead':>11}{'ssh killed':>12}{'hung':>6}{'faults':>8}")
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "sshd").mkdir()
        with SshServer(folder / "sshd") as server:
            os.environ["PATH"] = f"{server.client(folder / 'client', known=False)}:{os.environ['PATH']}"
            with (folder / "client" / "config").open("a") as config:
                config.write("StrictHostKeyChecking accept-new\n")  # the relay's ports are other hosts to ssh
            from tests.engine.remote.ssh_server import free_port

            for delay in delays:
                one = measure(server, free_port(), delay, seconds, losses, rate)
                lines.append(one)
                event, late = f"{one.event_p50:.1f} / {one.event_p99:.1f}", f"{one.late_p50:.2f} / {one.late_p99:.1f}"
                key, rates = f"{one.key_p50:.2f} / {one.key_max:.2f}", f"{100 * one.in_time:8.1f}%{one.notes_a_second:9.1f}"
                print(
                    f"{delay:8g}{event:>16}{one.possible:10.1f}{late:>16}{rates}{key:>15}",
                    end="",
                )
                print(
                    f"{one.silence:11.2f}{one.silence_dead:11.2f}{one.silence_killed:12.2f}{one.hung:6}{one.faults:8.0f}",
                    flush=True,
                )
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine(), "rows": [dataclasses.asdict(one) for one in lines]}))


if __name__ == "__main__":
    main()
