"""The addresses that OSC messages are sent to: subscribers, and recent senders of commands."""

from __future__ import annotations

import threading
import time

from perceivers_live.osc.wire import Address

MAX_SUBSCRIBERS = 32  # one more replaces the oldest
MAX_SENDERS = 32  # recent senders of commands; one more replaces the oldest
SENDER_TIMEOUT = 60.0  # seconds for which the sender of a command receives messages and errors


class Recipients:
    """Subscribers and recent senders of commands. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: dict[Address, Address] = {}  # target address -> address that subscribed it; oldest first
        self._senders: dict[Address, float] = {}  # target address -> expiry time; oldest first

    def subscribe(self, target: Address, owner: Address) -> None:
        with self._lock:
            _add(self._subscribers, target, owner, MAX_SUBSCRIBERS)

    def unsubscribe(self, target: Address) -> None:
        with self._lock:
            self._subscribers.pop(target, None)

    def unsubscribe_all(self, owner: Address) -> None:
        """Removes every subscription of this sender."""
        with self._lock:
            self._subscribers = {target: other for target, other in self._subscribers.items() if other != owner}

    def add_sender(self, target: Address) -> None:
        """Adds the reply address of a sender of a command for ``SENDER_TIMEOUT``."""
        with self._lock:
            _add(self._senders, target, time.monotonic() + SENDER_TIMEOUT, MAX_SENDERS)

    def subscribers(self) -> list[tuple[Address, Address]]:
        """Pairs of target address and the address that subscribed it."""
        with self._lock:
            return list(self._subscribers.items())

    def all(self) -> list[Address]:
        """The target addresses of all subscribers and recent senders, without duplicates."""
        now = time.monotonic()
        with self._lock:
            return list(dict.fromkeys([*self._subscribers, *(one for one, until in self._senders.items() if until > now)]))


def _add(entries: dict[Address, Address] | dict[Address, float], target: Address, value: object, limit: int) -> None:
    entries.pop(target, None)
    while len(entries) >= limit:
        del entries[next(iter(entries))]
    entries[target] = value  # type: ignore[assignment]
