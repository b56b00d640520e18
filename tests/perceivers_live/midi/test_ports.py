"""Ports are found by a part of their name, and ports of the same name by their number."""

from __future__ import annotations

import pytest

from perceivers_live.midi.ports import NoSuchPort, OutputPort, PermanentPortError, find

NAMES = ["Piano", "Piano 2", "Pad", "Pad", "Synth #1", "Synth #2"]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [("piano", 0), ("PIANO 2", 1), ("no 2", 1), ("Pad#1", 2), ("pad#2", 3), ("Pa#2", 3), ("Synth #2", 5), ("h #1", 4)],
)
def test_unique_part_of_a_name_finds_the_port(wanted: str, index: int) -> None:
    assert find(NAMES, wanted, "input") == index


@pytest.mark.parametrize("wanted", ["Pad", "synth", "an"])
def test_ambiguous_name_error_lists_the_ports(wanted: str) -> None:
    with pytest.raises(PermanentPortError, match="matches several of the ports; there are: '"):
        find(NAMES, wanted, "input")


@pytest.mark.parametrize("wanted", ["Pad#3", "Pad#0", "Synth #3", "P#1", "Organ#1", "Organ"])
def test_unknown_name_error_lists_the_ports(wanted: str) -> None:
    with pytest.raises(NoSuchPort, match=r"matches none of the ports; there are: 'Piano', 'Piano 2', 'Pad'"):
        find(NAMES, wanted, "output")


def test_port_is_gone_when_one_of_two_equal_names_disappears() -> None:
    port = OutputPort.__new__(OutputPort)  # as if opened, without a MIDI system
    port.name, port._wanted, port._alike = "Pad", "pad#2", 2
    assert not port.is_gone(["Pad", "Pad", "Piano"])
    assert not port.is_gone(["Pad", "Pad", "Pad"])
    assert port.is_gone(["Pad", "Pad", "Piano"])


def test_port_is_gone_with_its_name_but_a_virtual_port_never_is() -> None:
    port = OutputPort.__new__(OutputPort)
    port.name, port._wanted, port._alike = "Pad", "Pad", 1
    assert not port.is_gone(["Pad"])
    assert port.is_gone(["Piano"])
    port._wanted = ""
    assert not port.is_gone([])


def test_a_port_is_found_again_if_alsa_gives_it_other_numbers() -> None:
    names = ["Through:Through Port-0 14:0", "Keys:Keys MIDI 1 24:0", "FLUID Synth (99):Synth input port (99:0) 128:0", "Pad (1)"]
    assert find(names, "Keys:Keys MIDI 1 20:0", "input") == 1
    assert find(names, "FLUID Synth (7):Synth input port (7:0) 129:0", "output") == 2
    for wanted in ("Keys:Keys MIDI 2 20:0", "Pad (2)"):
        with pytest.raises(NoSuchPort):
            find(names, wanted, "input")


def test_own_ports_are_neither_listed_nor_found_by_a_part_of_their_name() -> None:
    names = ["perceivers-live-out:midi", "Piano:midi", "Synth:midi"]
    with pytest.raises(NoSuchPort) as absent:
        find(names, "live", "input")
    assert "there are: 'Piano:midi', 'Synth:midi'" in str(absent.value)
    assert find(names, "perceivers-live-out", "input") == 0  # another daemon's port is found by its full name
