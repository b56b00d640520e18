"""The page, its WebSocket and OSCQuery on one TCP port, served by threads (``websockets``).

The ``Host`` of a request must be this host, which prevents DNS rebinding. A WebSocket must come from our own page (``Origin``),
or from a program, which sends no ``Origin``.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from engine.text import printable
from perceivers_live.network import ListenError, sender_filter
from perceivers_live.page.client import Misbehaved
from perceivers_live.page.listening_socket import ListeningSocket
from perceivers_live.page.protocol import MAX_FRAME
from perceivers_live.page.routes import HEADERS, Answer, Routes, refusal

log = logging.getLogger(__name__)
PAGE_SOCKET = "/page/socket"
MAX_SOCKETS = 16  # open WebSockets
OPEN_TIMEOUT = 5.0  # seconds that a request may take to arrive
CLOSE_TIMEOUT = 5.0  # seconds to send a response, and to wait for the closing handshake
ALIVE = 20.0  # seconds between two pings, and timeout of a ping
MISBEHAVED = (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG)  # what ``websockets`` closed it for
Handler = Callable[[ServerConnection], None]


class PageServer:
    """Serves from its own threads, which start at once, until ``close``.

    Args:
        routes: answers HTTP requests.
        page: serves a WebSocket of the page, on its own thread, until it returns. May raise ``Misbehaved``.
        query: serves all other WebSockets (OSCQuery) in the same way.
        host: address to listen on. Beyond loopback, the hosts in ``allow`` may connect.
        port: TCP port; 0 takes a free one (see the attribute ``port``).

    Raises:
        ListenError: the address cannot be used, the port is taken, or the address is beyond loopback and ``allow`` is empty.
    """

    def __init__(
        self, routes: Routes, page: Handler, query: Handler, host: str = "127.0.0.1", port: int = 0, *, allow: str = ""
    ) -> None:
        self._routes, self._page, self._query = routes, page, query
        self._name = host.lower()
        self._listening = listen(host, port, allow)
        self.host, self.port = self._listening.getsockname()[:2]
        self._sockets, self._lock = 0, threading.Lock()
        quiet = logging.getLogger(f"{__name__}.websockets")
        quiet.setLevel(logging.CRITICAL)  # errors of clients are not logged
        self._server = serve(
            self._serve,
            sock=self._listening,
            process_request=self._process_request,
            compression=None,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            ping_interval=ALIVE,
            ping_timeout=ALIVE,
            max_size=MAX_FRAME,
            server_header="perceivers-live",
            logger=quiet,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="page-server", daemon=True)
        self._thread.start()

    @property
    def listens_everywhere(self) -> bool:
        """Whether it listens on all addresses of this computer."""
        return ipaddress.ip_address(self.host).is_unspecified

    @property
    def url(self) -> str:
        """The page's address on this computer."""
        host = "127.0.0.1" if self.listens_everywhere else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/page/"

    def close(self) -> None:
        """Closes all connections and the port."""
        self._listening.close()
        self._listening.hang_up_all()
        self._server.shutdown()
        self._thread.join(2.0)

    def is_own(self, authority: str) -> bool:
        """Whether ``authority`` (from ``Host`` or ``Origin``) is this server. Raises ``ValueError`` for unmatched brackets."""
        name = (urlsplit(f"//{authority}").hostname or "").lower()
        if name in ("localhost", self._name):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or name == self.host or self.listens_everywhere

    # On the connection's thread.

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers HTTP requests; returns None for a WebSocket handshake to proceed."""
        try:
            answer = self._answer(connection, request)
        except ValueError:
            answer = refusal(HTTPStatus.BAD_REQUEST)
        return None if answer is None else _response(answer, body=_method(request) != "HEAD")

    def _answer(self, connection: ServerConnection, request: Request) -> Answer | None:
        hosts = request.headers.get_all("Host")
        if len(hosts) != 1:
            return refusal(HTTPStatus.BAD_REQUEST)
        if not self.is_own(hosts[0]):
            return refusal(HTTPStatus.MISDIRECTED_REQUEST)
        if _method(request) not in ("GET", "HEAD"):
            refused = refusal(HTTPStatus.METHOD_NOT_ALLOWED)
            return Answer(refused.status, refused.body, headers={"Allow": "GET, HEAD"})
        if "Upgrade" in request.headers:
            return self._admit(connection, request, hosts[0])
        accepted = ",".join(request.headers.get_all("Accept"))
        return self._routes.answer(request.path, for_people="text/html" in accepted)

    def _admit(self, connection: ServerConnection, request: Request, host: str) -> Answer | None:
        origins = request.headers.get_all("Origin")
        if origins and (len(origins) > 1 or origins[0].lower() != f"http://{host}".lower()):
            return refusal(HTTPStatus.FORBIDDEN)
        if self._sockets >= MAX_SOCKETS:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE)
        return None

    def _serve(self, connection: ServerConnection) -> None:
        with self._lock:
            self._sockets += 1
        self._listening.established(connection.socket)
        try:
            is_page = connection.request is not None and urlsplit(connection.request.path).path == PAGE_SOCKET
            (self._page if is_page else self._query)(connection)
            closed = connection.protocol.close_sent
            if closed is not None and closed.code in MISBEHAVED:
                raise Misbehaved(closed.reason)
        except Misbehaved as error:
            log.debug("disconnected a client (%s)", error)
            self._listening.penalise()
        except Exception as error:
            log.debug("a WebSocket failed (%s)", error, exc_info=True)
        finally:
            with self._lock:
                self._sockets -= 1


def _method(request: Request) -> str:
    return getattr(request, "method", "GET")  # older versions of websockets reject other methods themselves


def _response(answer: Answer, *, body: bool) -> Response:
    headers = Headers(
        {
            **HEADERS,
            **answer.headers,
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Connection": "close",
        }
    )
    return Response(answer.status.value, answer.status.phrase, headers, answer.body if body else b"")


def listen(host: str, port: int, allow: str) -> ListeningSocket:
    """Opens a listening socket for pages. Port 0 takes a free one. Raises ``ListenError``."""
    try:
        if not host or not 0 <= port <= 65535:  # getaddrinfo accepts these, but means all addresses, or another port
            raise OSError("no such address")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # "localhost": IPv4 first
        return ListeningSocket(family, (str(address[0]), int(address[1])), sender_filter(str(address[0]), allow, "page"))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ListenError(
            f"the page cannot be served on {printable(host)}:{port} ({reason}): choose another port or host"
        ) from None
