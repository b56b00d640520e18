"""Hostile clients of the page while the machine plays: the music continues, and no resources leak."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.live.live_session import LiveSession
from tests.live.waiting import TIMEOUT, until

CONNECTIONS, AT_ONCE = 10_000, 500  # the process of the tests may have 1024 files open on most systems
MAX_MEMORY_GROWTH = 32.0  # MB more than before: the stacks and buffers that the system keeps for later


class Resources(NamedTuple):
    """What a process uses; memory in MB."""

    files: int
    threads: int
    memory: float


def resources(pid: int) -> Resources:
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Resources(len(list((process / "fd").iterdir())), int(status["Threads"]), int(status["VmRSS"].split()[0]) / 1024)


def is_served(url: str) -> bool:
    """Whether a page can connect and receives the welcome message."""
    with suppress(OSError, WebSocketException), connect(url, open_timeout=2.0) as page:
        return any(message["type"] == "welcome" for _ in range(2) for message in json.loads(page.recv(2.0)))
    return False


def test_many_connections_neither_stop_the_music_nor_leak_resources(start_session: Callable[..., LiveSession]) -> None:
    session = start_session("--mode", "solo")
    address = session.daemon.wait_for_line(r"the page is at (http://\S+)", TIMEOUT)[1]
    url, parts = address.replace("http", "ws") + "socket", urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    until(lambda: is_served(url))
    session.wait_for_notes(10)
    pid = session.daemon.process.pid
    before = resources(pid)
    for _ in range(CONNECTIONS // AT_ONCE):
        with ExitStack() as held:
            for _ in range(AT_ONCE):
                connection = held.enter_context(socket.socket())
                connection.setblocking(False)
                connection.connect_ex((parts.hostname, parts.port))  # most wait in the kernel, which accepts a few
            session.wait_for_notes()
    session.wait_for_notes(5)
    until(lambda: is_served(url))

    def is_as_before() -> bool:
        now = resources(pid)
        return now.files <= before.files and now.threads <= before.threads and now.memory <= before.memory + MAX_MEMORY_GROWTH

    until(is_as_before, lambda: (before, resources(pid)))
    assert not [line for line in session.daemon.lines if "the engine failed" in line or "the player failed" in line]
    session.remote.send("mode", "listen")
    session.wait_for_state("listening")
    session.wait_for_silence()
