"""OSC over real sockets on loopback, with python-osc's own client. Only failures reach the timeouts."""

import math
import socket
import threading
import time
from contextlib import closing

import pytest
from pythonosc.osc_message_builder import build_msg
from pythonosc.udp_client import SimpleUDPClient

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.registry import Controls
from perceivers_live.network import ListenError
from perceivers_live.osc.server import OscServer
from tests.perceivers_live.osc.client import Client
from tests.waiting import PATIENCE, until


def test_message_with_a_value_sets_a_control_and_one_without_queries_it(surface: Client, controls: Controls) -> None:
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


def test_subscriber_on_another_port_does_not_receive_its_own_changes(surface: Client, server: OscServer) -> None:
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


def test_unsubscribed_client_receives_nothing(subscriber: Client, surface: Client) -> None:
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
def test_invalid_message_gets_an_error_and_changes_nothing(
    surface: Client, controls: Controls, address: str, values: list[object], code: str, message: str
) -> None:
    before = controls.snapshot()
    surface.send_message(address, values)
    assert surface.all() == [("/perceivers/error", [code, message])]
    assert controls.snapshot() is before


def test_many_unknown_addresses_get_few_suggestions(surface: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding the nearest name takes about a millisecond, and the messages behind would wait."""
    asked: list[str] = []
    monkeypatch.setattr("perceivers_live.osc.server.nearest", lambda name, _: asked.append(name) or "panic")
    for number in range(500):
        surface.send_message(f"/perceivers/x{number}", [])
    surface.send_message("/perceivers/temperature", [])
    surface.all()
    assert 0 < len(asked) < 100


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


def test_state_errors_and_stats_reach_subscribers_and_stats_are_rate_limited(subscriber: Client, server: OscServer) -> None:
    server.send_state("listening\nnow \ud800")
    server.send_error("engine", "x" * 10_000)
    for late in range(50):
        server.send_stats({"p99_ms": 1.5, "late": late})
    assert subscriber.all() == [
        ("/perceivers/state", ["listening\\nnow \\ud800"]),
        ("/perceivers/error", ["engine", "x" * 300]),
        ("/perceivers/stats", ["p99_ms", 1.5, "late", 0]),
    ]


def test_value_that_osc_cannot_represent_is_dropped(subscriber: Client, server: OscServer) -> None:
    server.send_stats({"huge": 1e300})
    server.send_state("alive")
    assert subscriber.all() == [("/perceivers/state", ["alive"])]


def test_mutually_subscribed_daemons_agree_and_stop_sending(
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
    assert not caplog.records  # neither sent an error to the other


def test_daemons_own_port_cannot_be_subscribed(surface: Client, server: OscServer) -> None:
    surface.send_message("/perceivers/subscribe", server.port)
    assert [values[0] for _, values in surface.all()] == ["port"]


def test_ipv6_loopback_is_served_too(controls: Controls) -> None:
    try:
        server = OscServer(controls, {}, host="::1", port=0)
    except ListenError:
        pytest.skip("this computer has no IPv6")
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
def test_unusable_address_error_is_one_line(server: OscServer, controls: Controls, host: str, port: int | None) -> None:
    with pytest.raises(ListenError, match="OSC cannot listen on") as refused:
        OscServer(controls, {}, host=host, port=server.port if port is None else port)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["temperature", "list", "state"])
def test_command_with_a_name_in_use_is_refused(controls: Controls, name: str) -> None:
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
    time.sleep(0.05)  # now its thread waits for messages
    again.close()
    assert threading.active_count() == threads


def test_a_command_may_close_the_server(controls: Controls) -> None:
    servers: list[OscServer] = []
    threads = threading.active_count()
    servers.append(OscServer(controls, {"quit": lambda: servers[0].close()}, port=0))
    with closing(Client(servers[0])) as client:
        client.send_message("/perceivers/quit", None)
        assert until(lambda: threading.active_count() == threads)
