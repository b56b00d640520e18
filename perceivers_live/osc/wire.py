"""OSC over UDP: a non-blocking socket, and encoding of packets."""

import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Any

from pythonosc.osc_message_builder import OscMessageBuilder

from engine.text import printable
from perceivers_live.controls.control import Value
from perceivers_live.network import ListenError, sender_filter

_RECEIVE_BUFFER = 4 << 20

Address = tuple[Any, ...]  # as the socket module returns it: (host, port) or (host, port, flow, scope)


def listen(host: str, port: int, allow: str = "") -> tuple[socket.socket, Callable[[str], bool]]:
    """Returns a bound, non-blocking UDP socket with the largest receive buffer that the system allows, and the filter of allowed
    senders (see ``sender_filter``). Raises ListenError.
    """
    try:
        if not host or not 0 <= port <= 65535:  # getaddrinfo accepts these, but with another meaning
            raise OSError("no such address")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # "localhost": IPv4 first
        is_allowed = sender_filter(str(address[0]), allow)
        server = socket.socket(family, kind, protocol)
        try:
            for size in (_RECEIVE_BUFFER, _RECEIVE_BUFFER // 8):  # macOS rejects sizes that Linux would reduce
                with contextlib.suppress(OSError):
                    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
                    break
            server.setblocking(False)
            server.bind(address)
        except BaseException:
            server.close()
            raise
        return server, is_allowed
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ListenError(
            f"OSC cannot listen on {printable(host)}:{port} ({reason}): choose another [osc] port or host"
        ) from None


def packet_of(address: str, values: Iterable[Value]) -> bytes:
    """Encodes one message: switches as 0 or 1, texts on one line. Raises python-osc's ``BuildError`` and ``ValueError``."""
    builder = OscMessageBuilder(address)
    for value in values:
        plain = int(value) if isinstance(value, bool) else printable(value) if isinstance(value, str) else value
        builder.add_arg(plain)
    return builder.build().dgram
