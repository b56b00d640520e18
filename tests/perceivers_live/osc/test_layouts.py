"""The layouts for control surfaces: up to date, complete, and sending what the OSC server takes."""

import inspect
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from engine.engine import Engine
from perceivers_live.controls.registry import COMMANDS, CONTROLS, Control, Controls
from perceivers_live.controls.settings import Settings
from perceivers_live.osc.layout_touchosc import HEIGHT, RECEIVE_PORT, WIDTH, touchosc
from perceivers_live.osc.layouts import layouts, main, open_stage_control, same
from perceivers_live.session.session import Session
from tests.perceivers_live.scripted import Synthesizer, ToyRuntime, improviser

FOLDER = Path(__file__).parents[3] / "layouts"
MANY = {
    f"{kind}{number}": Control(f"{kind}{number}", kind, default, -5 if kind == "float" else 0, 5, choices)
    for number in range(20)
    for kind, default, choices in (("float", 0.0, ()), ("int", 3, ()), ("choice", "a", ("a", "b")), ("switch", True, ()))
}


@pytest.mark.parametrize("name", layouts())
def test_the_file_in_the_repository_is_the_generated_one(name: str) -> None:
    """Once controls have changed: python -m perceivers_live.osc.layouts layouts/"""
    assert same(name, (FOLDER / name).read_bytes(), layouts()[name])


def test_every_command_without_arguments_has_its_button() -> None:
    session = Session(Engine(ToyRuntime(improviser)), Settings(), Controls(), Synthesizer().send)
    bare = {name for name, command in session.commands().items() if not inspect.signature(command).parameters}
    assert set(COMMANDS) == bare


def test_the_script_writes_the_files_and_leaves_those_that_are_right(tmp_path: Path) -> None:
    for _ in range(2):
        assert CliRunner().invoke(main, [str(tmp_path / "new")]).exit_code == 0
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["open-stage-control.json", "touchosc.tosc"]
    as_saved_elsewhere = zlib.compress(zlib.decompress(layouts()["touchosc.tosc"]), 1)
    (tmp_path / "new" / "touchosc.tosc").write_bytes(as_saved_elsewhere)
    (tmp_path / "new" / "open-stage-control.json").write_text("{}")
    assert CliRunner().invoke(main, [str(tmp_path / "new")]).exit_code == 0
    assert (tmp_path / "new" / "touchosc.tosc").read_bytes() == as_saved_elsewhere
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
    assert addresses == {f"/perceivers/{name}" for name in (*CONTROLS, *COMMANDS, "state", "error")}


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


def test_open_stage_control_subscribes_and_asks_for_every_value(session: dict[str, Any]) -> None:
    for name in ("subscribe", *CONTROLS):
        assert f'"/perceivers/{name}"' in session["content"]["onCreate"]


# TouchOSC.


def nodes(document: bytes) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(document).iter("node"))


def frame(node: ElementTree.Element) -> list[int]:
    found = node.find("properties/property[key='frame']/value")
    assert found is not None
    return [int(found.findtext(side, "")) for side in "xywh"]


def messages(document: bytes) -> list[ElementTree.Element]:
    return [message for node in nodes(document) for message in node.findall("messages/osc")]


def test_every_control_and_command_has_a_node_in_touchosc() -> None:
    document = touchosc(CONTROLS, COMMANDS)
    sent = {message.findtext("path/partial/value") for message in messages(document) if message.findtext("send") == "1"}
    told = {message.findtext("path/partial/value") for message in messages(document) if message.findtext("receive") == "1"}
    assert sent == {f"/perceivers/{name}" for name in (*CONTROLS, *COMMANDS, "subscribe")}
    assert told == {f"/perceivers/{name}" for name in (*CONTROLS, "state")}


def test_touchosc_sends_what_the_controls_take() -> None:
    convert = {"FLOAT": float, "INTEGER": int, "STRING": str}
    for message in messages(touchosc(CONTROLS, COMMANDS)):
        kind, conversion, value, low, high = (part.text or "" for part in message.find("arguments/partial") or [])
        name = (message.findtext("path/partial/value") or "").removeprefix("/perceivers/")
        if name == "subscribe":
            assert (kind, conversion, value) == ("CONSTANT", "INTEGER", str(RECEIVE_PORT))
        elif name in CONTROLS and message.findtext("send") == "1":
            control = CONTROLS[name]
            for end in (value,) if kind == "CONSTANT" else (low, high):
                taken = control.clamp(convert[conversion](end))
                assert str(taken) == end or float(taken) == float(end)
            if kind == "VALUE":
                assert float(low) == control.low


def test_a_touchosc_fader_begins_at_its_controls_default_and_shows_its_value_below() -> None:
    by_id = {node.attrib["ID"]: node for node in nodes(touchosc(CONTROLS, COMMANDS))}
    faders = [node for node in by_id.values() if node.attrib["type"] == "FADER"]
    assert len(faders) == sum(control.kind in ("float", "int") for control in CONTROLS.values())
    for fader in faders:
        control = CONTROLS[fader.findtext("properties/property[key='name']/value") or ""]
        low, high = (float(fader.findtext(f"messages/osc/arguments/partial/scale{end}", "")) for end in ("Min", "Max"))
        start = float(fader.findtext("values/value[key='x']/default", ""))
        assert low + start * (high - low) == pytest.approx(control.default, rel=1e-4, abs=1e-4)
        shown = by_id[fader.findtext("messages/local/dstID", "")]
        assert shown.findtext("values/value[key='text']/default") == str(control.default)


@pytest.mark.parametrize("controls", [CONTROLS, MANY], ids=["registry", "many"])
def test_nothing_in_touchosc_lies_on_something_else_or_outside(controls: dict[str, Control]) -> None:
    found = nodes(touchosc(controls, COMMANDS))[1:]
    assert len({node.attrib["ID"] for node in found}) == len(found)
    frames = {tuple(frame(node)) for node in found}  # a button and its name share one
    for x, y, w, h in frames:
        assert w > 0
        assert h > 0
        assert 0 <= x < x + w <= WIDTH
        assert 0 <= y < y + h <= HEIGHT
        for other_x, other_y, other_w, other_h in frames - {(x, y, w, h)}:
            assert x + w <= other_x or other_x + other_w <= x or y + h <= other_y or other_y + other_h <= y
