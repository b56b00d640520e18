"""An OSC remote control, by python-osc: what a surface sends, and what it is told."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from tests.live.patience import until

PREFIX = "/perceivers/"


def free_port() -> int:
    """A UDP port on loopback that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Told(NamedTuple):
    """A message of the daemon's: ``name`` is its address after the prefix."""

    time: float
    name: str
    values: tuple[object, ...]


class Remote:
    """Subscribed to the daemon at a port of loopback."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._told: list[Told] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.send("subscribe")
        until(lambda: self._starts() is not None, lambda: self._told)
        del self._told[: self._starts()]

    def _starts(self) -> int | None:
        """Where what happens begins, after how it stood: every control, the state, the figures."""
        names = [one.name for one in self._told]
        with suppress(ValueError):
            return names.index("stats", names.index("state")) + 1
        return None

    def _read(self) -> None:
        with suppress(OSError):
            while packet := self._socket.recv(65536):
                message = OscMessage(packet)
                self._told.append(Told(time.perf_counter(), message.address.removeprefix(PREFIX), tuple(message.params)))

    def send(self, name: str, *values: float | str) -> None:
        message = OscMessageBuilder(PREFIX + name)
        for value in values:
            message.add_arg(value)
        self._socket.sendto(message.build().dgram, self._to)

    def told(self, name: str) -> list[Told]:
        """All messages of one name so far."""
        return [one for one in self._told.copy() if one.name == name]

    def ask(self, name: str) -> object:
        """The value of a control."""
        before = len(self.told(name))
        self.send(name)
        until(lambda: len(self.told(name)) > before, lambda: self._told[-5:])
        return self.told(name)[-1].values[0]

    @property
    def states(self) -> list[object]:
        return [one.values[0] for one in self.told("state")]

    @property
    def messages(self) -> list[object]:
        return [one.values[0] for one in self.told("message")]

    @property
    def errors(self) -> list[tuple[object, ...]]:
        return [one.values for one in self.told("error")]

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._socket.close()
        self._thread.join(1.0)
