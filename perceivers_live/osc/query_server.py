"""OSCQuery: the controls and commands described over HTTP, so that a program can build its surface for them by itself.

    GET /                              everything, as one tree of JSON objects, with the values of this moment
    GET /perceivers/temperature        one node of it
    GET /perceivers/temperature?VALUE  one attribute of that
    GET /?HOST_INFO                    where OSC is heard, and which attributes there are

After the proposal of Vidvox (https://github.com/Vidvox/OSCQueryProposal), without its optional streaming over WebSocket: changes
are told by OSC, to whoever sends `/perceivers/subscribe`. A request for an attribute that the proposal knows and we lack, or for
the value of what has none, is answered with 204; for one that it does not know, 400; for no node, 404. Nothing is announced by
mDNS, which would make sense beyond loopback only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from perceivers_live.controls.registry import Controls, printable
from perceivers_live.osc.query_tree import OPTIONAL, Node, answer, node_at, tree
from perceivers_live.osc.wire import OscError, sender_filter

MAX_CONNECTIONS = 8  # the oldest makes room, so that none who holds a connection open shuts the others out
IDLE = 5.0  # seconds that a connection may keep silent
POLL = 0.1  # seconds that closing may take
log = logging.getLogger(__name__)


class OscQueryServer:
    """Describes `controls` and `commands` over HTTP from a thread of its own, started at once, until `close()`.

    Args:
        controls: whose values are shown.
        commands: name -> function, whose parameters are shown; they are never called.
        osc_host, osc_port: where the OSC server listens.
        host: address to listen on; anything but loopback lets other machines read.
        port: TCP port to listen on; 0 takes a free one (see the attribute `port`).
        allow: who is answered beyond loopback: addresses and networks, separated by commas.

    Raises:
        OscError: the address cannot be used, or the port is taken; or it is beyond loopback, and nobody is allowed.
    """

    def __init__(
        self,
        controls: Controls,
        commands: Mapping[str, Callable[..., object]],
        osc_host: str,
        osc_port: int,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        allow: str = "",
    ) -> None:
        self._controls, self._commands = controls, dict(commands)
        self._osc = osc_host, osc_port
        self._name = host.lower()
        self._server = _listen(host, port, self, allow)
        self.host, self.port = str(self._server.server_address[0]), self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL,), name="oscquery", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops the thread, ends the connections and frees the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def root(self) -> Node:
        """The whole tree at this moment."""
        return tree(self._controls.snapshot(), self._commands)

    def host_info(self) -> Node:
        """What `?HOST_INFO` is answered with. Where OSC is heard on every address, it is at the one that was asked."""
        host, port = self._osc
        everywhere = host in ("0.0.0.0", "::")
        return {
            "NAME": "perceivers-live",
            "EXTENSIONS": dict.fromkeys(OPTIONAL, True),
            **({} if everywhere else {"OSC_IP": host}),
            "OSC_PORT": port,
            "OSC_TRANSPORT": "UDP",
        }

    def is_own(self, authority: str) -> bool:
        """Whether a request's Host header means this server. A web page can make its own name point here (DNS rebinding), and
        would then be free to read what we answer; it cannot do so with an address.
        """
        name = (urlsplit(f"//{authority}").hostname or "").lower()  # ValueError: brackets that do not match
        if name in ("localhost", self._name):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or name == self.host or ipaddress.ip_address(self.host).is_unspecified


class _Server(socketserver.ThreadingTCPServer):
    """A thread for each connection, and few connections."""

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # Windows would share the port with another program
    request_queue_size = 32

    def __init__(
        self, family: socket.AddressFamily, address: Any, query: OscQueryServer, is_allowed: Callable[[str], bool]
    ) -> None:
        self.address_family = family
        self.query, self._is_allowed = query, is_allowed
        self._open: list[socket.socket] = []  # oldest first
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self._is_allowed(client_address[0])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            if len(self._open) >= MAX_CONNECTIONS:
                self._end(self._open.pop(0))
            self._open.append(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            if request in self._open:
                self._open.remove(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._guard:
            for request in self._open:
                self._end(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("OSCQuery: a request failed", exc_info=True)

    @staticmethod
    def _end(request: socket.socket) -> None:
        with contextlib.suppress(OSError):  # its thread wakes up, and closes it
            request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "perceivers-live", ""
    error_content_type, error_message_format = "text/plain", "%(code)d %(message)s\n"
    timeout = IDLE
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together

    def do_GET(self) -> None:
        query = self.server.query
        hosts = self.headers.get_all("Host", [])
        try:
            welcome = len(hosts) == 1 and query.is_own(hosts[0])
            url = urlsplit(self.path)
        except ValueError:
            return self._refuse(HTTPStatus.BAD_REQUEST)
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body, which we do not read: what follows is no request
        if not welcome:
            return self._refuse(HTTPStatus.MISDIRECTED_REQUEST if hosts else HTTPStatus.BAD_REQUEST)
        attributes = [name for name in url.query.split("&") if name]
        if "HOST_INFO" in attributes:
            return self._reply(query.host_info())
        node = node_at(query.root(), unquote(url.path))
        if node is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        status, found = answer(node, attributes)
        return self._reply(found) if status is HTTPStatus.OK else self._refuse(status)

    def do_HEAD(self) -> None:
        self.do_GET()

    def parse_request(self) -> bool:
        if super().parse_request():
            if self.command in ("GET", "HEAD"):
                return True
            self.close_connection = True  # there may be a body, which we do not read
            self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
            for header, value in (("Allow", "GET, HEAD"), ("Content-Length", "0"), ("Connection", "close")):
                self.send_header(header, value)
            self.end_headers()
        return False

    def _reply(self, found: Node) -> None:
        body = json.dumps(found).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: HTTPStatus) -> None:
        if status is HTTPStatus.NO_CONTENT:
            self.send_response(status)
            self.end_headers()
        else:
            self.send_error(status)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("OSCQuery: %s", printable(format % args))


def _listen(host: str, port: int, query: OscQueryServer, allow: str) -> _Server:
    """A server bound to an address. Raises OscError."""
    try:
        if not host or not 0 <= port <= 65535:  # getaddrinfo would take them for every address, and for another port
            raise OSError("no such address")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # "localhost": IPv4 first
        return _Server(family, address, query, sender_filter(str(address[0]), allow))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OscError(f"OSCQuery cannot listen on {printable(host)}:{port} ({reason}): choose another port or host") from None
