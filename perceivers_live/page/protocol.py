"""The messages between the page and the daemon.

Every frame is JSON text. The page sends one message per frame, an object with the field ``type``. The daemon sends a list of
messages per frame. Times are seconds on the daemon's monotonic clock (``time.perf_counter``), which the page estimates by
``ping``.

From the page (see the classes below; all fields are required, others are not allowed):

    {"type": "ping", "sent": 1234.5}                                  answered by "pong"
    {"type": "set", "name": "temperature", "value": 1.1}              sets a control, clamped
    {"type": "command", "name": "save", "arguments": ["intro"]}       runs a command, as by OSC
    {"type": "midi", "time": 12.3, "message": [144, 60, 80]}          a note, pedal or controller, for the input "page"
    {"type": "port", "direction": "output", "name": "Synth"}          chooses a port while playing

From the daemon:

    you         number                            the number of this page; see "control"
    welcome     clock, session, controls: {name, kind, group, value, default, low, high, choices, unit, help}, commands: [name],
                followed by the newest message of each type that describes the state
    pong        sent, clock
    control     name, value, by                   a control was changed by the page with this number (0: not by a page)
    played      part ("human", "machine"), events: [[time, action, pitch, velocity]...]; action is "on", "off", "down", "up"
    planned     events: [[number, time, action, pitch, velocity]...]
    dropped     first                             planned events from this number on were dropped
    sound       time, message                     a raw MIDI message for the output "page"
    turn        state ("listening", "playing")
    countdown   at                                when the machine begins if nothing more is played; null: it will not
    beat        running, stopped, bpm, beat, at   "beat": quarter notes since the start of the song at time "at"; "stopped": a
                                                  sequencer that sends the clock was stopped
    ports       inputs, outputs, input, output: {wanted, name, state, text}
    health      figures: {name: number}, runtime
    bindings    bound: [{target, channel, number}], learning
    states      names                             saved musical states
    notice      level ("info", "warning", "error"), text
    refused     text                              a message from this page was rejected
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from engine.errors import UserError
from engine.midi import is_channel_message

MAX_FRAME = 4096  # bytes of a message from the page
MAX_TEXT = 200  # characters of a name
MAX_ARGUMENTS = 4
Scalar = float | int | str | bool
Message = dict[str, Any]


class ProtocolError(UserError):
    """The message does not follow the protocol; one line."""


@dataclass(frozen=True)
class Ping:
    """Requests the daemon's clock; ``sent`` is returned unchanged."""

    sent: float


@dataclass(frozen=True)
class SetControl:
    name: str
    value: Scalar


@dataclass(frozen=True)
class Command:
    name: str
    arguments: tuple[Scalar, ...]


@dataclass(frozen=True)
class Midi:
    """One channel message, played on the page at ``time``."""

    time: float
    message: tuple[int, ...]


@dataclass(frozen=True)
class ChoosePort:
    """``name``: part of a port's name; "page" for the page itself, "" for a virtual port."""

    direction: str
    name: str


Request = Ping | SetControl | Command | Midi | ChoosePort
_TYPES: dict[str, type[Request]] = {
    "ping": Ping,
    "set": SetControl,
    "command": Command,
    "midi": Midi,
    "port": ChoosePort,
}


def parse(frame: str | bytes) -> Request:
    """Parses a frame from the page.

    Raises:
        ProtocolError: the frame is not a message, or a field is missing, unknown, of a wrong type or out of range.
    """
    if len(frame) > MAX_FRAME:
        raise ProtocolError(f"a message of {len(frame)} bytes: at most {MAX_FRAME}")
    try:
        data = json.loads(frame, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ProtocolError("not JSON") from None
    kind = data.get("type") if isinstance(data, dict) else None
    made = _TYPES.get(kind) if isinstance(kind, str) else None
    if made is None:
        raise ProtocolError(f'a message needs a "type": one of {", ".join(_TYPES)}')
    names = {field.name for field in fields(made)}
    if set(data) != {"type", *names}:
        raise ProtocolError(f"{kind}: fields must be {', '.join(sorted(names))}")
    return _READERS[made](data)


def _ping(data: Message) -> Ping:
    return Ping(_number(data, "sent"))


def _set(data: Message) -> SetControl:
    return SetControl(_text(data, "name"), _scalar(data["value"], "value"))


def _command(data: Message) -> Command:
    given = data["arguments"]
    if not isinstance(given, list) or len(given) > MAX_ARGUMENTS:
        raise ProtocolError(f"arguments: a list of at most {MAX_ARGUMENTS}")
    return Command(_text(data, "name"), tuple(_scalar(one, "arguments") for one in given))


def _midi(data: Message) -> Midi:
    message = data["message"]
    if not isinstance(message, list) or not all(type(one) is int for one in message) or not is_channel_message(message):
        raise ProtocolError("message: the bytes of a MIDI channel message")
    return Midi(_number(data, "time"), tuple(message))


def _port(data: Message) -> ChoosePort:
    if data["direction"] not in ("input", "output"):
        raise ProtocolError("direction: input or output")
    return ChoosePort(data["direction"], _text(data, "name"))


_READERS: dict[type[Request], Callable[[Message], Request]] = {
    Ping: _ping,
    SetControl: _set,
    Command: _command,
    Midi: _midi,
    ChoosePort: _port,
}


def _number(data: Message, name: str) -> float:
    value = data[name]
    if type(value) not in (int, float) or not abs(value) < 1e15:  # also rejects integers that no float can represent
        raise ProtocolError(f"{name}: a number")
    return float(value)


def _text(data: Message, name: str) -> str:
    value = data[name]
    if not isinstance(value, str) or len(value) > MAX_TEXT or not (value.isprintable() or value == ""):
        raise ProtocolError(f"{name}: a line of at most {MAX_TEXT} characters")
    return value


def _scalar(value: object, name: str) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and abs(value) < 1e15 and math.isfinite(value):
        return value
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return value
    raise ProtocolError(f"{name}: a number, a text of at most {MAX_TEXT} characters, true or false")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)  # NaN and Infinity, which are not JSON


def seconds(time: float) -> float:
    """A time for a message, rounded to a hundredth of a millisecond."""
    return round(time, 5)


def frame(messages: list[Message]) -> str:
    """Encodes a frame for the page. Raises ``ValueError`` for NaN and infinity."""
    return json.dumps(messages, separators=(",", ":"), allow_nan=False)
