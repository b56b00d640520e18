"""Distributes messages to the pages. Other threads queue functions, which takes a microsecond and never blocks. The hub's thread
calls them to create the messages, and puts these into the outboxes of the clients.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable

from engine.text import printable
from perceivers_live.page.client import Client
from perceivers_live.page.protocol import Message, frame

log = logging.getLogger(__name__)
MAX_WAITING = 4096  # queued functions; further ones are dropped
MAX_GATHERED = 256  # messages in one frame
GATHER = 0.004  # seconds for which messages are gathered into one frame
TICK = 0.25  # seconds between two polls
KEPT = ("turn", "countdown", "beat", "ports", "health", "bindings", "states")  # types whose newest message is sent to a new page
NEVER_SHARED = ("perceivers_live.page", "websockets")  # loggers whose lines are caused by sending, and would recur


class Hub:
    """Sends messages to the pages from its own thread until ``close``.

    Args:
        welcome: returns the first message for a new page.

    The attribute ``poll`` returns messages; it is called four times a second while a page is connected. A message equal to the
    newest one of its type is not sent.
    """

    def __init__(self, welcome: Callable[[], Message]) -> None:
        self._welcome = welcome
        self.poll: Callable[[], Iterable[Message]] = lambda: ()
        self._posted: queue.SimpleQueue[Callable[[], Message | None] | None] = queue.SimpleQueue()
        self._kept: dict[str, Message] = {}
        self._clients: tuple[Client, ...] = ()  # replaced as a whole, never mutated
        self._joining: queue.SimpleQueue[Client] = queue.SimpleQueue()
        self._lock = threading.Lock()  # held while replacing the clients
        self.dropped = 0
        self._overflowed = False  # since the last poll
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="page-hub", daemon=True)
        self._thread.start()

    @property
    def clients(self) -> tuple[Client, ...]:
        """The pages that are connected."""
        return self._clients

    @property
    def is_watched(self) -> bool:
        """Whether a page is connected. If not, callers can skip ``post``."""
        return bool(self._clients)

    def post(self, make: Callable[[], Message | None]) -> bool:
        """Queues ``make``: the hub's thread calls it and sends the result to every page. Thread-safe; never blocks. Returns False
        if the queue is full; all pages then receive the whole state soon.
        """
        if self._posted.qsize() < MAX_WAITING:
            self._posted.put(make)
            return True
        self.dropped += 1
        self._overflowed = True
        return False

    def join(self, client: Client) -> None:
        """Adds a page, and sends it the current state first. Also called for a page whose frames were dropped."""
        self._joining.put(client)
        self.post(lambda: None)

    def leave(self, client: Client) -> None:
        """Removes a page."""
        with self._lock:
            self._clients = tuple(other for other in self._clients if other is not client)

    def close(self) -> None:
        """Ends the thread."""
        self._closing = True
        self._posted.put(None)
        self._thread.join(1.0)

    def _run(self) -> None:
        next_tick = 0.0
        while not self._closing:
            try:
                messages = self._next(max(0.0, next_tick - time.monotonic()) if self._clients else None)
                if self._clients and time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK
                    messages += self._changes(self.poll())
                    self._end_stuck()
                    self._resend_after_overflow()
                self._send(messages)
                self._greet()
            except Exception:  # one failed message must not stop later ones
                log.exception("a message to the page failed")
                time.sleep(TICK)

    def _next(self, timeout: float | None) -> list[Message]:
        """Waits for queued messages; returns an empty list on timeout."""
        try:
            first = self._posted.get(timeout=timeout)
        except queue.Empty:
            return []
        time.sleep(GATHER)
        waiting = [first]
        for _ in range(min(self._posted.qsize(), MAX_GATHERED)):
            waiting.append(self._posted.get_nowait())
        return [message for make in waiting if make is not None and (message := _made(make)) is not None]

    def _changes(self, polled: Iterable[Message]) -> list[Message]:
        return [message for message in polled if self._kept.get(message["type"]) != message]

    def _send(self, messages: list[Message]) -> None:
        if not messages:
            return
        self._kept |= {message["type"]: message for message in messages if message["type"] in KEPT}
        if self._clients:
            text = frame(messages)
            for client in self._clients:
                client.send(text)

    def _greet(self) -> None:
        """Sends the current state to new pages and to those whose frames were dropped."""
        while not self._joining.empty():
            client = self._joining.get_nowait()
            self._send(self._changes(self.poll()))
            client.send(frame([self._welcome(), *self._kept.values()]))
            with self._lock:
                if client not in self._clients and not client.is_closed:  # ``leave`` is called after it was closed
                    self._clients = (*self._clients, client)

    def _resend_after_overflow(self) -> None:
        if self._overflowed:
            self._overflowed = False
            for client in self._clients:
                self._joining.put(client)

    def _end_stuck(self) -> None:
        for client in self._clients:
            if client.is_stuck(time.monotonic()):
                log.info("disconnected a page that does not read")
                client.close()
                self.leave(client)


def _made(make: Callable[[], Message | None]) -> Message | None:
    try:
        return make()
    except Exception:  # one failed message must not cost those queued with it
        log.exception("a message to the page failed")
        return None


class NoticeHandler(logging.Handler):
    """Sends warnings and errors of the log to the pages."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(logging.WARNING)
        self._hub = hub

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(NEVER_SHARED):
            level = "error" if record.levelno >= logging.ERROR else "warning"
            text = printable(record.getMessage())
            self._hub.post(lambda: {"type": "notice", "level": level, "text": text})
