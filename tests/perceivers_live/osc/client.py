"""An OSC client of the tests, on a real socket."""

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
    """A surface: what it sends to one server, and what comes back to the port it sent from."""

    def __init__(self, server: OscServer) -> None:
        super().__init__("127.0.0.1", server.port)
        self._told_first = len(CONTROLS) + len({"state", "stats"} & server._queries.keys())

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def raw(self, datagram: bytes) -> None:
        self._sock.sendto(datagram, (self._address, self._port))

    def next(self) -> Received:
        for message in self.get_messages(timeout=PATIENCE):
            return message.address, message.params
        raise AssertionError("nothing came")

    def subscribe(self) -> list[Received]:
        """Subscribes; returns what a new subscriber is told."""
        self.send_message("/perceivers/subscribe", None)
        return [self.next() for _ in range(self._told_first)]

    def all(self) -> list[Received]:
        """What came before the answer to a question asked now; so also a wait until the server has seen all that was sent."""
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
    """An address of this machine's that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address would be sent from
            return str(probe.getsockname()[0])
        except OSError:
            pytest.skip("this machine has no address beyond loopback")
