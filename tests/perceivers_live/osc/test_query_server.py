"""OSCQuery over real HTTP on loopback. Timeouts only end a wait for what never comes."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pythonosc.osc_message_builder import build_msg

from perceivers_live.controls.registry import CONTROLS, Controls
from perceivers_live.osc.query_server import MAX_CONNECTIONS, OscQueryServer
from perceivers_live.osc.server import OscServer
from perceivers_live.osc.wire import OscError
from tests.perceivers_live.osc.test_server import beyond_loopback

PATIENCE = 10.0  # seconds


def takeover() -> None:
    """Play now.

    Whatever the human does.
    """


def save(name: str, slot: int, level: float = 1.0) -> None: ...


@pytest.fixture
def controls() -> Controls:
    return Controls()


@pytest.fixture
def server(controls: Controls) -> Iterator[OscQueryServer]:
    with closing(OscQueryServer(controls, {"takeover": takeover, "save": save}, "127.0.0.1", 9010)) as running:
        yield running


def ask(server: OscQueryServer, target: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        return response, response.read()


def found(server: OscQueryServer, target: str) -> Any:
    response, body = ask(server, target)
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    return json.loads(body)


def raw(server: OscQueryServer, content: bytes) -> bytes:
    """Everything that is answered to these bytes, until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


# What is described.


def test_the_root_holds_every_control_and_command(server: OscQueryServer) -> None:
    root = found(server, "/")
    assert (root["FULL_PATH"], root["ACCESS"], list(root["CONTENTS"])) == ("/", 0, ["perceivers"])
    ours = root["CONTENTS"]["perceivers"]
    assert (ours["FULL_PATH"], ours["ACCESS"]) == ("/perceivers", 0)
    assert set(ours["CONTENTS"]) == {*CONTROLS, "takeover", "save"}
    for name, node in ours["CONTENTS"].items():
        assert node["FULL_PATH"] == f"/perceivers/{name}"
        assert "CONTENTS" not in node
    assert "TYPE" not in root
    assert "TYPE" not in ours


def test_a_control_is_described_with_its_type_range_unit_and_value(server: OscQueryServer, controls: Controls) -> None:
    controls.set("lookahead_ms", 600)
    assert found(server, "/perceivers/lookahead_ms") == {
        "DESCRIPTION": CONTROLS["lookahead_ms"].help,
        "FULL_PATH": "/perceivers/lookahead_ms",
        "ACCESS": 3,
        "TYPE": "i",
        "VALUE": [600],
        "RANGE": [{"MIN": 50, "MAX": 2000}],
        "UNIT": ["time.ms"],
        "CLIPMODE": ["both"],
    }
    temperature = found(server, "/perceivers/temperature")
    assert (temperature["TYPE"], temperature["RANGE"]) == ("f", [{"MIN": 0.1, "MAX": 2.0}])
    assert "UNIT" not in temperature
    mode = found(server, "/perceivers/mode")
    assert (mode["TYPE"], mode["VALUE"]) == ("s", [controls.get("mode")])
    assert mode["RANGE"] == [{"VALS": list(CONTROLS["mode"].choices)}]
    hold = found(server, "/perceivers/hold")
    assert (hold["TYPE"], hold["VALUE"]) == ("T", [False])
    assert not {"RANGE", "CLIPMODE"} & set(hold)


def test_a_command_is_an_impulse_or_takes_what_it_cannot_do_without(server: OscQueryServer) -> None:
    assert found(server, "/perceivers/takeover") == {
        "DESCRIPTION": "Play now.",
        "FULL_PATH": "/perceivers/takeover",
        "ACCESS": 2,
        "TYPE": "I",
    }
    assert found(server, "/perceivers/save") == {"FULL_PATH": "/perceivers/save", "ACCESS": 2, "TYPE": "si"}


def test_osc_takes_every_control_in_the_type_that_is_described(server: OscQueryServer, controls: Controls) -> None:
    """What a client is told to send is what the OSC server takes."""
    done = threading.Event()
    wish: dict[str, object] = {}
    for name, node in found(server, "/perceivers")["CONTENTS"].items():
        if node["ACCESS"] == 3:
            limits = node.get("RANGE", [{}])[0]
            wish[name] = limits.get("MAX", limits["VALS"][-1] if "VALS" in limits else True)
    with (
        closing(OscServer(controls, {"takeover": done.set}, port=0)) as osc,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as surface,
    ):
        for name, value in wish.items():
            surface.sendto(build_msg(f"/perceivers/{name}", value).dgram, ("127.0.0.1", osc.port))
        surface.sendto(b"/perceivers/takeover\0\0\0\0,I\0\0", ("127.0.0.1", osc.port))
        assert done.wait(PATIENCE)
    assert dict(controls.snapshot()) == pytest.approx(wish)  # floats travel in single precision


def test_one_attribute_or_several_can_be_asked_for(server: OscQueryServer, controls: Controls) -> None:
    controls.set("density", 0.25)
    assert found(server, "/perceivers/density?VALUE") == {"VALUE": [0.25]}
    assert found(server, "/perceivers/density?RANGE") == {"RANGE": [{"MIN": -1.0, "MAX": 1.0}]}
    assert found(server, "/perceivers/density?TYPE&ACCESS#there") == {"TYPE": "f", "ACCESS": 3}
    assert set(found(server, "/?CONTENTS")) == {"CONTENTS"}
    assert set(found(server, "/perceivers/?CONTENTS")["CONTENTS"]) == {*CONTROLS, "takeover", "save"}


@pytest.mark.parametrize("target", ["/perceivers?TYPE", "/perceivers/takeover?RANGE", "/perceivers/temperature?UNIT"])
def test_an_attribute_that_a_node_lacks_is_an_empty_object(server: OscQueryServer, target: str) -> None:
    assert found(server, target) == {}


@pytest.mark.parametrize("target", ["/?HOST_INFO", "/perceivers/density?HOST_INFO", "/no/such/path?HOST_INFO"])
def test_the_host_info_says_where_osc_is_heard(server: OscQueryServer, target: str) -> None:
    info = found(server, target)
    extensions = info.pop("EXTENSIONS")
    assert info == {"NAME": "perceivers-live", "OSC_IP": "127.0.0.1", "OSC_PORT": 9010, "OSC_TRANSPORT": "UDP"}
    offered = {attribute for node in found(server, "/perceivers")["CONTENTS"].values() for attribute in node}
    assert {name for name, there in extensions.items() if there} == offered - {"FULL_PATH", "TYPE"}


def test_osc_on_every_address_is_where_the_question_was_asked(controls: Controls) -> None:
    with closing(OscQueryServer(controls, {}, "0.0.0.0", 9010)) as server:
        assert "OSC_IP" not in found(server, "/?HOST_INFO")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/perceivers/tempo", 404),
        ("/perceivers/tempo?VALUE", 404),
        ("/perceivers/density/x", 404),
        ("/Perceivers", 404),
        ("/perceivers/%64ensity", 200),
        ("/%00%ff", 404),
        ("/perceivers?VALUE", 204),  # a container has none
        ("/perceivers/takeover?VALUE", 204),  # nor has a command
        ("/perceivers/density?EXTENDED_TYPE", 204),  # of the proposal, but not here
        ("/perceivers/density?FOO", 400),
        ("/perceivers/density?VALUE&FOO", 400),
        ("/perceivers/density?value", 400),
    ],
)
def test_what_is_not_there_is_refused_as_the_proposal_says(server: OscQueryServer, target: str, status: int) -> None:
    response, body = ask(server, target)
    assert response.status == status
    assert bool(body) == (status != 204)


# HTTP, and who may ask.


def test_a_connection_takes_many_requests(server: OscQueryServer, controls: Controls) -> None:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        for value in (-1.0, 0.5, 1.0):
            controls.set("density", value)
            connection.request("GET", "/perceivers/density?VALUE")
            assert json.loads(connection.getresponse().read()) == {"VALUE": [value]}


def test_head_is_get_without_the_body(server: OscQueryServer) -> None:
    response, body = ask(server, "/", "HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) == len(ask(server, "/")[1])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_other_methods_are_refused(server: OscQueryServer, method: str) -> None:
    response, _ = ask(server, "/perceivers/density", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "localhost:1234", "LOCALHOST", "[::1]:9", "127.1.2.3"])
def test_a_request_to_loopback_is_answered(server: OscQueryServer, host: str) -> None:
    assert ask(server, "/", Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:80", "10.0.0.1", "127.0.0.1.evil.example", "", "x@localhost@y"]
)
def test_a_name_that_a_web_page_made_point_here_is_refused(server: OscQueryServer, host: str) -> None:
    response, body = ask(server, "/", Host=host)
    assert response.status == 421
    assert b"temperature" not in body


def test_no_web_page_is_allowed_to_read(server: OscQueryServer) -> None:
    response, _ = ask(server, "/", Origin="http://evil.example")
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


def test_a_server_for_every_address_is_reached_by_address_or_by_its_own_name(controls: Controls) -> None:
    with closing(OscQueryServer(controls, {}, "0.0.0.0", 9010, host="0.0.0.0", allow="192.168.1.0/24")) as server:
        assert [server.is_own(host) for host in ("192.168.1.7:8080", "localhost", "evil.example")] == [True, True, False]
    with closing(OscQueryServer(controls, {}, "127.0.0.1", 9010, host="localhost")) as server:
        assert server.host == "127.0.0.1"
        assert found(server, "/?HOST_INFO")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n", b"421"),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", b"400"),
        (b"GET //[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", b"431"),
        (b"hello\r\n\r\n", b"400"),
    ],
)
def test_a_malformed_request_is_refused(server: OscQueryServer, request_text: bytes, status: bytes) -> None:
    first, _, _ = raw(server, request_text).partition(b"\n")  # a bare line where not even HTTP was understood
    assert status in first.split()


def test_what_comes_in_a_body_is_no_second_request(server: OscQueryServer) -> None:
    head = b"GET /?HOST_INFO HTTP/1.1\r\nHost: localhost\r\n"
    assert raw(server, head + b"Content-Length: 60\r\n\r\n" + head + b"\r\n").count(b"HTTP/1.1 200") == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(target=st.text(max_size=20).map(str.encode) | st.binary(max_size=20), line=st.binary(max_size=20))
def test_whatever_arrives_the_next_request_is_answered(server: OscQueryServer, target: bytes, line: bytes) -> None:
    raw(server, b"GET /" + target + b" HTTP/1.1\r\nHost: localhost\r\n" + line + b"\r\n\r\n")
    assert found(server, "/perceivers/seed?TYPE") == {"TYPE": "i"}


def test_connections_held_open_shut_nobody_out_and_do_not_pile_up(server: OscQueryServer) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        held = []
        for _ in range(5 * MAX_CONNECTIONS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            connection.sendall(b"GET / HTTP/1.1\r\n")  # and never a second line
            held.append(connection)
        assert found(server, "/perceivers/seed?TYPE") == {"TYPE": "i"}
        assert held[0].recv(1) == b""  # the oldest made room
        assert until(lambda: threading.active_count() <= before + MAX_CONNECTIONS)


def test_closing_ends_the_connections_and_frees_the_port(controls: Controls) -> None:
    server = OscQueryServer(controls, {}, "127.0.0.1", 9010)
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert found(server, "/perceivers/seed?TYPE")
        server.close()
        assert connection.recv(1) == b""
    with closing(OscQueryServer(controls, {}, "127.0.0.1", 9010, port=server.port)) as again:
        assert found(again, "/perceivers/seed?TYPE")


@pytest.mark.parametrize(
    ("host", "port"), [("", 0), ("127.0.0.1", 70_000), ("203.0.113.1", 0), ("no such host", 0), ("a" * 300, 0)]
)
def test_an_address_that_cannot_be_used_is_one_line(controls: Controls, host: str, port: int) -> None:
    with pytest.raises(OscError, match="OSCQuery cannot listen on") as refused:
        OscQueryServer(controls, {}, "127.0.0.1", 9010, host, port, allow="192.0.2.7")
    assert str(refused.value).isprintable()


def test_beyond_loopback_only_who_is_allowed_is_answered(controls: Controls) -> None:
    with pytest.raises(OscError, match="beyond loopback"):
        OscQueryServer(controls, {}, "127.0.0.1", 9010, "0.0.0.0")
    with closing(OscQueryServer(controls, {}, "127.0.0.1", 9010, "0.0.0.0", allow="192.0.2.7")) as server:
        assert found(server, "/?HOST_INFO")  # loopback always is
        with socket.create_connection((beyond_loopback(), server.port), PATIENCE) as connection:
            try:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(1) == b""
            except ConnectionError:
                pass


def test_a_port_that_is_taken_is_one_line(server: OscQueryServer, controls: Controls) -> None:
    with pytest.raises(OscError, match=f":{server.port} "):
        OscQueryServer(controls, {}, "127.0.0.1", 9010, port=server.port)
