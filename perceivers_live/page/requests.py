"""Executes messages of the pages: controls, commands, notes and ports, with the same rules as OSC."""

from __future__ import annotations

import inspect
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from engine.errors import UserError
from engine.text import printable
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Control, Value
from perceivers_live.controls.registry import Controls
from perceivers_live.page.client import Client, Misbehaved
from perceivers_live.page.hub import Hub
from perceivers_live.page.keys import PageKeys
from perceivers_live.page.protocol import (
    ChoosePort,
    Command,
    Message,
    Midi,
    Ping,
    ProtocolError,
    Request,
    SetControl,
    frame,
    parse,
    seconds,
)

MAX_MISTAKES = 50  # rejected messages after which a page is disconnected
Choose = Callable[[str, str], None]


class PageRequests:
    """Executes the messages of every page, on that page's thread. ``hub`` sends changes to all pages.

    Args:
        controls: set by the pages; changes are observed until ``close``.
        keys: the input "page".
        session: identifies this run of the daemon.
    """

    def __init__(
        self,
        controls: Controls,
        keys: PageKeys,
        *,
        session: str = "",
    ) -> None:
        self._controls, self._keys, self._session = controls, keys, session
        self._commands: Mapping[str, Callable[..., object]] = {}
        self._choose_port: Choose | None = None
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._changes: dict[str, tuple[Value, object]] = {}  # control -> newest value and its source, not sent yet
        self.hub = Hub(self.welcome)
        self._stop_listening = controls.on_change(self._changed)

    def connect(self, commands: Mapping[str, Callable[..., object]], choose_port: Choose | None = None) -> None:
        """Sets the commands (name -> function, the same as for OSC), and a function that chooses a port by direction and name. It
        may raise ``UserError``.
        """
        self._commands, self._choose_port = dict(commands), choose_port

    def close(self) -> None:
        """Closes the hub and the connections of all pages."""
        self._stop_listening()
        for client in self.hub.clients:
            client.close()
        self.hub.close()

    def welcome(self) -> Message:
        """The first message for a new page."""
        values = self._controls.snapshot()
        return {
            "type": "welcome",
            "clock": seconds(time.perf_counter()),
            "session": self._session,
            "controls": [_described(CONTROLS[name], value) for name, value in values.items()],
            "commands": list(self._commands),
        }

    def serve(self, connection: ServerConnection) -> None:
        """Serves one page until it disconnects. Raises ``Misbehaved``."""
        page, mistakes = next(self._numbers), 0
        client = Client(connection, self.hub.join)
        client.send(frame([{"type": "you", "number": page}]))
        self.hub.join(client)
        try:
            for text in connection:
                client.count_message()
                try:
                    answer = self._follow(parse(text), page)
                except UserError as error:
                    mistakes += 1
                    if mistakes > MAX_MISTAKES:
                        raise Misbehaved("too many invalid messages") from error
                    answer = {"type": "refused", "text": printable(error)}
                if answer is not None:
                    client.send(frame([answer]))
        except ConnectionClosed:
            pass
        finally:
            client.close()  # first, so that the hub cannot add it any more
            self.hub.leave(client)
            self._keys.gone(page)

    def _follow(self, request: Request, page: int) -> Message | None:
        """Executes a request; returns an answer for this page only, or None. Raises ``UserError``."""
        if isinstance(request, Ping):
            return {"type": "pong", "sent": request.sent, "clock": time.perf_counter()}
        if isinstance(request, Midi):
            self._keys.play(page, request.time, request.message)
        elif isinstance(request, SetControl):
            taken = self._controls.set(request.name, request.value, source=(PageRequests, page))
            if taken != request.value:
                return {"type": "control", "name": request.name, "value": taken, "by": 0}
        elif isinstance(request, Command):
            self._command(request.name, request.arguments)
        else:
            self._choose(request)
        return None

    def _command(self, name: str, arguments: Sequence[Value]) -> None:
        command = self._commands.get(name)
        if command is None:
            raise ProtocolError(f"no command {name!r}")
        try:
            inspect.signature(command).bind(*arguments)
        except TypeError as error:
            raise ProtocolError(f"{name}: {error}") from None
        try:
            command(*arguments)
        except UserError:
            raise
        except Exception as error:  # any error of a command is reported to the page
            raise ProtocolError(f"{name}: {type(error).__name__}: {error}") from error

    def _choose(self, request: ChoosePort) -> None:
        if self._choose_port is None:
            raise ProtocolError("ports cannot be chosen here")
        self._choose_port(request.direction, request.name)

    def _changed(self, name: str, value: Value, source: object) -> None:
        """Called with the controls' lock held, so it must be fast."""
        with self._lock:
            waits = name in self._changes
            self._changes[name] = value, source
        if not waits and not self.hub.post(lambda: self._change(name)):
            with self._lock:
                self._changes.pop(name, None)

    def _change(self, name: str) -> Message | None:
        with self._lock:
            change = self._changes.pop(name, None)
        if change is None:
            return None
        value, source = change
        by = source[1] if isinstance(source, tuple) and source[0] is PageRequests else 0
        return {"type": "control", "name": name, "value": value, "by": by}


def _described(control: Control, value: Value) -> Message:
    return {
        "name": control.name,
        "kind": control.kind,
        "group": control.group,
        "value": value,
        "default": control.default,
        "low": control.low,
        "high": control.high,
        "choices": list(control.choices),
        "unit": control.unit,
        "help": control.help,
    }
