"""A free port on loopback."""

from __future__ import annotations

import socket


def free_port() -> int:
    """The number of a TCP and UDP port that no program uses now."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket(type=socket.SOCK_STREAM) as tcp:
            udp.bind(("127.0.0.1", 0))
            port: int = udp.getsockname()[1]
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
