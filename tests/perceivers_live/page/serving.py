"""A page that is served without a session behind it, and programs that speak to it."""

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
from perceivers_live.page.library import Library
from perceivers_live.page.query import OscQuery
from perceivers_live.page.requests import PageRequests
from perceivers_live.page.routes import Routes
from perceivers_live.page.server import PageServer
from tests.waiting import PATIENCE


class Served:
    """A page on a free port. ``ran``: the commands that were run; ``heard``: what was played on the input "page"."""

    def __init__(self, recordings: Path | None = None, *, host: str = "127.0.0.1", allow: str = "") -> None:
        self.controls = Controls()
        self.ran: list[tuple[Any, ...]] = []
        self.heard: list[tuple[float, tuple[int, ...]]] = []
        self.chosen: list[tuple[str, str]] = []
        self.keys = PageKeys()
        self.keys.open(lambda now, message: self.heard.append((now, tuple(message))))

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
        routes = Routes(self.query.answer, Library(recordings) if recordings is not None else None)
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
def served(recordings: Path | None = None, **options: str) -> Iterator[Served]:
    running = Served(recordings, **options)
    try:
        yield running
    finally:
        running.close()


class Page:
    """A page that is played by the test."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._received: list[dict[str, Any]] = []
        self.number = self.next("you")["number"]
        self.welcome = self.next("welcome")

    def send(self, type: str, **fields: object) -> None:
        self.connection.send(json.dumps({"type": type, **fields}))

    def next(self, *types: str) -> dict[str, Any]:
        """The next message of one of these types; others are left out."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while self._received:
                message = self._received.pop(0)
                if message["type"] in types:
                    return message
            self._received += json.loads(self.connection.recv(max(0.0, deadline - time.monotonic())))

    def ping(self) -> dict[str, Any]:
        """What was sent before has been followed."""
        self.send("ping", sent=1.5)
        return self.next("pong")


@contextmanager
def page(stage: Served, **headers: str) -> Iterator[Page]:
    with connect(f"ws://127.0.0.1:{stage.port}/page/socket", additional_headers=headers, compression=None) as connection:
        yield Page(connection)


def raw(port: int, content: bytes) -> bytes:
    """Everything that is answered to these bytes, until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(content)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received
