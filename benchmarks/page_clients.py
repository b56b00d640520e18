"""Runs well and badly behaved clients of the page until standard input ends: python -m benchmarks.page_clients URL [KIND ...]

reader     reads everything and sends a ping now and then, as the real page does
silent     connects and never reads
slow       reads one byte per second
large      keeps sending frames of 1 MB
flood      opens connections as fast as it can, up to 10,000 at a time, and sends nothing
nonsense   sends invalid messages as fast as it can
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.sync.client import connect

MAX_CONNECTIONS = 10_000


def reader(host: str, port: int) -> None:
    with connect(f"ws://{host}:{port}/page/socket") as page:
        for number, _ in enumerate(page):
            if number % 100 == 0:
                page.send(json.dumps({"type": "ping", "sent": time.perf_counter()}))


def silent(host: str, port: int) -> None:
    with connect(f"ws://{host}:{port}/page/socket", max_queue=1):
        time.sleep(3600)


def slow(host: str, port: int) -> None:
    with socket.create_connection((host, port)) as raw:
        key = "Sec-WebSocket-Key: " + "A" * 22 + "==\r\n"
        raw.sendall(
            f"GET /page/socket HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\n{key}\r\n".encode()
        )
        while raw.recv(1):
            time.sleep(1)


def large(host: str, port: int) -> None:
    with connect(f"ws://{host}:{port}/page/socket") as page:
        while True:
            page.send("x" * (1 << 20))


def flood(host: str, port: int) -> None:
    held: deque[socket.socket] = deque()
    while True:
        held.append(socket.create_connection((host, port), 5))
        if len(held) > MAX_CONNECTIONS:
            held.popleft().close()


def nonsense(host: str, port: int) -> None:
    with connect(f"ws://{host}:{port}/page/socket") as page:
        for number in itertools.count():
            page.send("[" * (number % 1000))


KINDS: dict[str, Callable[[str, int], None]] = {kind.__name__: kind for kind in (reader, silent, slow, large, flood, nonsense)}


def repeat(kind: Callable[[str, int], None], host: str, port: int) -> None:
    """Runs a client, and starts it again whenever the server disconnects it."""
    while True:
        with contextlib.suppress(Exception):
            kind(host, port)
        time.sleep(0.05)


def main() -> None:
    url, *kinds = sys.argv[1:]
    parts = urlsplit(url)
    for name in kinds or KINDS:
        threading.Thread(target=repeat, args=(KINDS[name], parts.hostname, parts.port), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
