"""The listening socket: which connections are accepted, how many at a time, and how fast.

A connection costs threads. So whoever floods the port waits in the kernel's queue, and a connection that has not yet become a
WebSocket makes room for newer ones.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from threading import Lock

MAX_PENDING = 24  # connections that are no WebSocket (yet); a browser opens six at a time
RATE, BURST = 20.0, 100.0  # connections a second, and at once; a page is loaded with about thirty
BACKLOG = 64  # connections that wait in the kernel
POLL = 0.2  # seconds until ``accept`` notices that the socket was closed
SEND_BUFFER = 1 << 16  # bytes that the kernel holds for a client that does not read


class Door(socket.socket):
    """A TCP socket that listens on ``address`` and admits only hosts that ``is_allowed`` names.

    Raises:
        OSError: the address cannot be used, or the port is taken.
    """

    def __init__(self, family: int, address: tuple[str, int], is_allowed: Callable[[str], bool]) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        try:
            if os.name != "nt":  # Windows would share the port with another program
                self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(address)
            self.listen(BACKLOG)
        except OSError:
            self.close()
            raise
        self.settimeout(POLL)
        self._is_allowed = is_allowed
        self._lock = Lock()
        self._pending: dict[socket.socket, None] = {}  # oldest first
        self._established: set[socket.socket] = set()
        self._tokens, self._counted = BURST, time.monotonic()

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """The next connection that is admitted. Raises ``OSError`` once this socket is closed."""
        while True:
            self._wait_for_turn()
            try:
                connection, address = super().accept()
            except OSError:
                if self.fileno() < 0:
                    raise
                continue  # nobody came, or whoever came is gone, or the process is out of file descriptors: see the rate
            self._tokens -= 1
            if self._is_allowed(address[0]):
                self._admit(connection)
                return connection, address
            connection.close()

    def _wait_for_turn(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._tokens + (now - self._counted) * RATE, BURST)
        self._counted = now
        if self._tokens < 1:
            time.sleep((1 - self._tokens) / RATE)
            self._tokens, self._counted = 1.0, time.monotonic()

    def _admit(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        with self._lock:
            self._pending = {one: None for one in self._pending if one.fileno() >= 0}
            self._established = {one for one in self._established if one.fileno() >= 0}
            while len(self._pending) >= MAX_PENDING:
                oldest = next(iter(self._pending))
                del self._pending[oldest]
                hang_up(oldest)
            self._pending[connection] = None

    def established(self, connection: socket.socket) -> None:
        """``connection`` has become a WebSocket: it no longer makes room for others."""
        with self._lock:
            if self._pending.pop(connection, self) is None:
                self._established.add(connection)

    def hang_up_all(self) -> None:
        """Ends every connection; their threads notice."""
        with self._lock:
            for connection in (*self._pending, *self._established):
                hang_up(connection)


def hang_up(connection: socket.socket) -> None:
    """Ends a connection from any thread, whatever another thread is doing with it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
