"""The checks of ``doctor``. ``tests/perceivers_live/test_cli.py`` runs the command."""

from __future__ import annotations

import dataclasses

import pytest

from perceivers_live.commands.doctor import _ports
from perceivers_live.controls.settings import MidiSettings, Settings
from perceivers_live.midi.ports import PortError


@pytest.mark.parametrize(("output", "good"), [("page", None), ("Synth", False)])
def test_no_midi_system_is_needed_if_only_the_page_is_used(
    output: str, good: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> None:
        raise PortError("no MIDI system (this is a test)")

    monkeypatch.setattr("perceivers_live.midi.ports._system", nothing)
    settings = dataclasses.replace(Settings(), midi=MidiSettings(input_port="page", output_port=output))
    assert [finding.good for finding in _ports(settings)] == [good]
