"""Requests of pages: the same rules as for OSC."""

from __future__ import annotations

import itertools
import socket
import threading
import time

import pytest
from pythonosc.osc_message import OscMessage
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.page.keys import EARLIEST
from perceivers_live.page.requests import MAX_MISTAKES
from tests.perceivers_live.page.serving import Site, page, served
from tests.waiting import PATIENCE, until


def test_new_page_receives_all_controls_with_values_and_all_commands(site: Site) -> None:
    site.controls.set("density", 0.5)
    with page(site) as ours:
        received_controls = {one["name"]: one for one in ours.welcome["controls"]}
        assert set(received_controls) == set(CONTROLS)
        assert received_controls["density"]["value"] == 0.5
        for name, control in CONTROLS.items():
            assert received_controls[name]["help"] == control.help
            assert (received_controls[name]["low"], received_controls[name]["high"], received_controls[name]["default"]) == (
                control.low,
                control.high,
                control.default,
            )
        assert ours.welcome["commands"] == ["takeover", "save"]


def test_control_set_by_a_page_is_sent_to_others_with_the_pages_number(site: Site) -> None:
    with page(site) as ours, page(site) as other:
        ours.send("set", name="temperature", value=1.25)
        assert other.next("control") == {"type": "control", "name": "temperature", "value": 1.25, "by": ours.number}
        assert site.controls.get("temperature") == 1.25


def test_clamped_value_is_sent_back_to_the_page_that_set_it(site: Site) -> None:
    with page(site) as ours:
        ours.send("set", name="temperature", value=99)
        assert ours.next("control") == {"type": "control", "name": "temperature", "value": 1.5, "by": 0}


def test_a_change_from_elsewhere_appears_on_every_page(site: Site) -> None:
    with page(site) as one, page(site) as two:
        site.controls.set("mode", "duet", source="osc")
        for each in (one, two):
            assert each.next("control") == {"type": "control", "name": "mode", "value": "duet", "by": 0}


def test_last_of_many_changes_arrives(site: Site) -> None:
    with page(site) as ours:
        for value in range(1000):
            site.controls.set("seed", value)
        while ours.next("control")["value"] != 999:
            pass


def test_commands_run_with_their_arguments(site: Site) -> None:
    with page(site) as ours:
        ours.send("command", name="takeover", arguments=[])
        ours.send("command", name="save", arguments=["intro"])
        ours.ping()
        assert site.ran == [("takeover",), ("save", "intro")]


@pytest.mark.parametrize(
    ("kind", "fields", "word"),
    [
        ("set", {"name": "tempo", "value": 1}, "tempo"),
        ("set", {"name": "mode", "value": "dance"}, "respond"),
        ("set", {"name": "temperature", "value": "hot"}, "temperature"),
        ("command", {"name": "save", "arguments": []}, "save"),
        ("command", {"name": "takeover", "arguments": [1]}, "takeover"),
        ("command", {"name": "format", "arguments": []}, "format"),
        ("dance", {}, "type"),
    ],
)
def test_invalid_request_is_refused_in_one_line_and_the_page_stays_connected(
    site: Site, kind: str, fields: dict, word: str
) -> None:  # type: ignore[type-arg]
    with page(site) as ours:
        ours.send(kind, **fields)
        text = ours.next("refused")["text"]
        assert word in text
        assert text.isprintable()
        assert ours.ping()
        assert site.ran == []


def test_page_with_too_many_invalid_requests_is_disconnected(site: Site) -> None:
    with pytest.raises(ConnectionClosed), page(site) as ours:  # noqa: PT012
        for _ in range(MAX_MISTAKES + 1):
            ours.connection.send("nonsense")
            ours.next("refused")


def test_ping_returns_the_clock(site: Site) -> None:
    with page(site) as ours:
        before = time.perf_counter()
        clock = ours.ping()["clock"]
        assert before <= clock <= time.perf_counter()


def test_a_port_is_chosen(site: Site) -> None:
    with page(site) as ours:
        ours.send("port", direction="output", name="Synth")
        ours.ping()
        assert site.chosen == [("output", "Synth")]


# Keys played on a page.


def test_key_is_received_with_the_time_it_was_played(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceivers_live.page.keys.EARLIEST", 60.0)
    with page(site) as ours:
        at = time.perf_counter() - 0.05
        ours.send("midi", time=at, message=[144, 60, 80])
        ours.ping()
        assert site.received == [(at, (144, 60, 80))]


def test_times_of_keys_are_ordered_and_limited(site: Site) -> None:
    with page(site) as ours:
        began = time.perf_counter()
        for at in (began + 1000, began - 0.1, began - 1000):
            ours.send("midi", time=at, message=[144, 60, 80])
        ours.ping()
        times = [at for at, _ in site.received]
        assert times == sorted(times)
        assert all(began - EARLIEST <= at <= time.perf_counter() for at in times)


def test_closed_page_releases_only_its_own_keys(site: Site) -> None:
    with page(site) as other:
        with page(site) as ours:
            ours.send("midi", time=0, message=[144, 60, 80])
            ours.send("midi", time=0, message=[177, 64, 127])  # on another channel
            ours.ping()
            other.send("midi", time=0, message=[144, 72, 80])
            other.ping()
        assert until(lambda: len(site.received) == 5)
        assert {message for _, message in site.received[3:]} == {(0x80, 60, 64), (0xB1, 64, 0)}


def test_keys_are_ignored_while_the_input_is_another_port(site: Site) -> None:
    site.keys.close()
    with page(site) as ours:
        ours.send("midi", time=0, message=[144, 60, 80])
        ours.ping()
    assert site.received == []


def test_output_messages_reach_the_pages_with_their_time(site: Site) -> None:
    with page(site) as ours:
        before = time.perf_counter()
        site.sound.send((144, 60, 80))
        sound = ours.next("sound")
        assert sound["message"] == [144, 60, 80]
        assert before - 1e-4 <= sound["time"] <= time.perf_counter()


# The current state.


def test_later_page_receives_the_current_state(site: Site) -> None:
    site.hub.post(lambda: {"type": "turn", "state": "playing"})
    site.hub.post(lambda: {"type": "turn", "state": "listening"})
    with page(site) as ours:
        assert ours.next("turn") == {"type": "turn", "state": "listening"}


def test_page_that_does_not_read_misses_frames_without_affecting_others() -> None:
    with (
        served() as site,
        page(site) as other,
        connect(f"ws://127.0.0.1:{site.port}/page/socket", max_queue=1, close_timeout=0.1) as slow,
    ):
        slow.recv(PATIENCE)  # it is connected, and reads no further
        assert until(lambda: len(site.hub.clients) == 2)
        events = [[1.0, "on", 60, 80]] * 4000
        for number in itertools.count():
            site.hub.post(lambda number=number: {"type": "countdown", "at": number, "events": events})  # type: ignore[misc]
            while other.next("countdown")["at"] != number:
                pass
            dropped = sorted(client.dropped_frames for client in site.hub.clients)
            if dropped[1] > 0:
                break
        assert dropped[0] == 0
        while True:  # once it reads again it receives the current state
            frame = slow.recv(PATIENCE)
            if "welcome" in str(frame):
                break
        site.hub.post(lambda: {"type": "turn", "state": "playing"})
        while "playing" not in str(slow.recv(PATIENCE)):
            pass


def test_a_page_that_does_not_read_for_long_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceivers_live.page.client.STUCK", 0.2)
    with served() as site, connect(f"ws://127.0.0.1:{site.port}/page/socket", max_queue=1, close_timeout=0.1) as slow:
        slow.recv(PATIENCE)
        assert until(lambda: len(site.hub.clients) == 1)
        events = [[1.0, "on", 60, 80]] * 4000

        def gone() -> bool:
            site.hub.post(lambda: {"type": "played", "part": "human", "events": events})
            return not site.hub.clients

        assert until(gone)


def test_post_does_not_wait_for_a_page_that_does_not_read_and_is_bounded() -> None:
    with served() as site, connect(f"ws://127.0.0.1:{site.port}/page/socket", max_queue=1, close_timeout=0.1) as slow:
        slow.recv(PATIENCE)
        assert until(lambda: len(site.hub.clients) == 1)
        big = {"type": "notice", "level": "info", "text": "x" * 10_000}
        threading.Thread(target=lambda: [site.hub.post(lambda: big) for _ in range(100_000)], daemon=True).start()
        assert until(lambda: site.hub.dropped > 0)  # posting was not blocked, and excess messages were dropped


def test_immediately_closed_pages_are_removed(site: Site) -> None:
    headers = f"Host: 127.0.0.1:{site.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    request = f"GET /page/socket HTTP/1.1\r\n{headers}Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", site.port), PATIENCE) as raw:
            raw.sendall(request.encode())
            assert b" 101 " in raw.recv(64)
    with page(site) as ours:
        site.hub.post(lambda: {"type": "turn", "state": "playing"})
        ours.next("turn")
        assert until(lambda: len(site.hub.clients) == 1)


def test_after_an_overload_the_pages_have_the_newest_values(site: Site) -> None:
    with page(site) as ours:
        held, seen = threading.Event(), threading.Event()

        def block() -> None:
            seen.set()
            held.wait(PATIENCE)

        site.hub.post(block)
        assert seen.wait(PATIENCE)
        while site.hub.post(lambda: None):
            pass
        site.controls.set("temperature", 1.25)
        held.set()
        values = {one["name"]: one["value"] for one in ours.next("welcome")["controls"]}
        assert values["temperature"] == 1.25
        site.controls.set("temperature", 1.5)
        assert ours.next("control")["value"] == 1.5


def test_failing_message_does_not_affect_others(site: Site) -> None:
    with page(site) as ours:
        site.hub.post(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        site.hub.post(lambda: {"type": "turn", "state": "playing"})
        assert ours.next("turn")["state"] == "playing"


# OSCQuery's WebSocket.


def test_oscquery_client_receives_the_changes_it_listens_to(site: Site) -> None:
    with connect(f"ws://127.0.0.1:{site.port}/") as client:
        client.send('{"COMMAND": "LISTEN", "DATA": "/perceivers/temperature"}')
        client.send('{"COMMAND": "LISTEN", "DATA": "/perceivers/nothing"}')
        client.send("nonsense")
        assert until(lambda: any(site.query._listeners.values()))
        site.controls.set("density", 0.5)
        site.controls.set("temperature", 1.25)
        packet = client.recv(PATIENCE)
        assert isinstance(packet, bytes)
        message = OscMessage(packet)
        assert (message.address, message.params) == ("/perceivers/temperature", [1.25])
        client.send('{"COMMAND": "IGNORE", "DATA": "/perceivers/temperature"}')
        assert until(lambda: not any(site.query._listeners.values()))
        site.controls.set("temperature", 1.0)
        with pytest.raises(TimeoutError):
            client.recv(0.2)
