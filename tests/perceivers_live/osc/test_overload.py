"""Malformed packets, floods and too many subscribers do not stop the OSC server."""

import logging
import socket
import struct
import time
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pythonosc.osc_message_builder import build_msg

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.registry import Controls
from perceivers_live.osc.packets import MAX_DATAGRAM
from perceivers_live.osc.recipients import MAX_SUBSCRIBERS
from perceivers_live.osc.server import MAX_BACKLOG_BYTES, MAX_REPLIES, OscServer
from tests.perceivers_live.osc.client import SET, Client, bundle, nested
from tests.waiting import PATIENCE, until


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0",
        b"/",
        b"/perceivers/density",
        b"/perceivers/density\0,i\0\0\1",
        b"/\xff\xfe\0,\0\0\0",
        b"/a\0\0,s\0\0\xff\0\0\0",
        b"/a\0\0,[[[\0\0\0\0",
        b"/a\0\0,b\0\0\x7f\xff\xff\xff",
        b"/a\0\0," + b"z" * 3000 + bytes(4),
        b"/a\0\0,t\0\0" + b"\xff" * 4,
        b"/a\0\0,h\0\0" + b"\xff" * 7,
        b"#bundle\0",
        b"#bundle\0" + bytes(8) + struct.pack(">i", -4),  # python-osc's own bundle reader never returns from this
        b"#bundle\0" + bytes(8) + bytes(2000),  # elements of no size
        b"#bundle\0" + bytes(8) + struct.pack(">i", 2**31 - 1) + b"/a",
        bundle(b"junk"),
        nested(9, SET),
        nested(150, SET),
        bundle(*[SET] * 200),  # longer than any surface sends
        bundle(*[b"/\0\0\0"] * 400),
        b"/" + b"a" * 60_000,
        b"\xff" * 65_000,
    ],
)
def test_malformed_packet_gets_an_error_and_changes_nothing(surface: Client, controls: Controls, datagram: bytes) -> None:
    surface.raw(datagram)
    answers = surface.all()
    assert [address for address, _ in answers] == ["/perceivers/error"]
    assert answers[0][1][0] == "malformed"
    assert controls.snapshot().version == 0


def test_many_malformed_packets_make_few_log_lines(surface: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for number in range(300):
            surface.raw(b"junk%d" % number)
            surface.raw(bundle(b"\xff\xff\xff\xff"))
            surface.send_message("/elsewhere", number)
            surface.send_message("/perceivers/nothing", number)
            surface.raw(build_msg(f"/perceivers/density\n{number}").dgram)
            surface.all()
    assert 1 <= len(caplog.records) < 30
    assert {record.name for record in caplog.records} == {"perceivers_live.osc.server"}
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_last_value_of_a_burst_is_set_and_sent_to_subscribers(surface: Client, subscriber: Client, controls: Controls) -> None:
    for number in range(5000):
        surface.send_message("/perceivers/seed", number)
        if number % 200 == 0:  # more could overflow the socket buffer of a slow server
            assert until(lambda number=number: controls.get("seed") == number)
    assert until(lambda: controls.get("seed") == 4999), controls.get("seed")
    latest: list[object] = []
    while latest != [4999]:
        latest = subscriber.next()[1]


def test_replies_to_a_flood_of_queries_are_limited(controls: Controls) -> None:
    server = OscServer(controls, {}, port=0)
    server.close()  # so that nothing is sent, but only counted
    sent = []
    server._send_to = lambda *what: sent.append(what)  # type: ignore[method-assign]
    queries = bundle(*[build_msg("/perceivers/list", []).dgram] * 100)
    misspelt = bundle(*[build_msg("/perceivers/tempreature", []).dgram] * 90)
    began = time.monotonic()
    for _ in range(200):
        server._handle(queries, ("127.0.0.1", 9))
        server._handle(misspelt, ("127.0.0.1", 9))
    assert MAX_REPLIES <= len(sent) <= MAX_REPLIES * (2 + time.monotonic() - began)
    sent.clear()
    time.sleep(0.05)
    server._handle(build_msg("/perceivers/seed", []).dgram, ("127.0.0.1", 9))
    assert len(sent) == 1


def test_backlog_is_bounded_and_keeps_the_newest_messages(controls: Controls) -> None:
    server = OscServer(controls, {}, port=0)
    server.close()
    for i in range(2 * MAX_BACKLOG_BYTES // MAX_DATAGRAM):
        server._add_to_backlog(bytes([i % 256]) * MAX_DATAGRAM, ("127.0.0.1", 9))
    assert sum(len(datagram) for datagram, _ in server._backlog) == server._backlog_bytes <= MAX_BACKLOG_BYTES
    assert server._backlog[-1][0][0] == (2 * MAX_BACKLOG_BYTES // MAX_DATAGRAM - 1) % 256
    for _ in range(100_000):
        server._add_to_backlog(b"/a\0\0", ("127.0.0.1", 9))
    assert len(server._backlog) < 10_000
    while server._backlog:
        server._pop_backlog()
    assert server._backlog_bytes == 0


def test_oldest_subscriber_is_removed_at_the_limit(surface: Client, subscriber: Client, controls: Controls) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        taken = {silent.getsockname()[1], subscriber.port}
        ports = [port for port in range(20_000, 20_100) if port not in taken][: MAX_SUBSCRIBERS - 1]
        for port in ports:
            surface.send_message("/perceivers/subscribe", port)
        surface.all()
        controls.set("density", 1.0)
        assert subscriber.next() == ("/perceivers/density", [1.0])
        surface.send_message("/perceivers/subscribe", silent.getsockname()[1])
        surface.all()
        controls.set("density", 0.0)
        silent.settimeout(PATIENCE)
        for _ in range(len(CONTROLS) + 2):
            silent.recv(4096)
        assert silent.recv(4096) == build_msg("/perceivers/density", 0.0).dgram
        assert subscriber.all() == []


def test_closed_subscribers_do_not_disturb_others(surface: Client, server: OscServer, controls: Controls) -> None:
    for _ in range(3):
        with closing(Client(server)) as gone:
            gone.subscribe()
    for number in range(100):
        controls.set("seed", number)
        server.send_state("on")
        assert surface.all() == []


def mangled(message: bytes, cut: int, at: int, byte: int) -> bytes:
    changed = bytearray(message)
    changed[at % len(changed)] = byte
    return bytes(changed[: len(changed) - cut % len(changed)])


MESSAGES = [
    SET,
    bundle(SET, bundle(SET)),
    build_msg("/perceivers/subscribe", 4000).dgram,
    build_msg("/a", [1, 0.5, "s", b"b", [True]]).dgram,
]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=200)
    | st.builds(mangled, st.sampled_from(MESSAGES), st.integers(0, 40), st.integers(0), st.integers(0, 255))
)
def test_arbitrary_bytes_do_not_stop_the_server(server: OscServer, datagram: bytes) -> None:
    with closing(Client(server)) as client:
        client.raw(datagram)
        client.send_message("/perceivers/max_polyphony", None)
        while client.next()[0] != "/perceivers/max_polyphony":
            pass
