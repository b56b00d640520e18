"""OSC over real sockets on loopback, with python-osc's own client. Timeouts only end a wait for what never comes."""

import logging
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import build_msg
from pythonosc.udp_client import SimpleUDPClient

from engine.states import StateError
from perceivers_live.controls.registry import CONTROLS, Controls, Value
from perceivers_live.osc.packets import MAX_DATAGRAM
from perceivers_live.osc.recipients import MAX_SUBSCRIBERS
from perceivers_live.osc.server import (
    MAX_AHEAD,
    MAX_BACKLOG_BYTES,
    MAX_PUBLISHED_ERRORS,
    MAX_REPLIES,
    MAX_SCHEDULED,
    OscServer,
    Query,
)
from perceivers_live.osc.wire import OscError, sender_filter

PATIENCE = 10.0  # seconds
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


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


@pytest.fixture
def controls() -> Controls:
    return Controls()


@pytest.fixture
def calls() -> list[tuple[object, ...]]:
    return []


@pytest.fixture
def server(controls: Controls, calls: list[tuple[object, ...]]) -> Iterator[OscServer]:
    def panic() -> None:
        calls.append(("panic",))

    def save(name: str) -> Any:
        calls.append(("save", name))
        return "/never/sent"

    def fail() -> None:
        raise RuntimeError("no\nengine")

    def refuse() -> None:
        raise StateError("take 1: no such state")

    commands = {"panic": panic, "save": save, "fail": fail, "refuse": refuse}
    queries: dict[str, Query] = {
        "state": lambda: ["listening"],
        "stats": lambda: ["late", 2.0],
        "states": lambda: [2, "a", "b"],
    }
    with closing(OscServer(controls, commands, port=0, queries=queries, stats_interval=3600)) as running:
        yield running


@pytest.fixture
def surface(server: OscServer) -> Iterator[Client]:
    with closing(Client(server)) as client:
        yield client


@pytest.fixture
def subscriber(server: OscServer) -> Iterator[Client]:
    with closing(Client(server)) as client:
        client.subscribe()
        assert client.all() == []
        yield client


def test_a_value_sets_a_control_and_no_value_asks_for_it(surface: Client, controls: Controls) -> None:
    surface.send_message("/perceivers/temperature", 0.5)
    surface.send_message("/perceivers/mode", "Listen")
    surface.send_message("/perceivers/hold", 1)
    for name, reply in (("temperature", 0.5), ("mode", "listen"), ("hold", 1), ("max_polyphony", 12)):
        surface.send_message(f"/perceivers/{name}", None)
        assert surface.next() == (f"/perceivers/{name}", [reply])
    assert (controls.get("mode"), controls.get("hold")) == ("listen", True)


def test_a_change_reaches_the_other_subscribers_clamped(surface: Client, subscriber: Client, server: OscServer) -> None:
    surface.subscribe()
    surface.send_message("/perceivers/max_polyphony", 99.0)
    assert subscriber.next() == ("/perceivers/max_polyphony", [32])
    assert surface.all() == []


def test_a_change_made_elsewhere_reaches_every_subscriber(subscriber: Client, controls: Controls) -> None:
    controls.set("density", 0.5, source="page")
    assert subscriber.next() == ("/perceivers/density", [0.5])
    controls.set("thru", True)
    assert subscriber.next() == ("/perceivers/thru", [1])


def test_a_subscriber_may_listen_on_another_port_and_its_own_changes_stay_its_own(surface: Client, server: OscServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener, closing(Client(server)) as other:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        first = len(CONTROLS) + 2
        surface.send_message("/perceivers/subscribe", float(port))  # many surfaces send floats only
        assert [listener.recv(4096) for _ in range(first)][-1] == build_msg("/perceivers/stats", ["late", 2.0]).dgram
        surface.send_message("/perceivers/density", 1.0)
        surface.all()
        other.send_message("/perceivers/density", -1.0)
        assert listener.recv(4096) == build_msg("/perceivers/density", -1.0).dgram
        surface.send_message("/perceivers/unsubscribe", None)
        surface.all()
        server.send_state("not for you")
        surface.send_message("/perceivers/subscribe", port)
        surface.all()
        for _ in range(first):
            listener.recv(4096)
        server.send_state("for you")
        assert listener.recv(4096) == build_msg("/perceivers/state", "for you").dgram


def test_unsubscribed_means_silence(subscriber: Client, surface: Client) -> None:
    surface.send_message("/perceivers/unsubscribe", subscriber.port)
    surface.send_message("/perceivers/density", 1.0)
    surface.all()
    assert subscriber.all() == []


def test_list_describes_every_control(surface: Client, controls: Controls) -> None:
    controls.set("mode", "listen")
    surface.send_message("/perceivers/list", None)
    listed = {str(values[0]): (address, values[1:]) for address, values in surface.all()}
    assert list(listed) == list(CONTROLS)
    assert {address for address, _ in listed.values()} == {"/perceivers/list"}
    assert listed["mode"][1] == [
        *("listen", 0, 3, "", CONTROLS["mode"].help, "choice", "respond"),
        "respond,duet,solo,listen",
    ]
    assert listed["lookahead_ms"][1] == [400, 50, 2000, "ms", CONTROLS["lookahead_ms"].help, "int", 400, ""]
    assert listed["thru"][1] == [0, 0, 1, "", CONTROLS["thru"].help, "switch", 0, ""]


@pytest.mark.parametrize(
    ("address", "values", "code", "message"),
    [
        ("/perceivers/temperature", [math.nan], "value", "temperature: found nan, allowed 0.5..1.5 (float)"),
        ("/perceivers/temperature", [-math.inf], "value", "temperature: found -inf, allowed 0.5..1.5 (float)"),
        ("/perceivers/temperature", ["hot"], "value", "temperature: found 'hot', allowed 0.5..1.5 (float)"),
        ("/perceivers/temperature", [True], "value", "temperature: found True, allowed 0.5..1.5 (float)"),
        ("/perceivers/temperature", [None, 1], "value", "temperature: found 2 values, allowed one: 0.5..1.5"),
        ("/perceivers/mode", [b"\0"], "value", "mode: found b'\\x00', allowed respond, duet, solo, listen (choice)"),
        ("/perceivers/hold", [[[1]]], "value", "hold: found [[1]], allowed true, false (switch)"),
        ("/perceivers/tempo", [1.0], "unknown", "unknown address '/perceivers/tempo', nearest is /perceivers/temperature"),
        ("/perceiver/seed", [1], "unknown", "'/perceiver/seed' does not begin with /perceivers/"),
        ("/perceivers/subscribe", [0], "port", "found [0], allowed one port, 1..65535, that is not the daemon's own"),
        ("/perceivers/unsubscribe", ["a"], "port", "found ['a'], allowed one port, 1..65535, that is not the daemon's own"),
        ("/perceivers/save", [1, 2], "arguments", "save: found [1, 2], allowed: name"),
        ("/perceivers/panic", ["now"], "arguments", "panic: found ['now'], allowed: none"),
        ("/perceivers/fail", [], "command", "fail: RuntimeError: no\\nengine"),
        ("/perceivers/refuse", [], "command", "refuse: take 1: no such state"),
    ],
)
def test_a_mistake_is_answered_and_changes_nothing(
    surface: Client, controls: Controls, address: str, values: list[object], code: str, message: str
) -> None:
    before = controls.snapshot()
    surface.send_message(address, values)
    assert surface.all() == [("/perceivers/error", [code, message])]
    assert controls.snapshot() is before


def test_commands_run_with_their_arguments_and_reply_nothing(surface: Client, calls: list[tuple[object, ...]]) -> None:
    surface.send_message("/perceivers/panic", None)
    surface.send_message("/perceivers/save", "take 1")
    assert surface.all() == []
    assert calls == [("panic",), ("save", "take 1")]


def test_a_push_button_runs_a_command_when_pressed_and_not_when_released(
    surface: Client, calls: list[tuple[object, ...]]
) -> None:
    for state in (1.0, 0.0, 1, 0, True, False):
        surface.send_message("/perceivers/panic", state)
    assert surface.all() == []
    assert calls == [("panic",)] * 3


def test_an_impulse_runs_a_command(surface: Client, calls: list[tuple[object, ...]]) -> None:
    surface.raw(b"/perceivers/panic\0\0\0,I\0\0")
    surface.raw(b"/perceivers/panic\0\0\0,N\0\0")
    assert surface.all() == []
    assert calls == [("panic",)] * 2


def test_replies_go_to_the_configured_port(controls: Controls) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(PATIENCE)
        with (
            closing(OscServer(controls, {}, port=0, reply_port=listener.getsockname()[1])) as server,
            closing(Client(server)) as surface,
        ):
            surface.send_message("/perceivers/density", None)
            assert listener.recv(4096) == build_msg("/perceivers/density", 0.0).dgram
            surface.send_message("/perceivers/subscribe", None)
            for _ in CONTROLS:
                listener.recv(4096)
            server.send_error("engine", "restarted")
            assert listener.recv(4096) == build_msg("/perceivers/error", ["engine", "restarted"]).dgram


def test_state_errors_and_stats_reach_subscribers_and_stats_are_rationed(subscriber: Client, server: OscServer) -> None:
    server.send_state("listening\nnow \ud800")
    server.send_error("engine", "x" * 10_000)
    for late in range(50):
        server.send_stats({"p99_ms": 1.5, "late": late})
    assert subscriber.all() == [
        ("/perceivers/state", ["listening\\nnow \\ud800"]),
        ("/perceivers/error", ["engine", "x" * 300]),
        ("/perceivers/stats", ["p99_ms", 1.5, "late", 0]),
    ]


def test_a_value_osc_cannot_hold_is_dropped(subscriber: Client, server: OscServer) -> None:
    server.send_stats({"huge": 1e300})
    server.send_state("alive")
    assert subscriber.all() == [("/perceivers/state", ["alive"])]


def bundle(*elements: bytes, tag: bytes = bytes(7) + b"\1") -> bytes:
    return b"#bundle\0" + tag + b"".join(struct.pack(">i", len(element)) + element for element in elements)


def nested(depth: int, content: bytes) -> bytes:
    return content if depth == 0 else bundle(nested(depth - 1, content))


SET = build_msg("/perceivers/density", 0.5).dgram


def time_tag(ahead: float) -> bytes:
    """A bundle's time so many seconds from now."""
    return int((time.time() + ahead + 2_208_988_800) * 2**32).to_bytes(8, "big")


def test_bundles_are_opened_at_once_nested_ones_too(surface: Client, controls: Controls) -> None:
    builder = OscBundleBuilder(IMMEDIATELY)
    builder.add_content(build_msg("/perceivers/density", 0.25))
    builder.add_content(build_msg("/perceivers/density", 0.5))
    surface.send(builder.build())
    assert surface.all() == []
    assert controls.get("density") == 0.5
    surface.raw(nested(5, build_msg("/perceivers/dynamics", 1.0).dgram))
    surface.raw(bundle(build_msg("/perceivers/seed", 4).dgram, tag=time_tag(-1.0)))
    assert surface.all() == []
    assert (controls.get("dynamics"), controls.get("seed")) == (1.0, 4)


def test_a_bundle_waits_for_its_time(surface: Client, controls: Controls) -> None:
    changes: list[tuple[object, float]] = []
    controls.on_change(lambda name, value, source: changes.append((value, time.time())))
    due = time.time() + 0.5
    surface.raw(bundle(*[build_msg("/perceivers/seed", number).dgram for number in range(20)], tag=time_tag(0.5)))
    assert until(lambda: len(changes) == 20)
    assert [value for value, _ in changes] == list(range(20))
    assert changes[0][1] >= due - 0.01


def test_what_waits_is_followed_in_the_order_of_its_times(controls: Controls) -> None:
    server = OscServer(controls, {}, port=0)
    server.close()
    first, second, third = (build_msg("/perceivers/seed", number).dgram for number in (1, 2, 3))
    server._handle(bundle(bundle(third, tag=time_tag(30)), tag=time_tag(20)), ("127.0.0.1", 9))
    server._handle(bundle(bundle(second), tag=time_tag(20)), ("127.0.0.1", 9))  # an inner bundle is not before its outer one
    server._handle(bundle(first, tag=time_tag(10)), ("127.0.0.1", 9))
    taken: list[object] = []
    for later in (5, 15, 25, 35):
        due = server._scheduled.pop_due(time.monotonic() + later)
        taken.append(None if due is None else due[0].values)
    assert taken == [None, [1], [2], [3]]


@pytest.mark.parametrize("tag", [lambda: time_tag(MAX_AHEAD + 60), lambda: b"\xff" * 8], ids=["two minutes", "the last time"])
def test_a_bundle_for_a_distant_future_is_refused(surface: Client, controls: Controls, tag: Callable[[], bytes]) -> None:
    surface.raw(bundle(SET, tag=tag()))
    [(address, values)] = surface.all()
    assert (address, values[0]) == ("/perceivers/error", "time")
    assert str(values[1]).endswith("s ahead, allowed up to 60 s")
    assert controls.get("density") == 0.0


def test_more_than_can_wait_is_refused(controls: Controls) -> None:
    server = OscServer(controls, {}, port=0)
    server.close()
    sent: list[tuple[object, ...]] = []
    server._send_to = lambda *what: sent.append(what)  # type: ignore[method-assign]
    packet = bundle(*[build_msg("/perceivers/seed", 1).dgram] * 64, tag=time_tag(30))
    for _ in range(MAX_SCHEDULED // 64):
        server._handle(packet, ("127.0.0.1", 9))
    assert sent == []
    server._handle(bundle(SET, tag=time_tag(30)), ("127.0.0.1", 9))
    assert [what[2] for what in sent] == ["time"]
    assert len(server._scheduled) == MAX_SCHEDULED


@pytest.mark.parametrize("broken", [b"/perceivers/seed\0\0\0\0,z\0\0", b"junk", b"/perceivers/seed\0\0\0\0,i\0\0\1"])
def test_of_a_bundle_only_the_message_is_lost_that_cannot_be_read(surface: Client, controls: Controls, broken: bytes) -> None:
    surface.raw(bundle(SET, broken, build_msg("/perceivers/dynamics", 1.0).dgram))
    [(address, values)] = surface.all()
    assert (address, values[0]) == ("/perceivers/error", "malformed")
    assert (controls.get("density"), controls.get("dynamics")) == (0.5, 1.0)


@pytest.mark.parametrize("argument", [b",r\0\0\0\0\0\2", b",m\0\0\0\0\0\2", b",t\0\0" + bytes(7) + b"\2", b",b\0\0\0\0\0\0"])
@pytest.mark.parametrize("name", ["temperature", "seed", "mode", "hold"])
def test_what_is_no_number_is_not_taken_for_one(surface: Client, controls: Controls, name: str, argument: bytes) -> None:
    address = f"/perceivers/{name}".encode()
    surface.raw(address + bytes(4 - len(address) % 4) + argument)
    [(_, values)] = surface.all()
    assert values[0] == "value"
    assert str(values[1]).startswith(f"{name}: found ")
    assert controls.snapshot().version == 0


def test_a_colour_presses_no_button_and_is_no_port(surface: Client, calls: list[tuple[object, ...]]) -> None:
    surface.raw(b"/perceivers/panic\0\0\0,r\0\0\0\0\0\1")
    surface.raw(b"/perceivers/subscribe\0\0\0,r\0\0\0\0\x23\x29")
    assert [values[0] for _, values in surface.all()] == ["arguments", "port"]
    assert calls == []


def test_a_symbol_is_a_string(surface: Client, controls: Controls) -> None:
    surface.raw(b"/perceivers/mode\0\0\0\0,S\0\0duet\0\0\0\0")
    assert surface.all() == []
    assert controls.get("mode") == "duet"


# Who is told what.


def test_a_new_subscriber_is_told_how_it_stands(surface: Client, controls: Controls) -> None:
    controls.set("mode", "duet")
    told = surface.subscribe()
    assert [address.removeprefix("/perceivers/") for address, _ in told] == [*CONTROLS, "state", "stats"]
    assert ("/perceivers/mode", ["duet"]) in told
    assert told[-2:] == [("/perceivers/state", ["listening"]), ("/perceivers/stats", ["late", 2.0])]


def test_state_stats_and_saved_states_are_told_to_whoever_asks(surface: Client) -> None:
    for name, answer in (("state", ["listening"]), ("stats", ["late", 2.0]), ("states", [2, "a", "b"])):
        surface.send_message(f"/perceivers/{name}", None if name == "state" else [])
        assert surface.next() == (f"/perceivers/{name}", answer)
        surface.send_message(f"/perceivers/{name}", answer)  # another daemon's answer
        assert surface.all() == []


def test_a_query_that_fails_is_an_error(controls: Controls) -> None:
    def fail() -> list[Value]:
        raise StateError("no disk")

    with closing(OscServer(controls, {}, port=0, queries={"states": fail})) as server, closing(Client(server)) as surface:
        surface.send_message("/perceivers/states", [])
        assert surface.all() == [("/perceivers/error", ["command", "states: no disk"])]


def test_a_mistake_is_told_to_every_subscriber_and_once_to_its_sender(
    surface: Client, subscriber: Client, server: OscServer
) -> None:
    surface.subscribe()
    surface.send_message("/perceivers/temperature", "hot")
    error = ("/perceivers/error", ["value", "temperature: found 'hot', allowed 0.5..1.5 (float)"])
    assert surface.all() == [error]
    assert subscriber.all() == [error]


def test_of_a_flood_of_mistakes_the_others_are_told_of_few(surface: Client, subscriber: Client) -> None:
    began = time.monotonic()
    for _ in range(10 * MAX_PUBLISHED_ERRORS):
        surface.send_message("/perceivers/temperature", "hot")
    assert len(surface.all()) == 10 * MAX_PUBLISHED_ERRORS
    took = time.monotonic() - began
    assert MAX_PUBLISHED_ERRORS <= len(subscriber.all()) <= MAX_PUBLISHED_ERRORS * (2 + took)


def test_who_sends_a_command_is_told_what_becomes_of_it(surface: Client, subscriber: Client, server: OscServer) -> None:
    with closing(Client(server)) as bystander:
        bystander.send_message("/perceivers/density", 0.5)
        surface.send_message("/perceivers/save", "a")
        surface.all()
        server.send_message("saved a")
        server.send_error("state", "no room")
        server.send_state("playing")
        told = [("/perceivers/message", ["saved a"]), ("/perceivers/error", ["state", "no room"])]
        assert surface.all() == told
        assert bystander.all() == []
        assert subscriber.all() == [("/perceivers/density", [0.5]), *told, ("/perceivers/state", ["playing"])]


def test_a_limit_that_moves_its_partner_along_tells_the_sender_too(surface: Client, subscriber: Client) -> None:
    surface.subscribe()
    surface.send_message("/perceivers/register_high", 15)
    assert surface.next() == ("/perceivers/register_low", [15])
    assert surface.all() == []
    assert sorted(subscriber.all()) == [("/perceivers/register_high", [15]), ("/perceivers/register_low", [15])]


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
def test_a_malformed_packet_is_answered_and_does_nothing_else(surface: Client, controls: Controls, datagram: bytes) -> None:
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


def test_the_last_of_a_burst_wins_and_is_echoed(surface: Client, subscriber: Client, controls: Controls) -> None:
    for number in range(5000):
        surface.send_message("/perceivers/seed", number)
        if number % 200 == 0:  # more may be more than the system keeps for a server that has no time
            assert until(lambda number=number: controls.get("seed") == number)
    assert until(lambda: controls.get("seed") == 4999), controls.get("seed")
    latest: list[object] = []
    while latest != [4999]:
        latest = subscriber.next()[1]


def test_a_flood_of_questions_is_not_answered_without_end(controls: Controls) -> None:
    server = OscServer(controls, {}, port=0)
    server.close()  # so that nothing is sent; what would be is counted
    sent = []
    server._send_to = lambda *what: sent.append(what)  # type: ignore[method-assign]
    questions = bundle(*[build_msg("/perceivers/list", []).dgram] * 100)
    misspelt = bundle(*[build_msg("/perceivers/tempreature", []).dgram] * 90)
    began = time.monotonic()
    for _ in range(200):
        server._handle(questions, ("127.0.0.1", 9))
        server._handle(misspelt, ("127.0.0.1", 9))
    assert MAX_REPLIES <= len(sent) <= MAX_REPLIES * (2 + time.monotonic() - began)
    sent.clear()
    time.sleep(0.05)
    server._handle(build_msg("/perceivers/seed", []).dgram, ("127.0.0.1", 9))
    assert len(sent) == 1


def test_a_backlog_is_bounded_and_the_newest_of_it_is_kept(controls: Controls) -> None:
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


def test_the_oldest_subscriber_makes_room(surface: Client, subscriber: Client, controls: Controls) -> None:
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


def test_subscribers_that_are_gone_disturb_nobody(surface: Client, server: OscServer, controls: Controls) -> None:
    for _ in range(3):
        with closing(Client(server)) as gone:
            gone.subscribe()
    for number in range(100):
        controls.set("seed", number)
        server.send_state("on")
        assert surface.all() == []


def test_two_daemons_subscribed_to_each_other_agree_and_fall_silent(
    surface: Client, server: OscServer, controls: Controls, caplog: pytest.LogCaptureFixture
) -> None:
    others = Controls()
    with closing(OscServer(others, {}, port=0)) as other, closing(Client(other)) as far:
        surface.send_message("/perceivers/subscribe", other.port)
        far.send_message("/perceivers/subscribe", server.port)
        surface.send_message("/perceivers/list", "a reply, not a question")
        assert (surface.all(), far.all()) == ([], [])
        others.set("density", 0.5)
        server.send_error("engine", "for people")
        server.send_state("for people")
        server.send_stats({"late": 1})
        assert until(lambda: controls.get("density") == 0.5)
        assert (surface.all(), far.all(), surface.all()) == ([], [], [])
        assert (controls.snapshot().version, others.snapshot().version) == (1, 1)
    assert not caplog.records  # neither complained to the other


def test_nobody_is_subscribed_to_the_daemons_own_port(surface: Client, server: OscServer) -> None:
    surface.send_message("/perceivers/subscribe", server.port)
    assert [values[0] for _, values in surface.all()] == ["port"]


def beyond_loopback() -> str:
    """An address of this machine's that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address would be sent from
            return str(probe.getsockname()[0])
        except OSError:
            pytest.skip("this machine has no address beyond loopback")


def test_senders_beyond_loopback_are_ignored(server: OscServer, surface: Client, controls: Controls) -> None:
    outside = beyond_loopback()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.bind((outside, 0))
            sender.sendto(build_msg("/perceivers/density", 1.0).dgram, ("127.0.0.1", server.port))
        except OSError:
            pytest.skip("this system sends nothing to loopback from outside")
    surface.all()
    assert controls.get("density") == 0.0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1%lo"])
def test_beyond_loopback_somebody_must_be_allowed(host: str) -> None:
    with pytest.raises(OscError, match="beyond loopback") as refused:
        sender_filter(host, " , ")
    assert str(refused.value).isprintable()


def test_beyond_loopback_only_who_is_allowed_is_heard() -> None:
    is_allowed = sender_filter("0.0.0.0", "192.0.2.7, 198.51.100.0/24,,2001:db8::/32")
    for sender in (
        "192.0.2.7",
        "198.51.100.255",
        "2001:db8:1::5",
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "::ffff:192.0.2.7",
        "::ffff:127.0.0.1",
    ):
        assert is_allowed(sender)
    for sender in ("192.0.2.8", "198.51.101.0", "2001:db9::1", "0.0.0.0", "::", "::ffff:192.0.2.8", "fe80::1%eth0"):
        assert not is_allowed(sender)


def test_at_loopback_nobody_else_can_be_allowed() -> None:
    is_allowed = sender_filter("127.0.0.1", "0.0.0.0/0")
    assert is_allowed("127.0.0.1")
    assert not is_allowed("192.0.2.7")


@pytest.mark.parametrize("allow", ["everybody", "192.0.2.0/33", "192.0.2", "192.0.2.1;192.0.2.2", "a\nb", "1" * 500, "-1"])
def test_who_is_allowed_must_be_an_address_or_a_network(controls: Controls, allow: str) -> None:
    before = threading.active_count()
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(OscError, match="allowed are addresses") as refused:
            OscServer(controls, {}, host, 0, allow=f"192.0.2.1,{allow}")
        assert str(refused.value).isprintable()
    assert threading.active_count() == before


def test_a_server_for_every_address_hears_who_is_allowed_and_nobody_else(controls: Controls) -> None:
    outside = beyond_loopback()
    for allow, density in (("192.0.2.7", 0.0), (f"192.0.2.7, {outside}", 1.0)):
        with closing(OscServer(controls, {}, "0.0.0.0", 0, allow=allow)) as server, closing(Client(server)) as surface:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((outside, 0))
                sender.sendto(build_msg("/perceivers/density", 1.0).dgram, (outside, server.port))
            surface.all()
            assert controls.get("density") == density


def test_ipv6_loopback_is_served_too(controls: Controls) -> None:
    try:
        server = OscServer(controls, {}, host="::1", port=0)
    except OscError:
        pytest.skip("this machine has no IPv6")
    with closing(server), closing(SimpleUDPClient("::1", server.port)) as client:
        client.send_message("/perceivers/subscribe", None)
        for _ in CONTROLS:
            assert next(client.get_messages(timeout=PATIENCE))
        client.send_message("/perceivers/density", None)
        assert next(client.get_messages(timeout=PATIENCE)).params == [0.0]
        controls.set("density", 1.0)
        assert next(client.get_messages(timeout=PATIENCE)).params == [1.0]


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", None), ("", 0), ("no.such.host.invalid", 0), ("127.0.0.1", 70_000), ("a\nb", 0)]
)
def test_an_address_that_cannot_be_used_is_one_line(server: OscServer, controls: Controls, host: str, port: int | None) -> None:
    with pytest.raises(OscError, match="OSC cannot listen on") as refused:
        OscServer(controls, {}, host=host, port=server.port if port is None else port)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["temperature", "list", "state"])
def test_a_command_cannot_take_a_name_in_use(controls: Controls, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        OscServer(controls, {name: print}, port=0)


def test_closing_ends_the_thread_frees_the_port_and_may_be_repeated(controls: Controls) -> None:
    threads = threading.active_count()
    server = OscServer(controls, {}, port=0)
    with closing(Client(server)) as client:
        client.send_message("/perceivers/subscribe", None)
        client.all()
        server.close()
        assert threading.active_count() == threads
        server.close()
        server.send_state("too late")
        server.send_stats({"late": 1})
        controls.set("density", 1.0)
    again = OscServer(controls, {}, port=server.port)
    time.sleep(0.05)  # now it waits for what never comes
    again.close()
    assert threading.active_count() == threads


def test_a_command_may_close_the_server(controls: Controls) -> None:
    servers: list[OscServer] = []
    threads = threading.active_count()
    servers.append(OscServer(controls, {"quit": lambda: servers[0].close()}, port=0))
    with closing(Client(servers[0])) as client:
        client.send_message("/perceivers/quit", None)
        assert until(lambda: threading.active_count() == threads)


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
def test_no_bytes_stop_the_server(server: OscServer, datagram: bytes) -> None:
    with closing(Client(server)) as client:
        client.raw(datagram)
        client.send_message("/perceivers/max_polyphony", None)
        while client.next()[0] != "/perceivers/max_polyphony":
            pass
