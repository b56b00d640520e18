"""An OSC client for the tests, on a real socket."""

import socket
import struct

import pytest
from pythonosc.osc_message_builder import build_msg
from pythonosc.udp_client import SimpleUDPClient

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.osc.server import OscServer
from tests.waiting import PATIENCE

Received = tuple[str, list[object]]


class Client(SimpleUDPClient):
    """Sends to one server, and receives the replies at the port it sends from."""

    def __init__(self, server: OscServer) -> None:
        super().__init__("127.0.0.1", server.port)
        self._initial_count = len(CONTROLS) + len({"state", "stats"} & server._queries.keys())

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def raw(self, datagram: bytes) -> None:
        self._sock.sendto(datagram, (self._address, self._port))

    def next(self) -> Received:
        for message in self.get_messages(timeout=PATIENCE):
            return message.address, message.params
        raise AssertionError("no message was received")

    def subscribe(self) -> list[Received]:
        """Subscribes; returns the initial messages to a new subscriber."""
        self.send_message("/perceivers/subscribe", None)
        return [self.next() for _ in range(self._initial_count)]

    def all(self) -> list[Received]:
        """All messages before the answer to a query sent now; so the server has processed everything sent earlier."""
        self.send_message("/perceivers/seed", None)
        received = []
        while (latest := self.next())[0] != "/perceivers/seed":
            received.append(latest)
        return received


def bundle(*elements: bytes, tag: bytes = bytes(7) + b"\1") -> bytes:
    return b"#bundle\0" + tag + b"".join(struct.pack(">i", len(element)) + element for element in elements)


def nested(depth: int, content: bytes) -> bytes:
    return content if depth == 0 else bundle(nested(depth - 1, content))


SET = build_msg("/perceivers/density", 0.5).dgram


def beyond_loopback() -> str:
    """An address of this computer that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but selects the source address
            return str(probe.getsockname()[0])
        except OSError:
            pytest.skip("this computer has no address beyond loopback")
