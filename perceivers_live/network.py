"""Servers of this program (OSC, the page): which senders they allow, and the error if they cannot listen."""

import functools
import ipaddress
from collections.abc import Callable

from engine.errors import UserError
from engine.text import printable

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class ListenError(UserError):
    """A server cannot start; the message is one line."""


def sender_filter(host: str, allow: str, table: str = "osc") -> Callable[[str], bool]:
    """Returns a function that tells whether a sender's IP address is allowed at a server that listens on ``host``. Loopback is
    always allowed. If ``host`` is not loopback, the comma-separated addresses and networks in ``allow`` are allowed too.
    ``table``: the table of the settings file to name in errors.

    Raises:
        ListenError: ``allow`` has an invalid entry; or ``host`` is beyond loopback and ``allow`` is empty.
    """
    try:
        networks = [ipaddress.ip_network(text.strip(), strict=False) for text in allow.split(",") if text.strip()]
    except ValueError as error:
        allowed = "allowed are addresses and networks such as 192.168.1.0/24"
        raise ListenError(f"[{table}] allow: {printable(error)}; {allowed}") from None
    if is_loopback(host):
        networks = []
    elif not networks:
        raise ListenError(
            f"[{table}] {host} is beyond loopback: set allow to the addresses that may send, such as 192.168.1.0/24"
        )

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
