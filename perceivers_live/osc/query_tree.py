"""The controls, commands and queries as an OSCQuery tree of JSON objects, as specified in Vidvox's proposal
(https://github.com/Vidvox/OSCQueryProposal).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Control, Value
from perceivers_live.osc.server import PREFIX

READABLE, WRITABLE = 1, 2  # bits of ACCESS

Node = dict[str, Any]
OPTIONAL = ("ACCESS", "VALUE", "RANGE", "DESCRIPTION", "UNIT", "CLIPMODE")
_ATTRIBUTES = frozenset({"FULL_PATH", "CONTENTS", "TYPE", *OPTIONAL})
_UNSUPPORTED = frozenset({"TAGS", "EXTENDED_TYPE", "CRITICAL", "OVERLOADS", "HTML"})  # the proposal's other attributes
_TYPES = {"float": "f", "int": "i", "choice": "s", "switch": "T"}
_ARGUMENTS = {"float": "f", "int": "i", "bool": "T"}  # annotation -> type tag; arguments of other types are strings
_UNITS = {"ms": "time.ms", "MIDI note": "time.midinote"}  # the units of our controls that the proposal defines


def tree(
    values: Mapping[str, Value],
    commands: Mapping[str, Callable[..., object]],
    queries: Mapping[str, Callable[[], Sequence[Value]]] = MappingProxyType({}),
) -> Node:
    """The root node of the OSC address space: all controls with values, all commands, and all queries with their results."""
    contents = {name: _control(CONTROLS[name], value) for name, value in values.items()}
    contents |= {name: _command(name, command) for name, command in commands.items()}
    contents |= {name: _query(name, query) for name, query in queries.items()}
    base = PREFIX.strip("/")
    ours = {"DESCRIPTION": "perceivers-live", "FULL_PATH": f"/{base}", "ACCESS": 0, "CONTENTS": contents}
    return {"DESCRIPTION": "root", "FULL_PATH": "/", "ACCESS": 0, "CONTENTS": {base: ours}}


def node_at(root: Node, path: str) -> Node | None:
    """The node at an OSC address, None if there is none."""
    node: Node | None = root
    for name in filter(None, path.split("/")):
        node = node.get("CONTENTS", {}).get(name) if node is not None else None
    return node


def answer(node: Node, attributes: list[str]) -> tuple[HTTPStatus, Node]:
    """The response to a request for a node: HTTP status, and the whole node or only the requested attributes."""
    for attribute in attributes:
        if attribute not in _ATTRIBUTES:
            return HTTPStatus.NO_CONTENT if attribute in _UNSUPPORTED else HTTPStatus.BAD_REQUEST, {}
        if attribute == "VALUE" and not node["ACCESS"] & READABLE:
            return HTTPStatus.NO_CONTENT, {}
    return HTTPStatus.OK, {name: node[name] for name in attributes if name in node} if attributes else node


def _control(control: Control, value: Value) -> Node:
    node: Node = {
        "DESCRIPTION": control.help,
        "FULL_PATH": PREFIX + control.name,
        "ACCESS": READABLE | WRITABLE,
        "TYPE": _TYPES[control.kind],
        "VALUE": [value],
    }
    if control.kind == "choice":
        node["RANGE"] = [{"VALS": list(control.choices)}]
    elif control.kind != "switch":
        node["RANGE"] = [{"MIN": control.low, "MAX": control.high}]
        node["CLIPMODE"] = ["both"]
    if control.unit in _UNITS:
        node["UNIT"] = [_UNITS[control.unit]]
    return node


def _command(name: str, command: Callable[..., object]) -> Node:
    node: Node = {"FULL_PATH": PREFIX + name, "ACCESS": WRITABLE, "TYPE": _arguments(command) or "I"}
    about = inspect.getdoc(command)
    return {"DESCRIPTION": about.partition("\n")[0], **node} if about else node


def _query(name: str, query: Callable[[], Sequence[Value]]) -> Node:
    answer = list(query())
    node: Node = {"FULL_PATH": PREFIX + name, "ACCESS": READABLE, "TYPE": "".join(map(_tag, answer)), "VALUE": answer}
    about = inspect.getdoc(query)
    return {"DESCRIPTION": about.partition("\n")[0], **node} if about else node


def _tag(value: Value) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    return "s" if isinstance(value, str) else "i" if isinstance(value, int) else "f"


def _arguments(command: Callable[..., object]) -> str:
    """The type tags of a command's required arguments."""
    try:
        parameters = inspect.signature(command).parameters.values()
    except (TypeError, ValueError):
        return ""
    needed = [one for one in parameters if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return "".join(_ARGUMENTS.get(getattr(one.annotation, "__name__", str(one.annotation)), "s") for one in needed)
