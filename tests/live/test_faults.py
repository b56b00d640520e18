"""What a gig does to a daemon: cables pulled, a server killed, the daemon killed. Nothing hangs, and it goes on by itself."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from jack_server import JackServer, end

PATIENCE = 30.0
DAEMON = ("--in", "stage-keys", "--out", "stage-synth", "--seed", "3")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Peer:
    """A keyboard and a synthesizer, and what has arrived there."""

    def __init__(self, jack: JackServer) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("peer.py")), "stage"],
            env=jack.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.messages: list[tuple[int, ...]] = []
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.messages.append(tuple(bytes.fromhex(line.split(" ", 1)[1])))

    def play(self, *pitches: int) -> None:
        """A phrase."""
        for pitch in pitches or (60, 64, 67, 72):
            self.send(0x90, pitch, 80)
            time.sleep(0.12)
            self.send(0x80, pitch, 64)

    def send(self, *message: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(bytes(message).hex(" ") + "\n")
        self._process.stdin.flush()

    @property
    def struck(self) -> int:
        """Note-ons that have arrived."""
        return sum(1 for m in self.messages if m[0] & 0xF0 == 0x90 and m[2])

    @property
    def sounding(self) -> set[int]:
        """Pitches without a note-off; the pedal as -1."""
        held: set[int] = set()
        for status, first, second in (m for m in self.messages if len(m) == 3):
            if status & 0xF0 == 0x90 and second:
                held.add(first)
            elif status & 0xF0 in (0x80, 0x90):
                held.discard(first)
            elif status & 0xF0 == 0xB0 and first == 64:
                (held.add if second >= 64 else held.discard)(-1)
        return held

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"it never came; {len(self.messages)} messages arrived"
            time.sleep(0.01)

    def answered(self) -> None:
        """Plays, and waits until the machine has begun to answer."""
        before = self.struck
        self.play()
        self.until(lambda: self.struck > before + 1)

    def close(self) -> None:
        end(self._process)  # type: ignore[arg-type]
        self._reader.join(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()


@pytest.fixture
def server() -> Iterator[JackServer]:
    """A server of the test's own: it will not survive."""
    with JackServer() as server:
        yield server


@pytest.fixture
def stage(server: JackServer) -> Iterator[Callable[[], Peer]]:
    with ExitStack() as closing:

        def begin() -> Peer:
            peer = Peer(server)
            closing.callback(peer.close)
            return peer

        yield begin


@pytest.fixture
def start(server: JackServer, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    from conftest import Daemon

    with ExitStack() as closing:

        def begin() -> Any:
            env = server.env | {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
            daemon = Daemon((*DAEMON, "--osc-port", str(free_port())), env)
            closing.callback(daemon.end)
            daemon.wait_for_line("listening;", PATIENCE)
            return daemon

        yield begin


def test_ports_that_are_not_there_yet_are_waited_for(stage: Callable[[], Peer], start: Callable[[], Any]) -> None:
    daemon = start()
    daemon.wait_for_line("waiting for it", PATIENCE)
    peer = stage()
    daemon.wait_for_line("in: stage-keys", PATIENCE)
    peer.answered()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    peer.until(lambda: not peer.sounding)


def test_a_keyboard_that_is_unplugged_and_plugged_in_again(stage: Callable[[], Peer], start: Callable[[], Any]) -> None:
    peer, daemon = stage(), start()
    peer.answered()
    peer.send(0x90, 40, 90)  # held while the cable is pulled
    peer.close()
    daemon.wait_for_line("input stage-keys.* is gone", PATIENCE)
    lines = len(daemon.lines)
    again = stage()
    daemon.wait_for_line("in: stage-keys", PATIENCE, start=lines)
    again.answered()  # a key that were still held would put the answer off
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    again.until(lambda: not again.sounding)


def test_a_server_that_is_killed_and_started_again(
    server: JackServer, stage: Callable[[], Peer], start: Callable[[], Any]
) -> None:
    peer, daemon = stage(), start()
    peer.answered()
    lines = len(daemon.lines)
    server.restart()
    daemon.wait_for_line("MIDI system is back", PATIENCE)
    again = stage()
    daemon.wait_for_line("in: stage-keys", PATIENCE, start=lines)
    again.answered()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    again.until(lambda: not again.sounding)


def test_a_killed_daemon_leaves_nothing_sounding(stage: Callable[[], Peer], start: Callable[[], Any]) -> None:
    peer, daemon = stage(), start()
    for _ in range(3):
        peer.answered()
        peer.until(lambda: peer.sounding)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        peer.until(lambda: not peer.sounding)
        daemon = start()
