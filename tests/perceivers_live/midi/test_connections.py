"""The page's own ports among the selectable ports, without a MIDI system. ``tests/live`` tests real MIDI systems."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import pytest

from perceivers_live.controls.settings import MidiSettings
from perceivers_live.midi.connections import Callbacks, Connections
from perceivers_live.midi.ports import PortError, find
from perceivers_live.page.keys import PAGE, PageKeys, PagePorts
from tests.waiting import until

OWN = MidiSettings(input_port=PAGE, output_port=PAGE)


class SoundStub:
    def __init__(self) -> None:
        self.sent: list[Sequence[int]] = []

    def send(self, message: Sequence[int]) -> None:
        self.sent.append(message)


@pytest.fixture(autouse=True)
def _without_midi(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        raise PortError("no MIDI system (this is a test)")

    monkeypatch.setattr("perceivers_live.midi.ports._system", nothing)


def test_page_ports_need_no_midi_system() -> None:
    keys, sound, received = PageKeys(), SoundStub(), []
    with Connections(OWN, Callbacks(lambda now, message: received.append(message)), local=PagePorts(keys, sound)) as connections:  # type: ignore[arg-type]
        assert connections.names == (PAGE, PAGE)
        keys.play("page", 0.0, (0x90, 60, 80))
        connections.send((0x90, 62, 80))
        state = connections.state
        assert (state.input.wanted, state.output.name, state.inputs) == (PAGE, PAGE, ())
    assert received == [(0x90, 60, 80)]
    assert sound.sent == [(0x90, 62, 80)]
    assert not keys.play("a page", 0.0, (0x90, 60, 80))


def test_page_stays_open_while_the_midi_system_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    running, lost = threading.Event(), list[str]()

    class System:
        resolution = 0.0

        def __init__(self) -> None:
            if not running.is_set():
                raise PortError("no MIDI system (this is a test)")

        def alive(self) -> bool:
            return running.is_set()

        def names(self) -> tuple[list[str], list[str]]:
            return ["Piano"], []

        def gone(self) -> set[str]:
            return set()

        def changes(self) -> list[object]:
            return []

        def close(self) -> None: ...

    made = _input_stubs(monkeypatch)
    monkeypatch.setattr("perceivers_live.midi.connections.Probe", System)
    sound = SoundStub()
    settings = MidiSettings(input_port="Piano", output_port=PAGE)
    ports = PagePorts(PageKeys(), sound)  # type: ignore[arg-type]
    with Connections(settings, Callbacks(input_lost=lambda: lost.append("input")), local=ports) as connections:
        for count in (1, 2):
            connections.send((0x90, 60, 80))
            assert connections.names == (None, PAGE)
            running.set()
            assert until(lambda: connections.names == ("Piano", PAGE))
            running.clear()
            assert until(lambda: connections.names == (None, PAGE))
            assert until(lambda count=count: (len(made), len(lost)) == (count, count))  # type: ignore[misc]
    assert len(sound.sent) == 2


def test_a_port_that_was_open_is_found_again_though_its_short_name_matches_several_now(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = [["Synth A"]]

    class System:
        resolution = 0.0

        def alive(self) -> bool:
            return True

        def names(self) -> tuple[list[str], list[str]]:
            return [], names[0]

        def gone(self) -> set[str]:
            return set()

        def changes(self) -> list[object]:
            return []

        def close(self) -> None: ...

    class Port:
        def __init__(self, wanted: str, probe: System) -> None:
            self.name = self.address = probe.names()[1][find(probe.names()[1], wanted, "output")]

        def is_gone(self, there: Sequence[str], *_: object) -> bool:
            return self.name not in there

        def close(self) -> None: ...

    class Guard:
        def __init__(self, port: str) -> None: ...

        def close(self) -> None: ...

    for name, stub in (("Probe", System), ("OutputPort", Port), ("Watchdog", Guard)):
        monkeypatch.setattr(f"perceivers_live.midi.connections.{name}", stub)
    settings = MidiSettings(input_port=PAGE, output_port="Synth")
    with Connections(settings, local=PagePorts(PageKeys(), SoundStub())) as connections:  # type: ignore[arg-type]
        for after in (["Synth B", "Synth A", "Synth C"], ["Synth B", "Synth C"]):
            assert connections.names == (PAGE, "Synth A")
            names[0] = []
            assert until(lambda: connections.names == (PAGE, None))
            names[0] = after
            with caplog.at_level(logging.WARNING):
                assert until(lambda: connections.names == (PAGE, "Synth A") or "matches several" in connections.state.output.text)
        assert connections.names == (PAGE, None)
        assert "matches several" not in connections.state.input.text
        assert until(lambda: caplog.text.count("matches several") == 1)


def test_failed_port_choice_keeps_the_open_port(caplog: pytest.LogCaptureFixture) -> None:
    changed = []
    ports = PagePorts(PageKeys(), SoundStub())  # type: ignore[arg-type]
    with (
        Connections(OWN, Callbacks(change_output=changed.append), local=ports) as connections,
        caplog.at_level(logging.WARNING),
    ):
        for direction in ("input", "output"):
            connections.choose(direction, "Synth")
            assert until(lambda direction=direction: f"the {direction} is unchanged" in caplog.text)  # type: ignore[misc]
        assert connections.names == (PAGE, PAGE)
    assert changed == []


def test_watchdog_of_a_new_output_knows_the_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: set[tuple[str, int]] = set()

    class Port:
        def __init__(self, wanted: str, probe: object = None) -> None:
            self.name = self.address = wanted

        def is_gone(self, *_: object) -> bool:
            return False

        def send(self, message: Sequence[int]) -> None: ...

        def close(self) -> None: ...

    class Guard:
        def __init__(self, port: str) -> None:
            self.port = port

        def watch(self, channel: int) -> None:
            watched.add((self.port, channel))

        def close(self) -> None: ...

    monkeypatch.setattr("perceivers_live.midi.connections.OutputPort", Port)
    monkeypatch.setattr("perceivers_live.midi.connections.Watchdog", Guard)
    switched = threading.Event()

    def change(swap: Callable[[], None]) -> None:
        connections.send((0x82, 60, 0))  # the old output is silenced
        swap()
        switched.set()

    ports = PagePorts(PageKeys(), SoundStub())  # type: ignore[arg-type]
    with Connections(OWN, Callbacks(change_output=change), local=ports) as connections:
        for name in ("A", "B"):
            switched.clear()
            connections.choose("output", name)
            assert switched.wait(10.0)
            connections.send((0x92, 60, 80))
            assert (name, 2) in watched


def test_the_pedal_of_a_port_can_be_inverted_but_not_that_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _input_stubs(monkeypatch)
    keys, received = PageKeys(), list[Sequence[int]]()
    settings = MidiSettings(input_port=PAGE, output_port=PAGE, invert_pedal=True)
    ports = PagePorts(keys, SoundStub())  # type: ignore[arg-type]
    with Connections(settings, Callbacks(lambda now, message: received.append(message)), local=ports) as connections:
        keys.play("page", 0.0, (0xB0, 64, 127))
        connections.choose("input", "Piano")
        assert until(lambda: connections.state.input.wanted == "Piano")
        for message in ((0xB0, 64, 0), (0xB2, 64, 127), (0xB0, 66, 0), (0x90, 64, 80), (0xF8,)):
            made[0](0.0, message)
    assert received == [(0xB0, 64, 127), (0xB0, 64, 127), (0xB2, 64, 0), (0xB0, 66, 0), (0x90, 64, 80), (0xF8,)]


def test_what_a_page_holds_is_released_when_it_disconnects() -> None:
    keys, received = PageKeys(), list[Sequence[int]]()
    keys.open(lambda now, message: received.append(message))
    for message in ((0x90, 60, 80), (0x90, 62, 80), (0x80, 62, 0), (0xB1, 64, 127), (0xB0, 66, 127), (0xB0, 7, 90)):
        keys.play("one page", 0.0, message)
    keys.play("one page", 0.0, (0xE0, 0, 80))
    keys.play("another page", 0.0, (0x90, 64, 80))
    keys.play("one page", 0.0, (0x92, 65, 80))
    keys.play("one page", 0.0, (0xB2, 123, 0))  # all notes off
    received.clear()
    keys.gone("one page")
    keys.gone("one page")
    assert sorted(received) == [(0x80, 60, 64), (0xB0, 66, 0), (0xB1, 64, 0), (0xE0, 0, 64)]


def test_a_choice_of_another_input_is_reported_once_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made, opened = _input_stubs(monkeypatch), list[int]()
    ports = PagePorts(PageKeys(), SoundStub())  # type: ignore[arg-type]
    callbacks = Callbacks(input_lost=lambda: opened.append(-1), input_replaced=lambda: opened.append(len(made)))
    with Connections(OWN, callbacks, local=ports) as connections:
        for count, name in enumerate(("Piano", "Organ"), 1):
            connections.choose("input", name)
            assert until(lambda count=count: len(opened) == count)  # type: ignore[misc]
    assert opened == [1, 2]


def test_only_the_chosen_input_is_heard_once_what_was_held_on_the_former_one_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    made, heard = _input_stubs(monkeypatch), list[str]()
    ports = PagePorts(PageKeys(), SoundStub())  # type: ignore[arg-type]
    callbacks = Callbacks(lambda _, message: heard.append(f"key {message[1]}"), input_replaced=lambda: heard.append("replaced"))
    with Connections(OWN, callbacks, local=ports) as connections:
        for count, name in enumerate(("Piano", "Organ"), 1):
            connections.choose("input", name)
            assert until(lambda count=count: heard.count("replaced") == count)  # type: ignore[misc]
            assert until(lambda name=name: connections.state.input.wanted == name)  # type: ignore[misc]
            for listen in made:
                listen(0.0, (0x90, 60 + made.index(listen), 80))
    assert heard == ["replaced", "key 60", "replaced", "key 61"]


def _input_stubs(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[float, Sequence[int]], None]]:
    """Replaces input ports of a MIDI system. The list receives the callback of each port that is opened."""
    made: list[Callable[[float, Sequence[int]], None]] = []

    class Port:
        def __init__(self, wanted: str, on_message: Callable[[float, Sequence[int]], None], probe: object = None) -> None:
            self.name = self.address = wanted
            made.append(on_message)

        def is_gone(self, *_: object) -> bool:
            return False

        def close(self) -> None: ...

    monkeypatch.setattr("perceivers_live.midi.connections.InputPort", Port)
    return made


def test_newest_of_many_port_choices_is_used() -> None:
    changed = list[Callable[[], None]]()
    held, seen = threading.Event(), threading.Event()

    def change(swap: Callable[[], None]) -> None:
        swap()
        changed.append(swap)
        seen.set()
        held.wait(10.0)

    ports = PagePorts(PageKeys(), SoundStub())  # type: ignore[arg-type]
    with Connections(OWN, Callbacks(change_output=change), local=ports) as connections:
        connections.choose("output", PAGE)
        assert seen.wait(10.0)
        for _ in range(1000):
            connections.choose("output", "Synth")
        connections.choose("output", PAGE)
        held.set()
        assert until(lambda: len(changed) == 2)
        assert not connections._chosen


def test_choosing_the_same_output_again_also_calls_change() -> None:
    changed = []

    def change(swap: Callable[[], None]) -> None:
        swap()
        changed.append(swap)

    ports = PagePorts(PageKeys(), SoundStub())  # type: ignore[arg-type]
    with Connections(OWN, Callbacks(change_output=change), local=ports) as connections:
        connections.choose("output", PAGE)
        assert until(lambda: changed)
        assert connections.names == (PAGE, PAGE)
