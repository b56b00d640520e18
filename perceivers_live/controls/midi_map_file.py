"""The file of MIDI bindings, ``midi_map.toml``: parsed strictly, written atomically.

One ``[[binding]]`` for each. The daemon reads it at the start, and again before it writes changed bindings:

    [[binding]]
    target = "temperature"    # a control or a command
    cc = 20                   # controller number
    channel = 1               # 1..16; 0 or omitted: any
    low = 0.5                 # the control's value at 0, and at 127 (high). Omitted: its whole range. low may exceed high
    high = 1.5
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.folders import config_folder
from engine.midi import SUSTAIN
from engine.replacing import replacing
from engine.text import printable, shown
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Control, ControlError, Value, nearest
from perceivers_live.controls.settings import ConfigError, parse_toml, read_text

FILE_NAME = "midi_map.toml"  # in the user's settings folder
NOT_BINDABLE = frozenset({SUSTAIN, *range(120, 128)})  # sustain is music; 120 to 127 are channel mode messages
_HEADER = "# MIDI controllers bound to controls and commands. Rewritten without comments when bindings change.\n"
_KEYS = ("target", "cc", "channel", "low", "high")


class MidiMapError(UserError):
    """MIDI bindings cannot be read, changed or saved; the message is one line."""


@dataclass(frozen=True)
class Binding:
    """A controller and its control or command (``target``).

    ``channel``: 1..16, or 0 for any. ``low`` and ``high``: the control's values at the controller's 0 and 127; None: its limits.
    """

    target: str
    number: int
    channel: int = 0
    low: Value | None = None
    high: Value | None = None

    def __str__(self) -> str:
        """Text such as ``CC 20 on channel 1 is bound to temperature, from 0.5 to its limit``."""
        channel = f"channel {self.channel}" if self.channel else "any channel"
        limits = "" if self.low is None and self.high is None else f", from {self._end(self.low)} to {self._end(self.high)}"
        return f"CC {self.number} on {channel} is bound to {self.target}{limits}"

    @staticmethod
    def _end(value: Value | None) -> str:
        return "its limit" if value is None else str(value)

    def limits(self, control: Control) -> tuple[float, float]:
        """``low`` and ``high`` as numbers; for a choice, indices."""
        return _number(control, self.low, control.low), _number(control, self.high, control.high)


def midi_map_path() -> Path:
    """Path of the user's bindings."""
    return config_folder() / FILE_NAME


def read(path: Path, commands: Container[str] = ()) -> list[Binding]:
    """The bindings in a file; an empty list if it does not exist.

    Raises:
        MidiMapError: the file is unreadable, over 1 MB, not UTF-8 or not TOML; an unknown key, control or command; a value of the
            wrong type or out of range; a controller that is bound twice.
    """
    try:
        if not path.exists():
            return []
        text = read_text(path)
        document = parse_toml(text, path)
    except ConfigError as error:
        raise MidiMapError(str(error)) from None
    except OSError as error:  # the folder is not readable
        raise MidiMapError(f"{printable(path)}: cannot be read: {error.strerror or error}") from None
    return _bindings(document, text, path, commands)


def write(path: Path, bindings: Iterable[Binding]) -> None:
    """Writes the bindings to a temporary file, which then replaces ``path``.

    Raises:
        MidiMapError: the file cannot be written; the old one is unchanged.
    """
    lines = [_HEADER]
    for binding in bindings:
        values = (binding.target, binding.number, binding.channel, binding.low, binding.high)
        entries = [f"{key} = {json.dumps(value)}\n" for key, value in zip(_KEYS, values, strict=True) if value is not None]
        lines.append("\n[[binding]]\n" + "".join(entries))
    try:
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
    except OSError as error:
        raise MidiMapError(f"{printable(path)}: cannot be written: {error.strerror or error}") from None


def set_aside(path: Path) -> Path | None:
    """Renames an invalid file without overwriting another; returns its new path, or None if that is impossible."""
    for count in range(1, 100):
        aside = path.with_name(f"{path.stem}.broken-{count}{path.suffix}")
        try:
            if not aside.exists():
                return path.rename(aside)
        except OSError:
            return None
    return None


def _bindings(document: Mapping[str, Any], text: str, path: Path, commands: Container[str]) -> list[Binding]:
    entries = document.get("binding", [])
    unknown = next((key for key in document if key != "binding"), None)
    if unknown is not None or not isinstance(entries, list):
        found = printable(unknown) if unknown is not None else f"binding = {shown(entries)}"
        raise MidiMapError(f"{printable(path)}: found {found}, allowed only [[binding]]")
    bindings: dict[tuple[int, int], Binding] = {}
    for count, entry in enumerate(entries, 1):
        try:
            binding = _binding(entry, commands)
            if (binding.channel, binding.number) in bindings:
                raise _EntryError("cc", f"{binding.number} on channel {binding.channel} is bound already")
        except _EntryError as error:
            line = _line(text, count, error.key)
            place = f"{printable(path)}:{line}: " if line else f"{printable(path)}: "
            raise MidiMapError(f"{place}binding {count}: {error}") from None
        bindings[binding.channel, binding.number] = binding
    return list(bindings.values())


class _EntryError(Exception):
    """An error in an entry, without its place in the file."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{printable(key)}: {text}" if key else text)
        self.key = key


def _binding(entry: object, commands: Container[str]) -> Binding:
    if not isinstance(entry, dict):
        raise _EntryError("", f"found {shown(entry)}, allowed only as [[binding]]")
    for key in entry:
        if key not in _KEYS:
            raise _EntryError(key, f"unknown key, found {shown(entry[key])}; nearest is {nearest(key, _KEYS)}")
    for key in ("target", "cc"):
        if key not in entry:
            raise _EntryError("", f"{key} is missing")
    target = entry["target"]
    control = CONTROLS.get(target) if isinstance(target, str) else None
    if control is None and not (isinstance(target, str) and target in commands):
        close = nearest(target if isinstance(target, str) else "", CONTROLS)
        raise _EntryError("target", f"found {shown(target)}, allowed a control or a command; nearest control is {close}")
    number, channel = _checked("cc", entry["cc"], 127), _checked("channel", entry.get("channel", 0), 16)
    if number in NOT_BINDABLE:
        raise _EntryError(
            "cc", f"found {number}, which is {'sustain' if number == 64 else 'a channel mode message'}: cannot be bound"
        )
    limits: list[Value | None] = []
    for key in ("low", "high"):
        if key in entry and control is None:
            raise _EntryError(key, f"found {shown(entry[key])}, but a command has no range")
        try:
            limits.append(control.check(entry[key]) if control is not None and key in entry else None)
        except ControlError as error:
            raise _EntryError(key, str(error)) from None
    return Binding(target, number, channel, *limits)


def _checked(key: str, value: object, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high:
        return value
    raise _EntryError(key, f"found {shown(value)}, allowed 0..{high} (int)")


def _number(control: Control, value: Value | None, bound: float) -> float:
    if value is None:
        return bound
    return control.choices.index(value) if isinstance(value, str) else value


def _line(text: str, count: int, key: str) -> int | None:
    """The line of a key in the ``count``-th ``[[binding]]``, or else of that header; None if it is not found."""
    header, found = 0, None
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(r"\s*\[\[\s*binding\s*\]\]", line):
            header += 1
            found = number if header == count else found
        elif header == count and key and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return number
    return found
