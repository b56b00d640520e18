"""OSC on the wire: a socket that never blocks, who is heard at it, and packets out."""

import contextlib
import functools
import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

from pythonosc.osc_message_builder import OscMessageBuilder

from engine.errors import UserError
from perceivers_live.controls.registry import Value, printable

_RECEIVE_BUFFER = 4 << 20

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Address = tuple[Any, ...]  # as the socket gives it: (host, port) or (host, port, flow, scope)


class OscError(UserError):
    """OSC cannot be served; the message is one line."""


def listen(host: str, port: int, allow: str = "") -> tuple[socket.socket, Callable[[str], bool]]:
    """A bound socket that never blocks, with as large a receive buffer as the system grants; and who is heard at it (see
    `sender_filter`). Raises OscError.
    """
    try:
        if not host or not 0 <= port <= 65535:  # getaddrinfo would take them for every address, and for another port
            raise OSError("no such address")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # "localhost": IPv4 first
        is_allowed = sender_filter(str(address[0]), allow)
        server = socket.socket(family, kind, protocol)
        try:
            for size in (_RECEIVE_BUFFER, _RECEIVE_BUFFER // 8):  # macOS refuses what Linux merely limits
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
    """Who may speak to a server at the IP address `host`: loopback always, and, unless that is loopback itself, the addresses and
    networks in `allow`, separated by commas. `table`: where the settings file says so.

    Raises:
        OscError: one of them is none; or `host` opens the door and nobody is allowed in.
    """
    try:
        networks = [ipaddress.ip_network(text.strip(), strict=False) for text in allow.split(",") if text.strip()]
    except ValueError as error:
        allowed = "allowed are addresses and networks such as 192.168.1.0/24"
        raise OscError(f"[{table}] allow: {printable(error)}; {allowed}") from None
    if is_loopback(host):
        networks = []
    elif not networks:
        raise OscError(f"[{table}] {host} is beyond loopback: allow must say who may steer, such as 192.168.1.0/24")

    @functools.lru_cache(maxsize=256)
    def is_allowed(sender: str) -> bool:
        address = _address(sender)
        return address.is_loopback or any(address in network for network in networks)

    return is_allowed


def is_loopback(host: str) -> bool:
    """Whether an IP address is this machine's own loopback."""
    return _address(host).is_loopback


def _address(host: str) -> IpAddress:
    """An IP address without its scope; IPv4 as such, also where an IPv6 socket heard it."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def packet_of(address: str, values: Iterable[Value]) -> bytes:
    """One message's packet: switches as 0 or 1, texts on one line. Raises python-osc's ``BuildError`` and ``ValueError``."""
    builder = OscMessageBuilder(address)
    for value in values:
        plain = int(value) if isinstance(value, bool) else printable(value) if isinstance(value, str) else value
        builder.add_arg(plain)
    return builder.build().dgram
