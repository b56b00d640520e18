"""OSCQuery: the controls and commands described over HTTP, so that a program can build its surface for them by itself, and their
changes over a WebSocket on the same port.

    GET /                              everything, as one tree of JSON objects, with the values of this moment
    GET /perceivers/temperature        one node of it
    GET /perceivers/temperature?VALUE  one attribute of that
    GET /?HOST_INFO                    where OSC is heard, and which attributes there are

    {"COMMAND": "LISTEN", "DATA": "/perceivers/temperature"}    over the WebSocket: from now on every change comes as a binary
    {"COMMAND": "IGNORE", "DATA": "/perceivers/temperature"}    frame, an OSC packet; or no more

After the proposal of Vidvox (https://github.com/Vidvox/OSCQueryProposal). A request for an attribute that the proposal knows and
we lack, or for the value of what has none, is answered with 204; for one that it does not know, 400; for no node, 404. Nothing is
announced by mDNS, which would make sense beyond loopback only.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from perceivers_live.controls.registry import CONTROLS, Controls, Value
from perceivers_live.osc.query_tree import OPTIONAL, Node, answer, node_at, tree
from perceivers_live.osc.server import PREFIX, Query
from perceivers_live.osc.wire import packet_of
from perceivers_live.page.client import Client
from perceivers_live.page.hub import Hub


class OscQuery:
    """Describes `controls` and `commands`; the WebSockets' clients are told of changes on the hub's thread.

    Args:
        controls: whose values are shown, and listened to until `close()`.
        commands: name -> function, whose parameters are shown; they are never called.
        osc: host and port where the OSC server listens; None: it does not.
        queries: name -> function whose answer is shown.
    """

    def __init__(
        self,
        controls: Controls,
        commands: Mapping[str, Callable[..., object]],
        osc: tuple[str, int] | None,
        hub: Hub,
        queries: Mapping[str, Query] | None = None,
    ) -> None:
        self._controls, self._commands, self._osc, self._hub = controls, dict(commands), osc, hub
        self._queries = dict(queries or {})
        self._lock = threading.Lock()
        self._listeners: dict[Client, set[str]] = {}  # the controls that each client listens to
        self._stop_listening = controls.on_change(self._changed)

    def close(self) -> None:
        """Ends the listening, and the clients' connections."""
        self._stop_listening()
        with self._lock:
            clients = list(self._listeners)
        for client in clients:
            client.close()

    def answer(self, path: str, attributes: list[str]) -> tuple[HTTPStatus, Node]:
        """What a request is answered with: status, JSON object."""
        if "HOST_INFO" in attributes:
            return HTTPStatus.OK, self.host_info()
        node = node_at(tree(self._controls.snapshot(), self._commands, self._queries), path)
        return answer(node, attributes) if node is not None else (HTTPStatus.NOT_FOUND, {})

    def host_info(self) -> Node:
        """What `?HOST_INFO` is answered with. Where OSC is heard on every address, it is at the one that was asked."""
        info: Node = {"NAME": "perceivers-live", "EXTENSIONS": dict.fromkeys((*OPTIONAL, "LISTEN"), True)}
        if self._osc is not None:
            host, port = self._osc
            everywhere = host in ("0.0.0.0", "::")
            info |= {**({} if everywhere else {"OSC_IP": host}), "OSC_PORT": port, "OSC_TRANSPORT": "UDP"}
        return info

    def serve(self, connection: ServerConnection) -> None:
        """Follows one WebSocket until it goes away. What is no LISTEN or IGNORE is ignored, as the proposal says."""
        client = Client(connection, self._resend)
        with self._lock:
            self._listeners[client] = set()
        try:
            for frame in connection:
                if not client.may_speak():
                    return
                self._follow(client, frame)
        except ConnectionClosed:
            pass
        finally:
            with self._lock:
                del self._listeners[client]
            client.close()

    def _follow(self, client: Client, frame: str | bytes) -> None:
        with suppress(ValueError, RecursionError):
            asked = json.loads(frame)
            command, address = (asked.get("COMMAND"), asked.get("DATA")) if isinstance(asked, dict) else (None, None)
            name = address.removeprefix(PREFIX) if isinstance(address, str) else ""
            if name not in CONTROLS or address == name:
                return
            with self._lock:
                if command == "LISTEN":
                    self._listeners[client].add(name)
                elif command == "IGNORE":
                    self._listeners[client].discard(name)

    def _changed(self, name: str, value: Value, source: object) -> None:
        """Under the controls' lock: quick."""
        if self._listeners:
            self._hub.tell(lambda: self._stream(name, value))

    def _stream(self, name: str, value: Value) -> None:
        with self._lock:
            clients = [client for client, names in self._listeners.items() if name in names]
        if clients:
            packet = packet_of(PREFIX + name, [value])
            for client in clients:
                client.send(packet)

    def _resend(self, client: Client) -> None:
        """The client has missed some changes: it is told all values that it listens to."""
        with self._lock:
            names = sorted(self._listeners.get(client, ()))
        for name in names:
            client.send(packet_of(PREFIX + name, [self._controls.get(name)]))
