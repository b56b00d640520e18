"""What a session tells by OSC of what was commanded: that it was done, or why not."""

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
from tests.perceivers_live.sessions import PATIENCE, SETTINGS, Stage


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
    def tells(self, name: str) -> list[object]:
        """The next message of this name."""
        for message in self.get_messages(timeout=PATIENCE):
            if message.address == f"/perceivers/{name}":
                return list(message.params)
        raise AssertionError("nothing came")

    def answer(self, name: str) -> list[object]:
        self.send_message(f"/perceivers/{name}", [])
        return self.tells(name)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stage = Stage(settings=dataclasses.replace(SETTINGS, osc=OscSettings(port=port)), states=Disk(tmp_path))
    stage.thread.start()
    try:
        stage.until(stage.listening.is_set)
        yield stage
    finally:
        stage.session.stop()
        stage.thread.join(PATIENCE)


@pytest.fixture
def surface(stage: Stage) -> Iterator[Surface]:
    """It never subscribes: who commands is told."""
    with closing(Surface("127.0.0.1", stage.session._settings.osc.port)) as client:
        yield client


def test_saving_recalling_listing_and_deleting_are_confirmed(surface: Surface) -> None:
    assert surface.answer("states") == [0]
    for name in ("verse", "chorus"):
        surface.send_message("/perceivers/save", name)
        assert surface.tells("message") == [f"saved {name}"]
    assert surface.answer("states") == [2, "chorus", "verse"]
    surface.send_message("/perceivers/recall", "verse")
    assert surface.tells("message") == ["recalled verse"]
    surface.send_message("/perceivers/delete", "verse")
    assert surface.tells("message") == ["deleted verse"]
    assert surface.answer("states") == [1, "chorus"]
    surface.send_message("/perceivers/delete", "verse")
    assert surface.tells("error") == ["command", "delete: verse: there is no such state; there are: chorus"]


def test_a_full_disk_is_told_to_the_sender_and_to_every_subscriber(stage: Stage, surface: Surface) -> None:
    with closing(Surface("127.0.0.1", stage.session._settings.osc.port)) as subscriber:
        subscriber.send_message("/perceivers/subscribe", [])
        assert subscriber.tells("state") == ["listening"]
        surface.send_message("/perceivers/save", "full")
        for client in (surface, subscriber):
            code, text = client.tells("error")
            assert code == "state"
            assert "No space left on device" in str(text)


def test_learning_is_told_in_words_when_it_begins_ends_or_cannot(stage: Stage, surface: Surface) -> None:
    surface.send_message("/perceivers/learn", "temperature")
    assert surface.tells("message") == ["learning temperature: move a controller within 20 s"]
    stage.hear((0xB0, 20, 0), (0xB0, 20, 100))
    assert surface.tells("message") == ["learnt temperature: CC 20 on channel 1 steers temperature"]
    surface.send_message("/perceivers/learn", "temprature")
    assert surface.tells("error") == [
        "command",
        "learn: unknown control or command 'temprature', nearest is temperature",
    ]
    surface.send_message("/perceivers/unlearn", "temperature")
    assert surface.tells("message") == ["unlearnt temperature: 1 controller unbound"]


def test_that_nothing_was_learnt_in_time_is_told(stage: Stage, surface: Surface) -> None:
    surface.send_message("/perceivers/learn", "density")
    surface.tells("message")
    stage.session.midi_map.learn("density", time.perf_counter() - LEARN_TIMEOUT)  # as if that had been then
    assert surface.tells("error") == ["learn", "density: not learnt, no controller moved (20 s); start learning again"]


def test_state_and_stats_can_be_asked_for(surface: Surface) -> None:
    assert surface.answer("state") == ["listening"]
    stats = surface.answer("stats")
    assert {"played", "late", "bpm"} <= set(stats[::2])
