"""OSCQuery: describes controls and commands over HTTP, so that a client can build its user interface from them, and sends changes
over a WebSocket on the same port.

    GET /                              the whole tree as JSON, with current values
    GET /perceivers/temperature        one node
    GET /perceivers/temperature?VALUE  one attribute of a node
    GET /?HOST_INFO                    address of the OSC server, and supported attributes

    {"COMMAND": "LISTEN", "DATA": "/perceivers/temperature"}    over the WebSocket: send every change as a binary frame that
                                                                contains an OSC packet
    {"COMMAND": "IGNORE", "DATA": "/perceivers/temperature"}    stop sending changes

Follows the proposal of Vidvox (https://github.com/Vidvox/OSCQueryProposal). Status codes: 204 for an attribute of the proposal
that is not supported, or for the value of a node without one; 400 for an unknown attribute; 404 for an unknown node. There is no
mDNS announcement, which would be useful beyond loopback only.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Value
from perceivers_live.controls.registry import Controls
from perceivers_live.osc.query_tree import OPTIONAL, Node, answer, node_at, tree
from perceivers_live.osc.server import PREFIX, Query
from perceivers_live.osc.wire import packet_of
from perceivers_live.page.client import Client
from perceivers_live.page.hub import Hub


class OscQuery:
    """Describes ``controls`` and ``commands``. Changes are sent to WebSocket clients from the hub's thread.

    Args:
        controls: their values are shown; changes are observed until ``close()``.
        commands: name -> function; only their parameters are shown, they are not called.
        osc: host and port of the OSC server; None: it is off.
        queries: name -> function that returns the value of a read-only node.
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
        self._listeners: dict[Client, set[str]] = {}  # client -> controls it listens to
        self._stop_listening = controls.on_change(self._changed)

    def close(self) -> None:
        """Stops observing the controls and closes all connections."""
        self._stop_listening()
        with self._lock:
            clients = list(self._listeners)
        for client in clients:
            client.close()

    def answer(self, path: str, attributes: list[str]) -> tuple[HTTPStatus, Node]:
        """The response to a request: status and JSON object."""
        if "HOST_INFO" in attributes:
            return HTTPStatus.OK, self.host_info()
        node = node_at(tree(self._controls.snapshot(), self._commands, self._queries), path)
        return answer(node, attributes) if node is not None else (HTTPStatus.NOT_FOUND, {})

    def host_info(self) -> Node:
        """The response to ``?HOST_INFO``. OSC_IP is left out if OSC listens on all addresses: the client uses the one of its
        request.
        """
        info: Node = {"NAME": "perceivers-live", "EXTENSIONS": dict.fromkeys((*OPTIONAL, "LISTEN"), True)}
        if self._osc is not None:
            host, port = self._osc
            everywhere = host in ("0.0.0.0", "::")
            info |= {**({} if everywhere else {"OSC_IP": host}), "OSC_PORT": port, "OSC_TRANSPORT": "UDP"}
        return info

    def serve(self, connection: ServerConnection) -> None:
        """Serves one WebSocket until it closes. Messages other than LISTEN and IGNORE are ignored, as the proposal requires.
        Raises ``Misbehaved``.
        """
        client = Client(connection, self._resend)
        with self._lock:
            self._listeners[client] = set()
        try:
            for frame in connection:
                client.count_message()
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
        """Called with the controls' lock held, so it must be fast."""
        if self._listeners:
            self._hub.post(lambda: self._stream(name, value))

    def _stream(self, name: str, value: Value) -> None:
        with self._lock:
            clients = [client for client, names in self._listeners.items() if name in names]
        if clients:
            packet = packet_of(PREFIX + name, [value])
            for client in clients:
                client.send(packet)

    def _resend(self, client: Client) -> None:
        """Sends all values that the client listens to, after frames were dropped."""
        with self._lock:
            names = sorted(self._listeners.get(client, ()))
        for name in names:
            client.send(packet_of(PREFIX + name, [self._controls.get(name)]))
