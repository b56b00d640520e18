"""Who is told what by OSC."""

from __future__ import annotations

import threading
import time

from perceivers_live.osc.wire import Address

MAX_SUBSCRIBERS = 32  # the oldest makes room
MAX_ASKERS = 32  # who has sent a command lately; the oldest makes room
ASKING = 60.0  # seconds that they are told what became of it


class Audience:
    """Subscribers, and those who have sent a command lately. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: dict[Address, Address] = {}  # where to send -> who subscribed it, oldest first
        self._askers: dict[Address, float] = {}  # where to send -> until when, oldest first

    def subscribe(self, target: Address, owner: Address) -> None:
        with self._lock:
            _add(self._subscribers, target, owner, MAX_SUBSCRIBERS)

    def unsubscribe(self, target: Address) -> None:
        with self._lock:
            self._subscribers.pop(target, None)

    def unsubscribe_all(self, owner: Address) -> None:
        """Whatever this sender has subscribed."""
        with self._lock:
            self._subscribers = {target: other for target, other in self._subscribers.items() if other != owner}

    def asked(self, target: Address) -> None:
        """Somebody who wants replies there has sent a command."""
        with self._lock:
            _add(self._askers, target, time.monotonic() + ASKING, MAX_ASKERS)

    def subscribers(self) -> list[tuple[Address, Address]]:
        """Where to send, and who subscribed it."""
        with self._lock:
            return list(self._subscribers.items())

    def everybody(self) -> list[Address]:
        """Where to send to subscribers and askers, nobody twice."""
        now = time.monotonic()
        with self._lock:
            return list(dict.fromkeys([*self._subscribers, *(one for one, until in self._askers.items() if until > now)]))


def _add(where: dict[Address, Address] | dict[Address, float], target: Address, value: object, most: int) -> None:
    where.pop(target, None)
    while len(where) >= most:
        del where[next(iter(where))]
    where[target] = value  # type: ignore[assignment]
