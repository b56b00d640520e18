"""OSCQuery over real HTTP on loopback. Only failures reach the timeouts."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
from pythonosc.osc_message_builder import build_msg

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.registry import Controls
from perceivers_live.osc.server import OscServer
from perceivers_live.page.hub import Hub
from perceivers_live.page.query import OscQuery
from perceivers_live.page.routes import Routes
from perceivers_live.page.server import PageServer

PATIENCE = 10.0  # seconds


def takeover() -> None:
    """Play now.

    Whatever the human does.
    """


def save(name: str, slot: int, level: float = 1.0) -> None: ...


@pytest.fixture
def controls() -> Controls:
    return Controls()


class Served:
    """OSCQuery on its own port."""

    def __init__(self, controls: Controls, commands: Mapping[str, Callable[..., object]], osc_host: str = "127.0.0.1") -> None:
        self._hub = Hub(dict)
        self._query = OscQuery(controls, commands, (osc_host, 9010), self._hub, {"state": lambda: ["listening"]})
        self._server = PageServer(Routes(self._query.answer), self._query.serve, self._query.serve)
        self.port = self._server.port

    def close(self) -> None:
        self._query.close()
        self._hub.close()
        self._server.close()


@pytest.fixture
def server(controls: Controls) -> Iterator[Served]:
    with closing(Served(controls, {"takeover": takeover, "save": save})) as running:
        yield running


def ask(server: Served, target: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        return response, response.read()


def found(server: Served, target: str) -> Any:
    response, body = ask(server, target)
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    return json.loads(body)


# The description.


def test_the_root_holds_every_control_and_command(server: Served) -> None:
    root = found(server, "/")
    assert (root["FULL_PATH"], root["ACCESS"], list(root["CONTENTS"])) == ("/", 0, ["perceivers"])
    ours = root["CONTENTS"]["perceivers"]
    assert (ours["FULL_PATH"], ours["ACCESS"]) == ("/perceivers", 0)
    assert set(ours["CONTENTS"]) == {*CONTROLS, "takeover", "save", "state"}
    for name, node in ours["CONTENTS"].items():
        assert node["FULL_PATH"] == f"/perceivers/{name}"
        assert "CONTENTS" not in node
    assert "TYPE" not in root
    assert "TYPE" not in ours


def test_a_control_is_described_with_its_type_range_unit_and_value(server: Served, controls: Controls) -> None:
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
    assert (temperature["TYPE"], temperature["RANGE"]) == ("f", [{"MIN": 0.5, "MAX": 1.5}])
    assert "UNIT" not in temperature
    mode = found(server, "/perceivers/mode")
    assert (mode["TYPE"], mode["VALUE"]) == ("s", [controls.get("mode")])
    assert mode["RANGE"] == [{"VALS": list(CONTROLS["mode"].choices)}]
    hold = found(server, "/perceivers/hold")
    assert (hold["TYPE"], hold["VALUE"]) == ("T", [False])
    assert not {"RANGE", "CLIPMODE"} & set(hold)


def test_command_type_is_an_impulse_or_its_required_arguments(server: Served) -> None:
    assert found(server, "/perceivers/takeover") == {
        "DESCRIPTION": "Play now.",
        "FULL_PATH": "/perceivers/takeover",
        "ACCESS": 2,
        "TYPE": "I",
    }
    assert found(server, "/perceivers/save") == {"FULL_PATH": "/perceivers/save", "ACCESS": 2, "TYPE": "si"}


def test_osc_accepts_each_control_in_its_described_type(server: Served, controls: Controls) -> None:
    """The OSC server accepts what the description asks clients to send."""
    done = threading.Event()
    wanted: dict[str, object] = {}
    for name, node in found(server, "/perceivers")["CONTENTS"].items():
        if node["ACCESS"] == 3:
            limits = node.get("RANGE", [{}])[0]
            wanted[name] = limits.get("MAX", limits["VALS"][-1] if "VALS" in limits else True)
    with (
        closing(OscServer(controls, {"takeover": done.set}, port=0)) as osc,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as surface,
    ):
        for name, value in wanted.items():
            surface.sendto(build_msg(f"/perceivers/{name}", value).dgram, ("127.0.0.1", osc.port))
        surface.sendto(b"/perceivers/takeover\0\0\0\0,I\0\0", ("127.0.0.1", osc.port))
        assert done.wait(PATIENCE)
    assert dict(controls.snapshot()) == pytest.approx(wanted)  # floats travel in single precision


def test_one_or_several_attributes_can_be_queried(server: Served, controls: Controls) -> None:
    controls.set("density", 0.25)
    assert found(server, "/perceivers/density?VALUE") == {"VALUE": [0.25]}
    assert found(server, "/perceivers/density?RANGE") == {"RANGE": [{"MIN": -1.0, "MAX": 1.0}]}
    assert found(server, "/perceivers/density?TYPE&ACCESS#there") == {"TYPE": "f", "ACCESS": 3}
    assert set(found(server, "/?CONTENTS")) == {"CONTENTS"}
    assert set(found(server, "/perceivers/?CONTENTS")["CONTENTS"]) == {*CONTROLS, "takeover", "save", "state"}


@pytest.mark.parametrize("target", ["/perceivers?TYPE", "/perceivers/takeover?RANGE", "/perceivers/temperature?UNIT"])
def test_an_attribute_that_a_node_lacks_is_an_empty_object(server: Served, target: str) -> None:
    assert found(server, target) == {}


@pytest.mark.parametrize("target", ["/?HOST_INFO", "/perceivers/density?HOST_INFO", "/no/such/path?HOST_INFO"])
def test_host_info_has_the_address_of_osc(server: Served, target: str) -> None:
    info = found(server, target)
    extensions = info.pop("EXTENSIONS")
    assert info == {"NAME": "perceivers-live", "OSC_IP": "127.0.0.1", "OSC_PORT": 9010, "OSC_TRANSPORT": "UDP"}
    offered = {attribute for node in found(server, "/perceivers")["CONTENTS"].values() for attribute in node}
    assert {name for name, there in extensions.items() if there} == offered - {"FULL_PATH", "TYPE"} | {"LISTEN"}


def test_host_info_omits_the_ip_if_osc_listens_on_all_addresses(controls: Controls) -> None:
    with closing(Served(controls, {}, "0.0.0.0")) as server:
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
def test_status_codes_follow_the_oscquery_proposal(server: Served, target: str, status: int) -> None:
    response, body = ask(server, target)
    assert response.status == status
    assert bool(body) == (status != 204)


def test_state_is_in_the_tree(server: Served) -> None:
    _, body = ask(server, "/perceivers/state?VALUE")
    assert json.loads(body) == {"VALUE": ["listening"]}
