"""An OSC client (python-osc) that subscribes to the daemon, sends messages and collects the received ones."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from tests.live.waiting import until

PREFIX = "/perceivers/"


class Received(NamedTuple):
    """A message from the daemon. ``name`` is its address without the prefix."""

    time: float
    name: str
    values: tuple[object, ...]


class Remote:
    """Subscribes to the daemon at a UDP port on loopback."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._received: list[Received] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.send("subscribe")
        until(lambda: self._initial_count() is not None, lambda: self._received)
        del self._received[: self._initial_count()]

    def _initial_count(self) -> int | None:
        """Number of messages in the initial update (all controls, state, stats); None while it is incomplete."""
        names = [one.name for one in self._received]
        with suppress(ValueError):
            return names.index("stats", names.index("state")) + 1
        return None

    def _read(self) -> None:
        with suppress(OSError):
            while packet := self._socket.recv(65536):
                message = OscMessage(packet)
                self._received.append(Received(time.perf_counter(), message.address.removeprefix(PREFIX), tuple(message.params)))

    def send(self, name: str, *values: float | str) -> None:
        message = OscMessageBuilder(PREFIX + name)
        for value in values:
            message.add_arg(value)
        self._socket.sendto(message.build().dgram, self._to)

    def received(self, name: str) -> list[Received]:
        """All messages with this name so far."""
        return [one for one in self._received.copy() if one.name == name]

    def ask(self, name: str) -> object:
        """Queries the value of a control."""
        before = len(self.received(name))
        self.send(name)
        until(lambda: len(self.received(name)) > before, lambda: self._received[-5:])
        return self.received(name)[-1].values[0]

    @property
    def states(self) -> list[object]:
        return [one.values[0] for one in self.received("state")]

    @property
    def messages(self) -> list[object]:
        return [one.values[0] for one in self.received("message")]

    @property
    def errors(self) -> list[tuple[object, ...]]:
        return [one.values for one in self.received("error")]

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._socket.close()
        self._thread.join(1.0)
