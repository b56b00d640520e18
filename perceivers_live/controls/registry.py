"""The live controls: the one registry of what can be steered while the music runs, and its current values.

The configuration file, OSC, MIDI CC and the command line are all generated from `CONTROLS`. The engine reads
`Controls.snapshot()`, which costs one attribute read and takes no lock.
"""

import difflib
import logging
import math
import reprlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeGuard

from engine.errors import UserError

Value = float | int | str | bool
Kind = Literal["float", "int", "choice", "switch", "text"]
Affects = Literal["decision", "output", "input", "nothing"]
Listener = Callable[[str, Value, object], None]
COMMANDS = ("takeover", "yield", "panic", "forget")  # those that need no argument

log = logging.getLogger(__name__)
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
# Pairs of limits. The lower one never exceeds the upper one, whoever sets them: one that is set beyond the other moves it along.
ORDERED = (("register_low", "register_high"), ("listen_low", "listen_high"))
_SWITCH_WORDS = {"true": True, "false": False, "on": True, "off": False}


class ControlError(UserError):
    """A control was given an unknown name or an impossible value; the message is one line."""


def shown(value: object) -> str:
    """`value` for an error message: on one line, at most about 60 characters."""
    try:
        return _short.repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        return "a huge number"


def printable(text: object) -> str:
    """`text` on one line, line breaks and the like escaped, cut after 300 characters."""
    line = str(text)[:300]
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def nearest(name: str, known: Iterable[str]) -> str:
    """The name in `known` (not empty) that looks most like `name`."""
    return difflib.get_close_matches(name[:64].lower(), list(known), n=1, cutoff=0.0)[0]


@dataclass(frozen=True)
class Control:
    """What one control, or one setting of the configuration file, may be.

    `low`..`high` (inclusive) bounds a number, in `unit`; a choice's index; a switch (0..1); or the length in characters of a
    text. Texts occur in the configuration file only, never among the live controls.

    `affects`: what of the music under way another value changes: what the machine decides (its plan is then made anew), how what
    it decided leaves, how the human is heard, or nothing before something begins.
    """

    name: str
    kind: Kind
    default: Value
    low: float = 0
    high: float = 1
    choices: tuple[str, ...] = ()
    unit: str = ""
    help: str = ""
    group: str = ""  # of the live controls: what they have to do with, in a word
    affects: Affects = "decision"

    @property
    def allowed(self) -> str:
        """The permitted values in words, such as `0.1..2.0` or `respond, listen`."""
        if self.kind == "choice":
            return ", ".join(self.choices)
        if self.kind == "switch":
            return "true, false"
        limits = f"{self.low}..{self.high}"
        return f"text of {limits} characters" if self.kind == "text" else f"{limits} {self.unit}".rstrip()

    def clamp(self, value: object) -> Value:
        """`value` as the control's own type, a number clamped to `low`..`high`: lenient, for live use.

        An int control rounds floats; a switch also takes 0, 1, and "true", "false", "on", "off" in any case; a choice takes
        its name in any case, or its index.

        Raises:
            ControlError: wrong type, NaN, infinity, or no such choice.
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
        raise self._refusal(value)

    def check(self, value: object) -> Value:
        """`value` if it is exactly of the control's type and within its limits: strict, for the configuration file.

        Raises:
            ControlError: wrong type, or out of range; nothing is clamped.
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
        raise self._refusal(value)

    def _refusal(self, value: object) -> ControlError:
        kind = "" if self.kind == "text" else f" ({self.kind})"
        return ControlError(f"{self.name}: found {shown(value)}, allowed {self.allowed}{kind}")


def _is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number; True and False are not numbers here."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (isinstance(value, int) or math.isfinite(value))


def partner(name: str) -> str | None:
    """The control that `name` moves along if it is set beyond it."""
    return next((other for pair in ORDERED for other in pair if name in pair and other != name), None)


def in_order(values: Mapping[str, Value], name: str, value: Value) -> dict[str, Value]:
    """What changes if the control `name` is set to `value`: itself, and its partner if that would be on the wrong side of it."""
    for low, high in ORDERED:
        passes = (name == low and value > values[high]) or (name == high and value < values[low])  # type: ignore[operator]
        if passes:
            return {name: value, (high if name == low else low): value}
    return {name: value}


def _explained(control: Control) -> Control:
    other = partner(control.name)
    return replace(control, help=f"{control.help} It moves {other} along if it passes it.") if other else control


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        control.name: _explained(control)
        for control in (
            Control(
                "temperature", "float", 1.0, 0.1, 2.0, help="How adventurous; 1 is as trained, lower is safer.", group="invention"
            ),
            Control(
                "min_p",
                "float",
                0.02,
                0.0,
                0.5,
                help="Drops choices less likely than this share of the likeliest one.",
                group="invention",
            ),
            Control(
                "variety",
                "float",
                1.0,
                0.0,
                3.0,
                help="Keeps a reply from dwelling on few keys; 0 is as trained.",
                group="invention",
            ),
            Control(
                "density",
                "float",
                0.0,
                -1.0,
                1.0,
                help="Positive is busier, negative sparser, beyond what pace asks for.",
                group="texture",
            ),
            Control(
                "pace",
                "float",
                0.5,
                0.0,
                2.0,
                help="How firmly a reply keeps to the pace of the call; 0: not at all.",
                group="texture",
            ),
            Control(
                "dynamics",
                "float",
                0.0,
                -1.0,
                1.0,
                help="Positive is louder, negative softer: a bias on velocity.",
                group="texture",
            ),
            Control("register_low", "int", 21, 0, 127, unit="MIDI note", help="Lowest note that is played.", group="texture"),
            Control("register_high", "int", 108, 0, 127, unit="MIDI note", help="Highest note that is played.", group="texture"),
            Control("max_polyphony", "int", 12, 1, 32, unit="notes", help="Most notes held at once.", group="texture"),
            Control(
                "mode",
                "choice",
                "respond",
                0,
                3,
                ("respond", "duet", "solo", "listen"),
                help="respond: call and response; duet: plays around you; solo: plays on by itself; listen: only remembers.",
                group="turns",
            ),
            Control(
                "patience",
                "float",
                1.0,
                0.25,
                4.0,
                help="How long a pause has to be, for the pace of your playing, to end your phrase; 0.5 is eager, 2 patient.",
                group="turns",
                affects="input",
            ),
            Control(
                "response_length",
                "float",
                1.0,
                0.1,
                4.0,
                unit="times the call",
                help="How long a reply lasts; from 2 s to a minute.",
                group="turns",
                affects="nothing",
            ),
            Control(
                "start_on",
                "choice",
                "now",
                0,
                2,
                ("now", "beat", "bar"),
                help="When a turn begins, where there is a clock.",
                group="turns",
                affects="nothing",
            ),
            Control(
                "beats_per_bar",
                "int",
                4,
                1,
                16,
                unit="beats",
                help="Length of the clock's bars.",
                group="turns",
                affects="nothing",
            ),
            Control(
                "lookahead_ms",
                "int",
                400,
                50,
                2000,
                unit="ms",
                help="How far ahead the music is decided; what you do still changes all of it.",
                group="timing",
                affects="nothing",
            ),
            Control(
                "input_offset_ms",
                "float",
                0.0,
                -200.0,
                200.0,
                unit="ms",
                help="Added to the time of what is heard.",
                group="timing",
                affects="input",
            ),
            Control(
                "output_offset_ms",
                "float",
                0.0,
                -200.0,
                200.0,
                unit="ms",
                help="Added to the time of what is played.",
                group="timing",
            ),
            Control(
                "transpose", "int", 0, -24, 24, unit="semitones", help="Moves what is played, on its way out.", group="sound"
            ),
            Control(
                "loudness",
                "float",
                0.0,
                -1.0,
                1.0,
                help="Bends the velocities of what is played, on their way out.",
                group="sound",
                affects="output",
            ),
            Control(
                "listen_low",
                "int",
                0,
                0,
                127,
                unit="MIDI note",
                help="Lowest key that is listened to.",
                group="hearing",
                affects="input",
            ),
            Control(
                "listen_high",
                "int",
                127,
                0,
                127,
                unit="MIDI note",
                help="Highest key that is listened to.",
                group="hearing",
                affects="input",
            ),
            Control(
                "seed",
                "int",
                -1,
                -1,
                2**31 - 1,
                help="Random seed that makes a reply repeatable; -1 draws a new one.",
                group="invention",
            ),
            Control("hold", "switch", False, help="Play nothing, and go on listening.", group="turns"),
            Control("thru", "switch", False, help="Copy the input to the output at once.", group="sound", affects="output"),
        )
    }
)


def find(name: str) -> Control:
    """The control called `name`.

    Raises:
        ControlError: there is none; the message names the nearest.
    """
    control = CONTROLS.get(name)
    if control is None:
        close = CONTROLS[nearest(name, CONTROLS)]
        raise ControlError(f"unknown control {shown(name)}, nearest is {close.name} ({close.allowed})")
    return control


class ControlValues(Mapping[str, Value]):
    """Every control's value at one moment: never changes. `version` grows by one with each change, `decisions` with each of a
    control that affects decisions.
    """

    __slots__ = ("_values", "decisions", "version")

    def __init__(self, values: Mapping[str, Value], version: int = 0, decisions: int = 0) -> None:
        self._values = values
        self.version, self.decisions = version, decisions

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Controls:
    """The current values. Every method may be called from any thread.

    Args:
        values: starting values in place of the defaults, clamped.

    Raises:
        ControlError: `values` holds an unknown name or an impossible value.
    """

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        start = {control.name: control.default for control in CONTROLS.values()}
        for name, value in (values or {}).items():
            start |= in_order(start, name, find(name).clamp(value))
        self._lock = threading.RLock()  # reentrant: a listener may set another control
        self._snapshot = ControlValues(start)
        self._listeners: tuple[Listener, ...] = ()

    def snapshot(self) -> ControlValues:
        """All values at this moment; lock-free."""
        return self._snapshot

    def get(self, name: str) -> Value:
        """The value of one control. Raises ControlError for an unknown name."""
        return self._snapshot[find(name).name]

    def set(self, name: str, value: object, source: object = None) -> Value:
        """Sets one control and returns the value it took, clamped to its range (see `Control.clamp`).

        If that changes the value, the listeners are told, on this thread and in the order of the changes, with `source`:
        whoever asked, so that a listener can leave out the one who already knows. A limit set beyond its partner (see `ORDERED`)
        moves that along, which everybody is told of: the source is None.

        Raises:
            ControlError: unknown name, wrong type, NaN or infinity; nothing has changed.
        """
        taken = find(name).clamp(value)
        with self._lock:
            before = self._snapshot
            if before[name] != taken:
                changes = in_order(before, name, taken)
                decisions = before.decisions + any(find(changed).affects == "decision" for changed in changes)
                self._snapshot = ControlValues({**before, **changes}, before.version + 1, decisions)
                for changed, value in changes.items():
                    self._tell(changed, value, source if changed == name else None)
        return taken

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Has `listener(name, value, source)` called after each change; returns a function that ends it.

        Listeners run under the lock: they must be quick, and must not wait for another thread.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other != listener)

        return stop

    def _tell(self, name: str, value: Value, source: object) -> None:
        for listener in self._listeners:
            try:
                listener(name, value, source)
            except Exception:  # a listener's fault must not cost the others, or the setter, the change
                log.exception("a listener failed on %s = %r", name, value)
