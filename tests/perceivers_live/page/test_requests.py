"""Pages that steer: the same rules as OSC's."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from pythonosc.osc_message import OscMessage
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.page.keys import EARLIEST
from perceivers_live.page.requests import MAX_MISTAKES
from tests.perceivers_live.page.serving import Served, page, served
from tests.waiting import PATIENCE, until


def test_a_new_page_is_told_every_control_with_its_value_and_every_command(stage: Served) -> None:
    stage.controls.set("density", 0.5)
    with page(stage) as ours:
        told = {one["name"]: one for one in ours.welcome["controls"]}
        assert set(told) == set(CONTROLS)
        assert told["density"]["value"] == 0.5
        for name, control in CONTROLS.items():
            assert told[name]["help"] == control.help
            assert (told[name]["low"], told[name]["high"], told[name]["default"]) == (control.low, control.high, control.default)
        assert {"name": "takeover", "help": "Play now."} in ours.welcome["commands"]


def test_a_page_sets_a_control_and_the_others_are_told_who_did(stage: Served) -> None:
    with page(stage) as ours, page(stage) as other:
        ours.send("set", name="temperature", value=1.25)
        assert other.next("control") == {"type": "control", "name": "temperature", "value": 1.25, "by": ours.number}
        assert stage.controls.get("temperature") == 1.25


def test_a_value_out_of_range_is_clamped_and_whoever_set_it_is_told(stage: Served) -> None:
    with page(stage) as ours:
        ours.send("set", name="temperature", value=99)
        assert ours.next("control") == {"type": "control", "name": "temperature", "value": 1.5, "by": 0}


def test_a_change_from_elsewhere_appears_on_every_page(stage: Served) -> None:
    with page(stage) as one, page(stage) as two:
        stage.controls.set("mode", "duet", source="osc")
        for each in (one, two):
            assert each.next("control") == {"type": "control", "name": "mode", "value": "duet", "by": 0}


def test_of_many_changes_the_last_one_arrives(stage: Served) -> None:
    with page(stage) as ours:
        for value in range(1000):
            stage.controls.set("seed", value)
        while ours.next("control")["value"] != 999:
            pass


def test_commands_run_with_their_arguments(stage: Served) -> None:
    with page(stage) as ours:
        ours.send("command", name="takeover", arguments=[])
        ours.send("command", name="save", arguments=["intro"])
        ours.ping()
        assert stage.ran == [("takeover",), ("save", "intro")]


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
def test_what_cannot_be_followed_is_refused_in_a_line_and_the_page_stays(
    stage: Served, kind: str, fields: dict, word: str
) -> None:  # type: ignore[type-arg]
    with page(stage) as ours:
        ours.send(kind, **fields)
        text = ours.next("refused")["text"]
        assert word in text
        assert text.isprintable()
        assert ours.ping()
        assert stage.ran == []


def test_a_page_that_makes_nothing_but_mistakes_is_disconnected(stage: Served) -> None:
    with pytest.raises(ConnectionClosed), page(stage) as ours:  # noqa: PT012
        for _ in range(MAX_MISTAKES + 1):
            ours.connection.send("nonsense")
            ours.next("refused")


def test_the_clock_is_told(stage: Served) -> None:
    with page(stage) as ours:
        before = time.perf_counter()
        clock = ours.ping()["clock"]
        assert before <= clock <= time.perf_counter()


def test_a_port_is_chosen(stage: Served) -> None:
    with page(stage) as ours:
        ours.send("port", direction="output", name="Synth")
        ours.ping()
        assert stage.chosen == [("output", "Synth")]


# Keys played on a page.


def test_a_key_is_heard_at_the_time_at_which_it_was_played(stage: Served) -> None:
    with page(stage) as ours:
        at = time.perf_counter() - 0.05
        ours.send("midi", time=at, message=[144, 60, 80])
        ours.ping()
        assert stage.heard == [(at, (144, 60, 80))]


def test_time_does_not_run_backwards_nor_ahead(stage: Served) -> None:
    with page(stage) as ours:
        began = time.perf_counter()
        for at in (began + 1000, began - 0.1, began - 1000):
            ours.send("midi", time=at, message=[144, 60, 80])
        ours.ping()
        times = [at for at, _ in stage.heard]
        assert times == sorted(times)
        assert all(began - EARLIEST <= at <= time.perf_counter() for at in times)


def test_a_page_that_goes_away_lets_go_of_its_keys_and_of_no_other(stage: Served) -> None:
    with page(stage) as other:
        with page(stage) as ours:
            ours.send("midi", time=0, message=[144, 60, 80])
            ours.send("midi", time=0, message=[177, 64, 127])  # on another channel
            ours.ping()
            other.send("midi", time=0, message=[144, 72, 80])
            other.ping()
        assert until(lambda: len(stage.heard) == 5)
        assert {message for _, message in stage.heard[3:]} == {(0x80, 60, 64), (0xB1, 64, 0)}


def test_nothing_is_heard_while_the_input_is_another_port(stage: Served) -> None:
    stage.keys.close()
    with page(stage) as ours:
        ours.send("midi", time=0, message=[144, 60, 80])
        ours.ping()
    assert stage.heard == []


def test_what_is_sent_to_the_output_reaches_the_pages_with_its_time(stage: Served) -> None:
    with page(stage) as ours:
        before = time.perf_counter()
        stage.sound.send((144, 60, 80))
        sound = ours.next("sound")
        assert sound["message"] == [144, 60, 80]
        assert before - 1e-4 <= sound["time"] <= time.perf_counter()


# How things stand.


def test_a_page_that_comes_later_is_told_how_things_stand(stage: Served) -> None:
    stage.hub.post(lambda: {"type": "turn", "state": "playing"})
    stage.hub.post(lambda: {"type": "turn", "state": "listening"})
    with page(stage) as ours:
        assert ours.next("turn") == {"type": "turn", "state": "listening"}


def test_a_page_that_does_not_read_misses_frames_and_costs_the_others_nothing() -> None:
    with (
        served() as stage,
        page(stage) as other,
        connect(f"ws://127.0.0.1:{stage.port}/page/socket", max_queue=1, close_timeout=0.1) as slow,
    ):
        slow.recv(PATIENCE)  # it is there, and reads no more
        assert until(lambda: len(stage.hub.clients) == 2)
        events = [[1.0, "on", 60, 80]] * 4000
        for number in itertools.count():
            stage.hub.post(lambda number=number: {"type": "countdown", "at": number, "events": events})  # type: ignore[misc]
            while other.next("countdown")["at"] != number:
                pass
            dropped = sorted(client.dropped for client in stage.hub.clients)
            if dropped[1] > 0:
                break
        assert dropped[0] == 0
        while True:  # once it reads again it is told how things stand, and is up to date
            frame = slow.recv(PATIENCE)
            if "welcome" in str(frame):
                break
        stage.hub.post(lambda: {"type": "turn", "state": "playing"})
        while "playing" not in str(slow.recv(PATIENCE)):
            pass


def test_a_page_that_does_not_read_for_long_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceivers_live.page.client.STUCK", 0.2)
    with served() as stage, connect(f"ws://127.0.0.1:{stage.port}/page/socket", max_queue=1, close_timeout=0.1) as slow:
        slow.recv(PATIENCE)
        assert until(lambda: len(stage.hub.clients) == 1)
        events = [[1.0, "on", 60, 80]] * 4000

        def gone() -> bool:
            stage.hub.post(lambda: {"type": "played", "part": "human", "events": events})
            return not stage.hub.clients

        assert until(gone)


def test_telling_does_not_wait_for_a_page_that_does_not_read_and_is_bounded() -> None:
    with served() as stage, connect(f"ws://127.0.0.1:{stage.port}/page/socket", max_queue=1, close_timeout=0.1) as slow:
        slow.recv(PATIENCE)
        assert until(lambda: len(stage.hub.clients) == 1)
        big = {"type": "notice", "level": "info", "text": "x" * 10_000}
        threading.Thread(target=lambda: [stage.hub.post(lambda: big) for _ in range(100_000)], daemon=True).start()
        assert until(lambda: stage.hub.dropped > 0)  # whoever told went on, and what was too much was left out


def test_pages_that_come_and_go_at_once_are_not_kept(stage: Served) -> None:
    for _ in range(30):
        connect(f"ws://127.0.0.1:{stage.port}/page/socket", close_timeout=0.1).socket.close()
    with page(stage) as ours:
        stage.hub.post(lambda: {"type": "turn", "state": "playing"})
        ours.next("turn")
        assert until(lambda: len(stage.hub.clients) == 1)


def test_after_an_overload_the_pages_have_the_newest_values(stage: Served) -> None:
    with page(stage) as ours:
        held, seen = threading.Event(), threading.Event()

        def block() -> None:
            seen.set()
            held.wait(PATIENCE)

        stage.hub.post(block)
        assert seen.wait(PATIENCE)
        while stage.hub.post(lambda: None):
            pass
        stage.controls.set("temperature", 1.25)
        held.set()
        values = {one["name"]: one["value"] for one in ours.next("welcome")["controls"]}
        assert values["temperature"] == 1.25
        stage.controls.set("temperature", 1.5)
        assert ours.next("control")["value"] == 1.5


def test_a_message_that_fails_does_not_cost_others(stage: Served) -> None:
    with page(stage) as ours:
        stage.hub.post(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        stage.hub.post(lambda: {"type": "turn", "state": "playing"})
        assert ours.next("turn")["state"] == "playing"


# OSCQuery's WebSocket.


def test_an_oscquery_client_hears_the_changes_that_it_listens_to(stage: Served) -> None:
    with connect(f"ws://127.0.0.1:{stage.port}/") as client:
        client.send('{"COMMAND": "LISTEN", "DATA": "/perceivers/temperature"}')
        client.send('{"COMMAND": "LISTEN", "DATA": "/perceivers/nothing"}')
        client.send("nonsense")
        assert until(lambda: any(stage.query._listeners.values()))
        stage.controls.set("density", 0.5)
        stage.controls.set("temperature", 1.25)
        packet = client.recv(PATIENCE)
        assert isinstance(packet, bytes)
        message = OscMessage(packet)
        assert (message.address, message.params) == ("/perceivers/temperature", [1.25])
        client.send('{"COMMAND": "IGNORE", "DATA": "/perceivers/temperature"}')
        assert until(lambda: not any(stage.query._listeners.values()))
        stage.controls.set("temperature", 1.0)
        with pytest.raises(TimeoutError):
            client.recv(0.2)
