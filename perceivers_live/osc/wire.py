"""OSC over UDP: a non-blocking socket, the filter of allowed senders, and encoding of packets."""

import contextlib
import functools
import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

from pythonosc.osc_message_builder import OscMessageBuilder

from engine.errors import UserError
from engine.text import printable
from perceivers_live.controls.control import Value

_RECEIVE_BUFFER = 4 << 20

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Address = tuple[Any, ...]  # as the socket module returns it: (host, port) or (host, port, flow, scope)


class OscError(UserError):
    """The OSC server cannot start; the message is one line."""


def listen(host: str, port: int, allow: str = "") -> tuple[socket.socket, Callable[[str], bool]]:
    """Returns a bound, non-blocking UDP socket with the largest receive buffer that the system allows, and the filter of allowed
    senders (see `sender_filter`). Raises OscError.
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
        raise OscError(f"OSC cannot listen on {printable(host)}:{port} ({reason}): choose another [osc] port or host") from None


def sender_filter(host: str, allow: str, table: str = "osc") -> Callable[[str], bool]:
    """Returns a function that tells whether a sender's IP address is allowed at a server that listens on `host`. Loopback is
    always allowed. If `host` is not loopback, the comma-separated addresses and networks in `allow` are allowed too. `table`: the
    table of the settings file to name in errors.

    Raises:
        OscError: `allow` has an invalid entry; or `host` is beyond loopback and `allow` is empty.
    """
    try:
        networks = [ipaddress.ip_network(text.strip(), strict=False) for text in allow.split(",") if text.strip()]
    except ValueError as error:
        allowed = "allowed are addresses and networks such as 192.168.1.0/24"
        raise OscError(f"[{table}] allow: {printable(error)}; {allowed}") from None
    if is_loopback(host):
        networks = []
    elif not networks:
        raise OscError(f"[{table}] {host} is beyond loopback: set allow to the addresses that may send, such as 192.168.1.0/24")

    @functools.lru_cache(maxsize=256)
    def is_allowed(sender: str) -> bool:
        address = _address(sender)
        return address.is_loopback or any(address in network for network in networks)

    return is_allowed


def is_loopback(host: str) -> bool:
    """Whether an IP address is a loopback address."""
    return _address(host).is_loopback


def _address(host: str) -> IpAddress:
    """Parses an IP address without its scope. An IPv4 address that an IPv6 socket received is returned as IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def packet_of(address: str, values: Iterable[Value]) -> bytes:
    """Encodes one message: switches as 0 or 1, texts on one line. Raises python-osc's ``BuildError`` and ``ValueError``."""
    builder = OscMessageBuilder(address)
    for value in values:
        plain = int(value) if isinstance(value, bool) else printable(value) if isinstance(value, str) else value
        builder.add_arg(plain)
    return builder.build().dgram
