"""A layout for TouchOSC, as the XML document that a .tosc file holds, compressed.

The format has no specification. This follows what TouchOSC itself saves, a tree of nodes with properties, values and messages,
and its manual (https://hexler.net/touchosc/manual); only what is needed is written, and TouchOSC adds its defaults.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from perceivers_live.controls.registry import Control
from perceivers_live.osc.server import PREFIX

WIDTH, HEIGHT = 1024, 768
COLUMNS = 8  # of faders
ROW, GAP, LINE = 56, 6, 22  # pixels: a row of buttons, between things, a line of text
RECEIVE_PORT = 9000  # where TouchOSC is to listen: `connect` asks the daemon to send there
LONGEST = 100_000  # a range that a fader can do; a longer one is cut to its first thousand
_MOMENTARY, _TOGGLE = "0", "2"  # kinds of button


class Frame(NamedTuple):
    """Where a node lies, in pixels."""

    x: int
    y: int
    w: int
    h: int


class Argument(NamedTuple):
    """What a message carries: a constant, or a value of the node's, which goes from 0 to 1 as the message from low to high."""

    kind: str  # CONSTANT or VALUE
    conversion: str  # INTEGER, FLOAT or STRING
    value: str
    low: float = 0
    high: float = 1


def touchosc(controls: Mapping[str, Control], commands: Iterable[str]) -> bytes:
    """The document: the commands and the daemon's state on top, then switches and choices, then the faders."""
    names = list(commands)
    switches = [control for control in controls.values() if control.kind == "switch"]
    choices = [control for control in controls.values() if control.kind == "choice"]
    numbers = [control for control in controls.values() if control.kind in ("float", "int")]
    root = _node("GROUP", "perceivers-live", Frame(0, 0, WIDTH, HEIGHT))
    nodes = SubElement(root, "children")
    top = _row(0, len(names) + 2)
    nodes.extend(_button("connect", next(top), "subscribe", Argument("CONSTANT", "INTEGER", str(RECEIVE_PORT))))
    for name in names:
        nodes.extend(_button(name, next(top), name, Argument("VALUE", "FLOAT", "x")))
    nodes.append(_told("state", next(top)))
    keys = _row(1, len(switches) + sum(len(choice.choices) + 1 for choice in choices))
    for switch in switches:
        nodes.extend(_switch(switch, next(keys)))
    for choice in choices:
        nodes.append(_told(choice.name, next(keys), str(choice.default)))
        for name in choice.choices:
            nodes.extend(_button(f"{choice.name} {name}", next(keys), choice.name, Argument("CONSTANT", "STRING", name)))
    for number, frame in zip(numbers, _grid(len(numbers)), strict=True):
        nodes.extend(_fader(number, frame))
    document = Element("lexml", version="5")
    document.append(root)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(document)


# What stands for a control or a command.


def _fader(control: Control, frame: Frame) -> Iterator[Element]:
    """A fader, with the control's name above and its value below."""
    high = control.high if control.high - control.low <= LONGEST else control.low + 1000
    value = Argument("VALUE", "FLOAT" if control.kind == "float" else "INTEGER", "x", control.low, high)
    start = (float(control.default) - control.low) / (high - control.low)
    shown = _label(f"{control.name} value", Frame(frame.x, frame.y + frame.h - LINE, frame.w, LINE), str(control.default))
    fader = _node("FADER", control.name, Frame(frame.x, frame.y + LINE, frame.w, frame.h - 2 * LINE), {"x": f"{start:g}"})
    messages = SubElement(fader, "messages")
    _osc(messages, control.name, value, "ANY")
    _local(messages, value, shown)
    yield from (_label(f"{control.name} name", frame._replace(h=LINE), control.name), fader, shown)


def _switch(control: Control, frame: Frame) -> Iterator[Element]:
    button = _node("BUTTON", control.name, frame, {"x": str(int(bool(control.default)))}, ("i", "buttonType", _TOGGLE))
    _osc(SubElement(button, "messages"), control.name, Argument("VALUE", "INTEGER", "x"), "ANY")
    yield from (button, _label(f"{control.name} name", frame, control.name))


def _button(name: str, frame: Frame, address: str, argument: Argument) -> Iterator[Element]:
    """A button that sends when it is pressed."""
    button = _node("BUTTON", name, frame, {"x": "0"}, ("i", "buttonType", _MOMENTARY))
    _osc(SubElement(button, "messages"), address, argument, "RISE", receive=False)
    yield from (button, _label(f"{name} name", frame, name))


def _told(name: str, frame: Frame, start: str = "") -> Element:
    """What the daemon last said of `name`."""
    label = _label(f"{name} text", frame, start)
    _osc(SubElement(label, "messages"), name, Argument("VALUE", "STRING", "text"), "ANY", send=False)
    return label


# Places.


def _row(number: int, count: int) -> Iterator[Frame]:
    width = (WIDTH - GAP) // count
    return (Frame(GAP + column * width, GAP + number * (ROW + GAP), width - GAP, ROW) for column in range(count))


def _grid(count: int) -> Iterator[Frame]:
    top, rows = GAP + 2 * (ROW + GAP), -(-count // COLUMNS)
    width, height = (WIDTH - GAP) // COLUMNS, (HEIGHT - top) // max(rows, 1)
    for number in range(count):
        row, column = divmod(number, COLUMNS)
        yield Frame(GAP + column * width, top + row * height, width - GAP, height - GAP)


# The format.


def _node(kind: str, name: str, frame: Frame, values: Mapping[str, str] | None = None, *more: tuple[str, str, str]) -> Element:
    node = Element("node", ID=str(uuid.uuid5(uuid.NAMESPACE_URL, f"perceivers-live/{kind}/{name}")), type=kind)
    properties = SubElement(node, "properties")
    for type_, key, text in (("s", "name", name), *more):
        _property(properties, type_, key).text = text
    place = _property(properties, "r", "frame")
    for side, pixels in frame._asdict().items():
        SubElement(place, side).text = str(pixels)
    listed = SubElement(node, "values")
    for key, default in {"touch": "false", **(values or {})}.items():
        value = SubElement(listed, "value")
        for tag, text in (
            ("key", key),
            ("locked", "0"),
            ("lockedDefaultCurrent", "0"),
            ("default", default),
            ("defaultPull", "0"),
        ):
            SubElement(value, tag).text = text
    return node


def _property(properties: Element, type_: str, key: str) -> Element:
    one = SubElement(properties, "property", type=type_)
    SubElement(one, "key").text = key
    return SubElement(one, "value")


def _label(name: str, frame: Frame, text: str) -> Element:
    return _node("LABEL", name, frame, {"text": text}, ("b", "background", "0"), ("b", "interactive", "0"), ("b", "outline", "0"))


def _osc(messages: Element, name: str, argument: Argument, on: str, *, send: bool = True, receive: bool = True) -> None:
    """A message to or from `/perceivers/<name>`, sent when the argument's value, or a button's, changes (`ANY`) or rises."""
    message = SubElement(messages, "osc")
    flags = {"enabled": True, "send": send, "receive": receive, "feedback": False, "noDuplicates": False}
    for tag, flag in flags.items():
        SubElement(message, tag).text = str(int(flag))
    SubElement(message, "connections").text = "1111111111"
    _trigger(message, argument.value if argument.kind == "VALUE" else "x", on)
    _partial(SubElement(message, "path"), Argument("CONSTANT", "STRING", PREFIX + name))
    _partial(SubElement(message, "arguments"), argument)


def _local(messages: Element, value: Argument, label: Element) -> None:
    """Shows a value in a label of the same surface."""
    message = SubElement(messages, "local")
    SubElement(message, "enabled").text = "1"
    _trigger(message, value.value, "ANY")
    _tags(message, value)
    for tag, text in (("dstType", "VALUE"), ("dstVar", "text"), ("dstID", label.attrib["ID"])):
        SubElement(message, tag).text = text


def _trigger(message: Element, variable: str, condition: str) -> None:
    trigger = SubElement(SubElement(message, "triggers"), "trigger")
    SubElement(trigger, "var").text = variable
    SubElement(trigger, "condition").text = condition


def _partial(parent: Element, argument: Argument) -> None:
    _tags(SubElement(parent, "partial"), argument)


def _tags(parent: Element, argument: Argument) -> None:
    for tag, text in zip(("type", "conversion", "value", "scaleMin", "scaleMax"), argument, strict=True):
        SubElement(parent, tag).text = str(text)
