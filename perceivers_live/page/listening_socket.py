"""The listening socket: limits which connections are accepted, their number and their rate.

Each connection uses threads. Connections beyond the rate therefore wait in the kernel's queue, and the oldest connection that is
not a WebSocket is closed in favour of newer ones. A client that was disconnected because it misbehaved costs as much as many
connections, so that its reconnecting takes hardly any of the time that the music needs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock

from perceivers_live.rate_limit import RateLimit

MAX_PENDING = 24  # connections that are not (yet) WebSockets; a browser opens six at a time
RATE, BURST = 10.0, 100.0  # connections a second, and the burst allowed; loading the page takes about thirty
PENALTY, MAX_DEBT = 10.0, 30.0  # connections that one misbehaving client costs, and all of them together at most
BACKLOG = 64  # connections in the kernel's queue
RETRY = 0.05  # seconds after an error, which may persist
POLL = 0.2  # seconds after which ``accept`` checks whether the socket was closed
SEND_BUFFER = 1 << 16  # bytes that the kernel buffers for a client that does not read


class ListeningSocket(socket.socket):
    """A TCP socket that listens on ``address`` and accepts only hosts for which ``is_allowed`` is true.

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
        self._rate = RateLimit(RATE, BURST)
        self._hung_up = False  # no connection is admitted any more

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Returns the next allowed connection. Raises ``OSError`` once this socket is closed."""
        while True:
            self._wait_for_turn()
            try:
                connection, address = super().accept()
            except TimeoutError:
                continue
            except OSError:  # client gone, or no file descriptor free
                if self.fileno() < 0:
                    raise
                time.sleep(RETRY)
                continue
            with self._lock:
                self._rate.acquire()
            if self._is_allowed(address[0]):
                self._admit(connection)
                return connection, address
            connection.close()

    def penalise(self) -> None:
        """A client was disconnected because it misbehaved. Thread-safe."""
        with self._lock:
            self._rate.penalise(PENALTY, MAX_DEBT)

    def _wait_for_turn(self) -> None:
        """Raises ``OSError`` once this socket is closed."""
        while (wait := self._wait()) > 0:
            time.sleep(min(wait, POLL))
            if self.fileno() < 0:
                raise OSError("closed")

    def _wait(self) -> float:
        with self._lock:
            return self._rate.wait()

    def _admit(self, connection: socket.socket) -> None:
        with suppress(OSError):  # on some systems if the client has already gone
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        with self._lock:
            self._pending = {one: None for one in self._pending if one.fileno() >= 0}
            self._established = {one for one in self._established if one.fileno() >= 0}
            while len(self._pending) >= MAX_PENDING:
                oldest = next(iter(self._pending))
                del self._pending[oldest]
                hang_up(oldest)
            self._pending[connection] = None
            if self._hung_up:
                hang_up(connection)

    def established(self, connection: socket.socket) -> None:
        """Marks ``connection`` as a WebSocket, which is not closed in favour of newer connections."""
        with self._lock:
            if self._pending.pop(connection, self) is None:
                self._established.add(connection)

    def hang_up_all(self) -> None:
        """Shuts down every connection, which ends their threads: also one that is just being accepted."""
        with self._lock:
            self._hung_up = True
            for connection in (*self._pending, *self._established):
                hang_up(connection)


def hang_up(connection: socket.socket) -> None:
    """Shuts down a connection; safe from any thread, even while another thread uses it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
