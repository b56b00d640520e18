"""Targets at the page's port: HTTP requests, messages of the page, messages of OSCQuery clients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from websockets.http11 import Request
from websockets.server import ServerProtocol

from engine.errors import UserError
from engine.midi import MessageReader
from fuzz.contract import Maker, Target, one_line_errors, require
from fuzz.live import FuzzSession
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.page.client import Client
from perceivers_live.page.hub import Hub
from perceivers_live.page.keys import PageKeys
from perceivers_live.page.protocol import frame, parse
from perceivers_live.page.query import OscQuery
from perceivers_live.page.recordings import Recordings
from perceivers_live.page.requests import PageRequests
from perceivers_live.page.routes import Routes
from perceivers_live.page.server import PageServer

SECRET = b"not to be read"


def http(scratch: Path) -> Target:
    """HTTP requests: each is answered without a server error, and no file outside the page and the recordings is read."""
    fuzzed = FuzzSession(scratch)
    (scratch / "secret.mid").write_bytes(SECRET)
    (scratch / "sessions").mkdir()
    query = OscQuery(fuzzed.controls, fuzzed.commands, ("127.0.0.1", 9010), Hub(dict))
    server = PageServer(Routes(query.answer, Recordings(scratch / "sessions")), lambda _: None, query.serve)
    server.close()

    def feed(data: bytes) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(data)
        protocol.receive_eof()
        for request in protocol.events_received():
            if isinstance(request, Request):
                response = server._process_request(cast(Any, None), request)
                require(response is None or 200 <= response.status_code < 500, "a request caused a server error")
                require(response is None or SECRET not in response.body, "a file outside the folders was read")

    def get(target: str, *headers: str) -> bytes:
        return "\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()

    asked = [
        "/",
        "/perceivers/temperature?VALUE",
        "/?HOST_INFO",
        "/perceivers?CONTENTS&TYPE",
        "/%2e%2e/a",
        "/page/",
        "/page/main.js",
    ]
    asked += ["/recordings", "/recordings/../secret.mid", "/recordings/2026-01-01_10-00-00.mid", "/page/../server.py"]
    seeds = [get(target) for target in asked]
    seeds += [get("/page/socket", "Upgrade: websocket", "Connection: Upgrade", "Origin: http://localhost"), b"GET /\r\n"]
    return Target(feed, [*seeds, get("/", "Content-Length: 5") + b"hello", seeds[1].replace(b"GET", b"HEAD")])


def page(scratch: Path) -> Target:
    """Messages of the page, one per line: each is executed or gets a one-line error, and all keys are released at the end."""
    fuzzed, keys = FuzzSession(scratch), PageKeys()
    down = MessageReader()

    def receive(now: float, message: Sequence[int]) -> None:
        down.feed(now, message)

    keys.open(receive)
    requests = PageRequests(fuzzed.controls, keys)
    requests.connect(fuzzed.commands, lambda direction, name: None)

    def feed(data: bytes) -> None:
        for line in data.split(b"\n")[:16]:
            answer = None
            with one_line_errors(UserError):
                answer = requests._follow(parse(line), 1)
            if answer is not None:
                json.loads(frame([answer]))
        for name, value in fuzzed.controls.snapshot().items():
            require(CONTROLS[name].clamp(value) == value, f"{name} is {value}")
        keys.gone(1)
        require(not down.held and not down.pedal, "a key is still held")

    seeds: list[dict[str, Any]] = [
        {"type": "ping", "sent": 1.5},
        {"type": "set", "name": "temperature", "value": 1.2},
        {"type": "set", "name": "mode", "value": "duet"},
        {"type": "set", "name": "hold", "value": True},
        {"type": "command", "name": "takeover", "arguments": []},
        {"type": "command", "name": "save", "arguments": ["a"]},
        {"type": "command", "name": "learn", "arguments": ["mode"]},
        {"type": "midi", "time": 1.5, "message": [144, 60, 80]},
        {"type": "midi", "time": 2, "message": [176, 64, 127]},
        {"type": "port", "direction": "input", "name": "page"},
    ]
    lines = [json.dumps(one).encode() for one in seeds]
    return Target(feed, [*lines, b"\n".join(lines)], 1024)


def query_socket(scratch: Path) -> Target:
    """Messages of an OSCQuery client: it can listen only to existing controls."""
    fuzzed = FuzzSession(scratch)
    query = OscQuery(fuzzed.controls, fuzzed.commands, None, Hub(dict))
    client = cast(Client, object())

    def feed(data: bytes) -> None:
        query._listeners[client] = set()
        for line in data.split(b"\n")[:16]:
            query._follow(client, line)
        require(query._listeners[client] <= set(CONTROLS), "it listens to something that is not a control")

    asked = [{"COMMAND": command, "DATA": "/perceivers/temperature"} for command in ("LISTEN", "IGNORE")]
    return Target(feed, [json.dumps(one).encode() for one in asked], 512)


TARGETS: dict[str, Maker] = {maker.__name__: maker for maker in (http, page, query_socket)}
