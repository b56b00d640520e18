"""The file of MIDI bindings, `midi_map.toml`: read strictly, written whole or not at all.

One `[[binding]]` each, to be edited by hand while the daemon does not run:

    [[binding]]
    target = "temperature"    # a control or a command
    cc = 20                   # controller number
    channel = 1               # 1..16; 0, or left out: any
    low = 0.5                 # the control's value at 0 and at 127; left out: its whole range. low may be the greater one
    high = 1.5
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.folders import config_folder
from engine.midi import SUSTAIN
from perceivers_live.controls.registry import CONTROLS, Control, ControlError, Value, nearest, printable, shown
from perceivers_live.controls.settings import ConfigError, parse_toml, read_text

FILE_NAME = "midi_map.toml"  # in the user's configuration folder
NOT_BINDABLE = frozenset({SUSTAIN, *range(120, 128)})  # music; and channel mode messages, which are no controllers
_HEAD = "# MIDI controllers and what they steer. Read at the start and rewritten when a controller is learnt.\n"
_KEYS = ("target", "cc", "channel", "low", "high")


class MidiMapError(UserError):
    """The MIDI bindings cannot be used or kept, or not in this way; the message is one line."""


@dataclass(frozen=True)
class Binding:
    """A controller and what it steers.

    `channel`: 1..16, or 0 for any. `low` and `high`: the control's values at the controller's 0 and 127; None: its own bounds.
    """

    target: str
    number: int
    channel: int = 0
    low: Value | None = None
    high: Value | None = None

    def __str__(self) -> str:
        """In words, such as `CC 20 on channel 1 steers temperature, from 0.5 to its limit`."""
        channel = f"channel {self.channel}" if self.channel else "any channel"
        limits = "" if self.low is None and self.high is None else f", from {self._end(self.low)} to {self._end(self.high)}"
        return f"CC {self.number} on {channel} steers {self.target}{limits}"

    @staticmethod
    def _end(value: Value | None) -> str:
        return "its limit" if value is None else str(value)

    def limits(self, control: Control) -> tuple[float, float]:
        """`low` and `high` as numbers; those of a choice are indices."""
        return _number(control, self.low, control.low), _number(control, self.high, control.high)


def midi_map_path() -> Path:
    """Where the user's bindings are kept."""
    return config_folder() / FILE_NAME


def read(path: Path, commands: Container[str] = ()) -> list[Binding]:
    """The bindings in a file; none if there is no file.

    Raises:
        MidiMapError: the file is unreadable, over 1 MB, not UTF-8 or not TOML; it holds an unknown key, control or command, a
            value of the wrong type or out of range, or one controller twice.
    """
    try:
        if not path.exists():
            return []
        text = read_text(path)
        document = parse_toml(text, path)
    except ConfigError as error:
        raise MidiMapError(str(error)) from None
    except OSError as error:  # the folder does not let us look
        raise MidiMapError(f"{printable(path)}: cannot be read: {error.strerror or error}") from None
    return _bindings(document, text, path, commands)


def write(path: Path, bindings: Iterable[Binding]) -> None:
    """Writes a file that `read` takes, in place of the old one once it is whole.

    Raises:
        MidiMapError: it cannot be written; the old one is as it was.
    """
    lines = [_HEAD]
    for binding in bindings:
        values = (binding.target, binding.number, binding.channel, binding.low, binding.high)
        entries = [f"{key} = {json.dumps(value)}\n" for key, value in zip(_KEYS, values, strict=True) if value is not None]
        lines.append("\n[[binding]]\n" + "".join(entries))
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise MidiMapError(f"{printable(path)}: cannot be written: {error.strerror or error}") from None


def set_aside(path: Path) -> Path | None:
    """Renames a file that cannot be used, over no other; returns its new path, or None if that is impossible."""
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
    stranger = next((key for key in document if key != "binding"), None)
    if stranger is not None or not isinstance(entries, list):
        found = printable(stranger) if stranger is not None else f"binding = {shown(entries)}"
        raise MidiMapError(f"{printable(path)}: found {found}, allowed only [[binding]]")
    bindings: dict[tuple[int, int], Binding] = {}
    for count, entry in enumerate(entries, 1):
        try:
            binding = _binding(entry, commands)
            if (binding.channel, binding.number) in bindings:
                raise _Mistake("cc", f"{binding.number} on channel {binding.channel} is bound already")
        except _Mistake as mistake:
            line = _line(text, count, mistake.key)
            place = f"{printable(path)}:{line}: " if line else f"{printable(path)}: "
            raise MidiMapError(f"{place}binding {count}: {mistake}") from None
        bindings[binding.channel, binding.number] = binding
    return list(bindings.values())


class _Mistake(Exception):
    """What is wrong with an entry, without its place."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{printable(key)}: {text}" if key else text)
        self.key = key


def _binding(entry: object, commands: Container[str]) -> Binding:
    if not isinstance(entry, dict):
        raise _Mistake("", f"found {shown(entry)}, allowed only as [[binding]]")
    for key in entry:
        if key not in _KEYS:
            raise _Mistake(key, f"unknown key, found {shown(entry[key])}; nearest is {nearest(key, _KEYS)}")
    for key in ("target", "cc"):
        if key not in entry:
            raise _Mistake("", f"{key} is missing")
    target = entry["target"]
    control = CONTROLS.get(target) if isinstance(target, str) else None
    if control is None and not (isinstance(target, str) and target in commands):
        close = nearest(target if isinstance(target, str) else "", CONTROLS)
        raise _Mistake("target", f"found {shown(target)}, allowed a control or a command; nearest control is {close}")
    number, channel = _checked("cc", entry["cc"], 127), _checked("channel", entry.get("channel", 0), 16)
    if number in NOT_BINDABLE:
        raise _Mistake(
            "cc", f"found {number}, which is {'sustain' if number == 64 else 'a channel mode message'}: cannot be bound"
        )
    limits: list[Value | None] = []
    for key in ("low", "high"):
        if key in entry and control is None:
            raise _Mistake(key, f"found {shown(entry[key])}, but a command has no range")
        try:
            limits.append(control.check(entry[key]) if control is not None and key in entry else None)
        except ControlError as error:
            raise _Mistake(key, str(error)) from None
    return Binding(target, number, channel, *limits)


def _checked(key: str, value: object, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high:
        return value
    raise _Mistake(key, f"found {shown(value)}, allowed 0..{high} (int)")


def _number(control: Control, value: Value | None, bound: float) -> float:
    if value is None:
        return bound
    return control.choices.index(value) if isinstance(value, str) else value


def _line(text: str, count: int, key: str) -> int | None:
    """The line of a key in the `count`-th `[[binding]]`, or of that header; None where a quick look does not find it."""
    header, found = 0, None
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(r"\s*\[\[\s*binding\s*\]\]", line):
            header += 1
            found = number if header == count else found
        elif header == count and key and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return number
    return found
