"""Generates a layout for Open Stage Control from the registry of controls.

    python -m perceivers_live.osc.layouts layouts/

writes ``open-stage-control.json``. Each number has a fader, each choice and switch has buttons, each command has a button. The
surface subscribes by itself, so it shows changes made elsewhere. It repeats this every few seconds, so either program can be
started first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Control
from perceivers_live.controls.registry import COMMANDS
from perceivers_live.osc.server import PREFIX

_VERSION = "1.29.2"  # of Open Stage Control; newer versions convert layouts of older ones
_REFRESH = 5000  # ms
COLUMNS = 8  # faders in a row
MAX_FADER_RANGE = 100_000  # Open Stage Control shows only the first thousand values of a larger range
# This script subscribes, which also requests all current values, and repeats it every ``_REFRESH`` ms.
_SUBSCRIPTION = f"function ask() {{ send('{PREFIX}subscribe') }}\nask()\nsetInterval('ask', ask, {_REFRESH})"
Widget = dict[str, Any]


def open_stage_control(controls: Mapping[str, Control], commands: Iterable[str]) -> str:
    """The session file (JSON) for Open Stage Control. It sends to the targets given to that program with ``--send``."""
    numbers = [control for control in controls.values() if control.kind in ("float", "int")]
    choices = [_choice(control) for control in controls.values() if control.kind == "choice"]
    switches = [_switch(control) for control in controls.values() if control.kind == "switch"]
    state = {"type": "text", "id": "state", "address": f"{PREFIX}state", "expand": True}
    message = {"type": "text", "id": "message", "address": f"{PREFIX}message", "height": 30}
    error = {"type": "text", "id": "error", "address": f"{PREFIX}error", "height": 30}
    rows = -(-len(numbers) // COLUMNS)
    faders = {"layout": "grid", "gridTemplate": f"repeat({rows}, 1fr) / repeat({COLUMNS}, 1fr)", "expand": True}
    root = {
        "type": "root",
        "id": "root",
        "comments": "Generated from the registry of controls: python -m perceivers_live.osc.layouts",
        "layout": "vertical",
        "onCreate": _SUBSCRIPTION,
        "widgets": [
            _panel("commands", [state, *map(_command, commands)], layout="horizontal", height=60),
            _panel("switches", [*choices, *switches], layout="horizontal", height=70),
            _panel("numbers", [_number(control) for control in numbers], **faders),
            message,
            error,
        ],
    }
    session = {"createdWith": "Open Stage Control", "version": _VERSION, "type": "session", "content": root}
    return json.dumps(session, indent=1) + "\n"


def _panel(name: str, widgets: list[Widget], **properties: Any) -> Widget:
    bare = {"scroll": False, "innerPadding": False, "alphaStroke": 0}
    return {"type": "panel", "id": name, **bare, **properties, "widgets": widgets}


def _number(control: Control) -> Widget:
    is_int = control.kind == "int"
    common = {
        "id": control.name,
        "address": PREFIX + control.name,
        "default": control.default,
    }  # the same id: shared value
    common |= {"typeTags": "i", "decimals": 0} if is_int else {"typeTags": "f", "decimals": 3}
    fader = {"type": "fader", **common, "range": {"min": control.low, "max": control.high}, "design": "compact", "expand": True}
    if control.low < 0 < control.high:
        fader["origin"] = 0
    field = {"type": "input", **common, "numeric": True, "unit": control.unit, "height": 30}
    name = {"type": "text", "id": f"{control.name}_name", "default": control.name, "height": 20}
    has_fader = control.high - control.low <= MAX_FADER_RANGE  # otherwise the value can only be typed
    widgets: list[Widget] = [name, fader, field] if has_fader else [name, field]
    return _panel(f"{control.name}_strip", widgets, layout="vertical", comments=control.help)


def _choice(control: Control) -> Widget:
    values = {"values": list(control.choices), "layout": "horizontal", "expand": len(control.choices)}
    return {"type": "switch", "id": control.name, "address": PREFIX + control.name, "default": control.default, **values}


def _switch(control: Control) -> Widget:
    state = {"mode": "toggle", "on": 1, "off": 0, "typeTags": "i", "default": int(bool(control.default)), "expand": True}
    return {"type": "button", "id": control.name, "label": control.name, "address": PREFIX + control.name, **state}


def _command(name: str) -> Widget:
    return {"type": "button", "id": name, "label": name, "address": PREFIX + name, "mode": "momentary", "expand": True}


def layouts() -> dict[str, bytes]:
    """The content of each layout file, by file name."""
    return {
        "open-stage-control.json": open_stage_control(CONTROLS, COMMANDS).encode(),
    }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def main(folder: Path) -> None:
    """Writes the layouts for control surfaces into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in layouts().items():
        path = folder / name
        if not (path.exists() and path.read_bytes() == content):
            path.write_bytes(content)
        click.echo(path)


if __name__ == "__main__":
    main()
