"""Ports are found by a part of their name, and one of those that share a name by its number."""

from __future__ import annotations

import pytest

from perceivers_live.midi.ports import NoSuchPort, OutputPort, PermanentPortError, find

NAMES = ["Piano", "Piano 2", "Pad", "Pad", "Synth #1", "Synth #2"]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [("piano", 0), ("PIANO 2", 1), ("no 2", 1), ("Pad#1", 2), ("pad#2", 3), ("Pa#2", 3), ("Synth #2", 5), ("h #1", 4)],
)
def test_a_part_of_the_name_will_do_if_only_one_port_has_it(wanted: str, index: int) -> None:
    assert find(NAMES, wanted, "input") == index


@pytest.mark.parametrize("wanted", ["Pad", "synth", "an"])
def test_what_fits_several_is_refused_and_they_are_named(wanted: str) -> None:
    with pytest.raises(PermanentPortError, match="matches several of the ports; there are: '"):
        find(NAMES, wanted, "input")


@pytest.mark.parametrize("wanted", ["Pad#3", "Pad#0", "Synth #3", "P#1", "Organ#1", "Organ"])
def test_what_is_not_there_is_missed_and_all_are_named(wanted: str) -> None:
    with pytest.raises(NoSuchPort, match=r"matches none of the ports; there are: 'Piano', 'Piano 2', 'Pad'"):
        find(NAMES, wanted, "output")


def test_one_of_two_ports_of_a_name_is_missed() -> None:
    port = OutputPort.__new__(OutputPort)  # as if opened, without a MIDI system
    port.name, port._wanted, port._alike = "Pad", "pad#2", 2
    assert not port.is_gone(["Pad", "Pad", "Piano"])
    assert not port.is_gone(["Pad", "Pad", "Pad"])
    assert port.is_gone(["Pad", "Pad", "Piano"])


def test_a_port_is_missed_when_its_name_is_gone_but_a_virtual_one_never_is() -> None:
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


def test_our_own_ports_are_neither_offered_nor_taken_for_a_part_of_a_name() -> None:
    names = ["perceivers-live-out:midi", "Piano:midi", "Synth:midi"]
    with pytest.raises(NoSuchPort) as absent:
        find(names, "live", "input")
    assert "there are: 'Piano:midi', 'Synth:midi'" in str(absent.value)
    assert find(names, "perceivers-live-out", "input") == 0  # another daemon's can be asked for by our whole name
