"""Fixtures: a map of MIDI controllers, its file, and the effects of messages."""

import queue
from collections.abc import Callable
from pathlib import Path

import pytest

from perceivers_live.controls.midi_map import MidiMap
from perceivers_live.controls.midi_map_file import Binding, write
from perceivers_live.controls.registry import Controls


@pytest.fixture
def controls() -> Controls:
    return Controls()


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "user" / "midi_map.toml"


@pytest.fixture
def learnt() -> "queue.SimpleQueue[Binding]":
    """The bindings that a map has reported as learnt, in order."""
    return queue.SimpleQueue()


@pytest.fixture
def bound(controls: Controls, calls: list[str], file: Path, learnt: "queue.SimpleQueue[Binding]") -> Callable[..., MidiMap]:
    """A map of the given bindings, with the commands `takeover` and `fail`."""

    def fail() -> None:
        raise RuntimeError("no engine")

    def make(*bindings: Binding) -> MidiMap:
        if bindings:
            write(file, bindings)
        commands = {"takeover": lambda: calls.append("takeover"), "fail": fail}
        made = MidiMap(controls, commands, file, on_learnt=learnt.put)
        assert made.error is None
        return made

    return make
