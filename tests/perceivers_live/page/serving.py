"""A page that is served without a session, and clients that talk to it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from perceivers_live.controls.registry import Controls
from perceivers_live.page.keys import PageKeys, PageSound
from perceivers_live.page.query import OscQuery
from perceivers_live.page.recordings import Recordings
from perceivers_live.page.requests import PageRequests
from perceivers_live.page.routes import Routes
from perceivers_live.page.server import PageServer
from tests.waiting import PATIENCE


class Site:
    """A page on a free port. ``ran``: the commands that were run; ``received``: the MIDI messages of the input "page"."""

    def __init__(self, recordings: Path | None = None, *, host: str = "127.0.0.1", allow: str = "") -> None:
        self.controls = Controls()
        self.ran: list[tuple[Any, ...]] = []
        self.received: list[tuple[float, tuple[int, ...]]] = []
        self.chosen: list[tuple[str, str]] = []
        self.keys = PageKeys()
        self.keys.open(lambda now, message: self.received.append((now, tuple(message))))

        def takeover() -> None:
            """Play now."""
            self.ran.append(("takeover",))

        def save(name: str) -> None:
            self.ran.append(("save", name))

        commands: dict[str, Callable[..., None]] = {"takeover": takeover, "save": save}
        choose = lambda direction, name: self.chosen.append((direction, name))  # noqa: E731
        self.requests = PageRequests(self.controls, self.keys, session="one")
        self.requests.connect(commands, choose)
        self.hub = self.requests.hub
        self.sound = PageSound(self.hub)
        self.query = OscQuery(self.controls, commands, ("127.0.0.1", 9010), self.hub)
        routes = Routes(self.query.answer, Recordings(recordings) if recordings is not None else None)
        try:
            self.server = PageServer(routes, self.requests.serve, self.query.serve, host, allow=allow)
        except BaseException:
            self.requests.close()
            raise
        self.port = self.server.port

    def close(self) -> None:
        self.query.close()
        self.requests.close()
        self.server.close()


@contextmanager
def served(recordings: Path | None = None, **options: str) -> Iterator[Site]:
    running = Site(recordings, **options)
    try:
        yield running
    finally:
        running.close()


class Page:
    """A client of the page's server that the test controls."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._received: list[dict[str, Any]] = []
        self.number = self.next("you")["number"]
        self.welcome = self.next("welcome")

    def send(self, type: str, **fields: object) -> None:
        self.connection.send(json.dumps({"type": type, **fields}))

    def next(self, *types: str) -> dict[str, Any]:
        """The next message of one of these types; others are skipped."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while self._received:
                message = self._received.pop(0)
                if message["type"] in types:
                    return message
            self._received += json.loads(self.connection.recv(max(0.0, deadline - time.monotonic())))

    def ping(self) -> dict[str, Any]:
        """Waits until everything sent before has been processed; returns the reply."""
        self.send("ping", sent=1.5)
        return self.next("pong")


@contextmanager
def page(site: Site, **headers: str) -> Iterator[Page]:
    with connect(f"ws://127.0.0.1:{site.port}/page/socket", additional_headers=headers, compression=None) as connection:
        yield Page(connection)


def raw(port: int, content: bytes) -> bytes:
    """The complete answer to these bytes, until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(content)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received
