"""The layout for Open Stage Control: up to date, complete, and sending what the OSC server accepts."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.engine import Engine
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.registry import COMMANDS, Controls
from perceivers_live.controls.settings import Settings
from perceivers_live.osc.layouts import layouts, main, open_stage_control
from perceivers_live.session.session import Session
from tests.perceivers_live.receiver import Synthesizer
from tests.perceivers_live.toys import ToyRuntime, improviser

FOLDER = Path(__file__).parents[3] / "layouts"


@pytest.mark.parametrize("name", layouts())
def test_the_file_in_the_repository_is_the_generated_one(name: str) -> None:
    """After a change of the controls: python -m perceivers_live.osc.layouts layouts/"""
    assert (FOLDER / name).read_bytes() == layouts()[name]


def test_every_command_without_arguments_has_its_button() -> None:
    session = Session(Engine(ToyRuntime(improviser)), Settings(), Controls(), Synthesizer().send)
    bare = {name for name, command in session.commands().items() if not inspect.signature(command).parameters}
    assert set(COMMANDS) == bare


def test_script_writes_missing_and_outdated_files(tmp_path: Path) -> None:
    for _ in range(2):
        assert CliRunner().invoke(main, [str(tmp_path / "new")]).exit_code == 0
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["open-stage-control.json"]
    (tmp_path / "new" / "open-stage-control.json").write_text("{}")
    assert CliRunner().invoke(main, [str(tmp_path / "new")]).exit_code == 0
    assert (tmp_path / "new" / "open-stage-control.json").read_bytes() == layouts()["open-stage-control.json"]


# Open Stage Control.


def widgets(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("widgets", ()):
        yield from widgets(child)


@pytest.fixture
def session() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(open_stage_control(CONTROLS, COMMANDS))
    return loaded


def test_every_control_and_command_has_a_widget_in_open_stage_control(session: dict[str, Any]) -> None:
    addresses = {widget["address"] for widget in widgets(session["content"]) if "address" in widget}
    assert addresses == {f"/perceivers/{name}" for name in (*CONTROLS, *COMMANDS, "state", "message", "error")}


def test_a_widget_of_open_stage_control_has_the_range_and_start_of_its_control(session: dict[str, Any]) -> None:
    for widget in widgets(session["content"]):
        control = CONTROLS.get(widget["id"])
        if control is not None:
            assert control.clamp(widget["default"]) == control.default
            if widget["type"] == "fader":
                assert widget["range"] == {"min": control.low, "max": control.high}
            elif widget["type"] == "switch":
                assert widget["values"] == list(control.choices)
            elif widget["type"] == "button":
                assert [control.clamp(widget[state]) for state in ("on", "off")] == [True, False]


def test_open_stage_control_subscribes_when_created(session: dict[str, Any]) -> None:
    assert "send('/perceivers/subscribe')" in session["content"]["onCreate"]
