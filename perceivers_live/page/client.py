"""One connected page. Frames to it wait in a bounded outbox, which a thread of the client sends. Messages from it are limited in
rate. If a client is slow, frames are dropped, and later the whole state is sent again. A client that stops reading is
disconnected.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from perceivers_live.page.listening_socket import hang_up
from perceivers_live.rate_limit import RateLimit

MAX_FRAMES = 128  # frames in the outbox
MAX_BYTES = 1 << 20  # bytes of these frames together
STUCK = 5.0  # seconds that sending one frame may take
RATE, BURST = 400.0, 800.0  # messages a second from one page, and the burst allowed


class Misbehaved(Exception):
    """The client is to be disconnected: it sends too much, or too much that is invalid."""


class Client:
    """Wraps a WebSocket. ``behind`` is called on the client's thread when frames were dropped and it can receive again.

    ``send`` may be called from any thread, and never waits.
    """

    def __init__(self, connection: ServerConnection, behind: Callable[[Client], None]) -> None:
        self._connection, self._behind = connection, behind
        self._frames: deque[str | bytes] = deque()
        self._bytes = 0
        self._is_behind = self._closed = False
        self._sending_since: float | None = None
        self._changed = threading.Condition()
        self.dropped_frames = 0  # number of dropped frames
        self._messages = RateLimit(RATE, BURST)
        self._thread = threading.Thread(target=self._write, name="page-client", daemon=True)
        self._thread.start()

    def send(self, frame: str | bytes) -> None:
        """Adds a frame to the outbox. If full, clears it and drops frames until the client can receive the state again."""
        with self._changed:
            if self._closed:
                return
            if self._is_behind:
                self.dropped_frames += 1
            elif len(self._frames) >= MAX_FRAMES or self._bytes + len(frame) > MAX_BYTES:
                self.dropped_frames += len(self._frames) + 1
                self._frames.clear()
                self._bytes, self._is_behind = 0, True
            else:
                self._frames.append(frame)
                self._bytes += len(frame)
            self._changed.notify()

    def count_message(self) -> None:
        """Counts one message from the page. Raises ``Misbehaved`` if it exceeds the rate limit."""
        if not self._messages.acquire():
            raise Misbehaved("too many messages")

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def is_stuck(self, now: float) -> bool:
        """Whether sending a frame has taken longer than ``STUCK`` (``now``: monotonic seconds)."""
        since = self._sending_since
        return since is not None and now - since > STUCK

    def close(self) -> None:
        """Closes the connection at once and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        hang_up(self._connection.socket)

    def _write(self) -> None:
        try:
            while (frame := self._next()) is not None:
                if frame:
                    self._sending_since = time.monotonic()
                    self._connection.send(frame)
                    self._sending_since = None
                else:
                    self._behind(self)
        except (ConnectionClosed, OSError):
            self.close()

    def _next(self) -> str | bytes | None:
        """The next frame; empty if frames were dropped and the outbox is empty again; None if closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._is_behind or self._closed)
            if self._closed:
                return None
            if self._frames:
                frame = self._frames.popleft()
                self._bytes -= len(frame)
                return frame
            self._is_behind = False
            return ""
