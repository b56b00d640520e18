"""One control or setting: its type, range, default, unit and help, and how values are checked."""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeGuard

from engine.errors import UserError
from engine.text import shown

Value = float | int | str | bool
Kind = Literal["float", "int", "choice", "switch", "text"]
Affects = Literal["decision", "output", "input", "nothing"]

_SWITCH_WORDS = {"true": True, "false": False, "on": True, "off": False}


class ControlError(UserError):
    """Unknown control or invalid value; the message is one line."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The name in ``known`` (not empty) that is most similar to ``name``."""
    return difflib.get_close_matches(name[:64].lower(), list(known), n=1, cutoff=0.0)[0]


@dataclass(frozen=True)
class Control:
    """The specification of a control, or of a setting in the settings file.

    ``low``..``high`` (inclusive) is the range of a number, in ``unit``; of a choice's index; of a switch (0..1); or of the length
    of a text in characters. Only settings can be texts.

    ``affects``: what a change affects while music plays: the machine's decisions (the plan is then decided again), the output of
    events already decided, the input, or nothing (the value is read when a turn begins or when it is needed).
    """

    name: str
    kind: Kind
    default: Value
    low: float = 0
    high: float = 1
    choices: tuple[str, ...] = ()
    unit: str = ""
    help: str = ""
    group: str = ""  # heading in user interfaces; only live controls have one
    affects: Affects = "decision"

    @property
    def allowed(self) -> str:
        """The allowed values as text, such as ``0.5..1.5`` or ``respond, listen``."""
        if self.kind == "choice":
            return ", ".join(self.choices)
        if self.kind == "switch":
            return "true, false"
        limits = f"{self.low}..{self.high}"
        return f"text of {limits} characters" if self.kind == "text" else f"{limits} {self.unit}".rstrip()

    def clamp(self, value: object) -> Value:
        """``value`` converted to the control's type, with numbers clamped to ``low``..``high``. Lenient, for live use.

        An int control rounds floats. A switch also accepts 0, 1, and "true", "false", "on", "off" in upper or lower case. A
        choice accepts its name in upper or lower case, or its index.

        Raises:
            ControlError: wrong type, NaN, infinity, or unknown choice.
        """
        if self.kind == "switch" and isinstance(value, (bool, int, float, str)):
            state = _SWITCH_WORDS.get(value.lower()) if isinstance(value, str) else value
            if state in (0, 1):
                return bool(state)
        elif self.kind == "choice" and isinstance(value, str):
            if value.lower() in self.choices:
                return value.lower()
        elif self.kind == "choice" and _is_number(value):
            if value in range(len(self.choices)):
                return self.choices[int(value)]
        elif self.kind in ("int", "float") and _is_number(value):
            bounded = min(max(value, self.low), self.high)
            return round(bounded) if self.kind == "int" else float(bounded)
        raise self._invalid(value)

    def check(self, value: object) -> Value:
        """``value`` if it has the control's type and is within its range. Strict, for the settings file.

        Raises:
            ControlError: wrong type, or out of range.
        """
        if self.kind == "switch" and isinstance(value, bool):
            return value
        if self.kind == "choice" and isinstance(value, str) and value in self.choices:
            return value
        if self.kind == "text" and isinstance(value, str) and self.low <= len(value) <= self.high:
            return value
        if self.kind == "int" and isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high:
            return value
        if self.kind == "float" and _is_number(value) and self.low <= value <= self.high:
            return float(value)
        raise self._invalid(value)

    def _invalid(self, value: object) -> ControlError:
        kind = "" if self.kind == "text" else f" ({self.kind})"
        return ControlError(f"{self.name}: found {shown(value)}, allowed {self.allowed}{kind}")


def _is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite int or float, not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (isinstance(value, int) or math.isfinite(value))
