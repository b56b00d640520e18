"""Who receives which OSC message: subscribers, senders of commands, and senders of invalid messages."""

import time
from contextlib import closing

import pytest

from engine.states import StateError
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Value
from perceivers_live.controls.registry import Controls
from perceivers_live.osc.recipients import MAX_SENDERS, MAX_SUBSCRIBERS, SENDER_TIMEOUT, Recipients
from perceivers_live.osc.server import MAX_PUBLISHED_ERRORS, OscServer
from tests.perceivers_live.osc.client import Client


def test_new_subscriber_receives_the_current_values(surface: Client, controls: Controls) -> None:
    controls.set("mode", "duet")
    messages = surface.subscribe()
    assert [address.removeprefix("/perceivers/") for address, _ in messages] == [*CONTROLS, "state", "stats"]
    assert ("/perceivers/mode", ["duet"]) in messages
    assert messages[-2:] == [("/perceivers/state", ["listening"]), ("/perceivers/stats", ["late", 2.0])]


def test_state_stats_and_saved_states_can_be_queried(surface: Client) -> None:
    for name, answer in (("state", ["listening"]), ("stats", ["late", 2.0]), ("states", [2, "a", "b"])):
        surface.send_message(f"/perceivers/{name}", None if name == "state" else [])
        assert surface.next() == (f"/perceivers/{name}", answer)
        surface.send_message(f"/perceivers/{name}", answer)  # another daemon's answer
        assert surface.all() == []


def test_failing_query_is_answered_with_an_error(controls: Controls) -> None:
    def fail() -> list[Value]:
        raise StateError("no disk")

    with closing(OscServer(controls, {}, port=0, queries={"states": fail})) as server, closing(Client(server)) as surface:
        surface.send_message("/perceivers/states", [])
        assert surface.all() == [("/perceivers/error", ["command", "states: no disk"])]


def test_error_is_sent_to_every_subscriber_and_once_to_its_sender(surface: Client, subscriber: Client, server: OscServer) -> None:
    surface.subscribe()
    surface.send_message("/perceivers/temperature", "hot")
    error = ("/perceivers/error", ["value", "temperature: found 'hot', allowed 0.5..1.5 (float)"])
    assert surface.all() == [error]
    assert subscriber.all() == [error]


def test_errors_sent_to_other_subscribers_are_limited(surface: Client, subscriber: Client) -> None:
    began = time.monotonic()
    for _ in range(10 * MAX_PUBLISHED_ERRORS):
        surface.send_message("/perceivers/temperature", "hot")
    assert len(surface.all()) == 10 * MAX_PUBLISHED_ERRORS
    took = time.monotonic() - began
    assert MAX_PUBLISHED_ERRORS <= len(subscriber.all()) <= MAX_PUBLISHED_ERRORS * (2 + took)


def test_sender_of_a_command_receives_its_result(surface: Client, subscriber: Client, server: OscServer) -> None:
    with closing(Client(server)) as bystander:
        bystander.send_message("/perceivers/density", 0.5)
        surface.send_message("/perceivers/save", "a")
        surface.all()
        server.send_message("saved a")
        server.send_error("state", "no room")
        server.send_state("playing")
        messages = [("/perceivers/message", ["saved a"]), ("/perceivers/error", ["state", "no room"])]
        assert surface.all() == messages
        assert bystander.all() == []
        assert subscriber.all() == [("/perceivers/density", [0.5]), *messages, ("/perceivers/state", ["playing"])]


def test_sender_receives_the_change_of_a_partner_limit(surface: Client, subscriber: Client) -> None:
    surface.subscribe()
    surface.send_message("/perceivers/register_high", 15)
    assert surface.next() == ("/perceivers/register_low", [15])
    assert surface.all() == []
    assert sorted(subscriber.all()) == [("/perceivers/register_high", [15]), ("/perceivers/register_low", [15])]


def test_senders_are_forgotten_after_a_minute_and_the_oldest_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("perceivers_live.osc.recipients.time.monotonic", lambda: now[0])
    recipients, senders = Recipients(), [("127.0.0.1", 5000 + i) for i in range(MAX_SENDERS + 1)]
    for sender in senders:
        recipients.add_sender(sender)
    assert recipients.all() == senders[1:]
    now[0] += SENDER_TIMEOUT - 1
    recipients.add_sender(senders[1])
    assert sorted(recipients.all()) == senders[1:]
    now[0] += 2
    assert recipients.all() == [senders[1]]


def test_the_oldest_subscriber_is_replaced_if_there_are_too_many() -> None:
    recipients, targets = Recipients(), [("127.0.0.1", 5000 + i) for i in range(MAX_SUBSCRIBERS + 1)]
    for target in targets:
        recipients.subscribe(target, target)
    assert recipients.all() == targets[1:]
