"""OSC reports of a session about commands: that they were done, or why not."""

from __future__ import annotations

import dataclasses
import errno
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pythonosc.udp_client import SimpleUDPClient

from perceivers_live.controls.midi_map import LEARN_TIMEOUT
from perceivers_live.controls.settings import OscSettings
from perceivers_live.performer.performer import SavedState
from perceivers_live.session.saved_states import StateStore
from tests.perceivers_live.sessions import PATIENCE, SETTINGS, SessionHarness, running


class Disk(StateStore):
    """Keeps the states in memory and their names on the disk; "full" does not fit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._states: dict[str, SavedState] = {}

    def save(self, name: str, saved_state: SavedState) -> None:
        if name == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        self._states[name] = saved_state
        (self._folder / f"{name}.state").touch()

    def load(self, name: str) -> SavedState:
        return self._states[name]


class Surface(SimpleUDPClient):
    def next_message(self, name: str) -> list[object]:
        """The next message of this name."""
        for message in self.get_messages(timeout=PATIENCE):
            if message.address == f"/perceivers/{name}":
                return list(message.params)
        raise AssertionError("no message was received")

    def query(self, name: str) -> list[object]:
        self.send_message(f"/perceivers/{name}", [])
        return self.next_message(name)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[SessionHarness]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = dataclasses.replace(SETTINGS, osc=OscSettings(port=port))
    with running(settings=settings, states=Disk(tmp_path)) as harness:
        yield harness


@pytest.fixture
def surface(harness: SessionHarness) -> Iterator[Surface]:
    """It never subscribes; the sender of a command receives its result."""
    with closing(Surface("127.0.0.1", harness.session._settings.osc.port)) as client:
        yield client


def test_saving_recalling_listing_and_deleting_are_confirmed(surface: Surface) -> None:
    assert surface.query("states") == [0]
    for name in ("verse", "chorus"):
        surface.send_message("/perceivers/save", name)
        assert surface.next_message("message") == [f"saved {name}"]
    assert surface.query("states") == [2, "chorus", "verse"]
    surface.send_message("/perceivers/recall", "verse")
    assert surface.next_message("message") == ["recalled verse"]
    surface.send_message("/perceivers/delete", "verse")
    assert surface.next_message("message") == ["deleted verse"]
    assert surface.query("states") == [1, "chorus"]
    surface.send_message("/perceivers/delete", "verse")
    assert surface.next_message("error") == ["command", "delete: verse: there is no such state; there are: chorus"]


def test_full_disk_is_reported_to_the_sender_and_every_subscriber(harness: SessionHarness, surface: Surface) -> None:
    with closing(Surface("127.0.0.1", harness.session._settings.osc.port)) as subscriber:
        subscriber.send_message("/perceivers/subscribe", [])
        assert subscriber.next_message("state") == ["listening"]
        surface.send_message("/perceivers/save", "full")
        for client in (surface, subscriber):
            code, text = client.next_message("error")
            assert code == "state"
            assert "No space left on device" in str(text)


def test_start_end_and_refusal_of_learning_are_reported(harness: SessionHarness, surface: Surface) -> None:
    surface.send_message("/perceivers/learn", "temperature")
    assert surface.next_message("message") == ["learning temperature: move a controller within 20 s"]
    harness.receive((0xB0, 20, 0), (0xB0, 20, 100))
    assert surface.next_message("message") == ["learnt temperature: CC 20 on channel 1 is bound to temperature"]
    surface.send_message("/perceivers/learn", "temprature")
    assert surface.next_message("error") == [
        "command",
        "learn: unknown control or command 'temprature', nearest is temperature",
    ]
    surface.send_message("/perceivers/unlearn", "temperature")
    assert surface.next_message("message") == ["unlearnt temperature: 1 controller unbound"]


def test_learning_timeout_is_reported(harness: SessionHarness, surface: Surface) -> None:
    surface.send_message("/perceivers/learn", "density")
    surface.next_message("message")
    harness.session.midi_map.learn("density", time.perf_counter() - LEARN_TIMEOUT)  # as if it had begun so long ago
    assert surface.next_message("error") == ["learn", "density: not learnt, no controller moved (20 s); start learning again"]


def test_state_and_stats_can_be_queried(surface: Surface) -> None:
    assert surface.query("state") == ["listening"]
    stats = surface.query("stats")
    assert {"played", "late", "bpm"} <= set(stats[::2])
