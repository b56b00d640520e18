"""The live controls: the registry of all parameters that can be changed while music plays, and their current values.

Configuration file, OSC, MIDI CC and command line are generated from `CONTROLS`. The performer reads `Controls.snapshot()`, which
is one attribute read without a lock.
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
COMMANDS = ("takeover", "yield", "panic", "forget")  # commands without arguments

log = logging.getLogger(__name__)
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
# Pairs of lower and upper limits. The lower one never exceeds the upper one: setting one beyond the other sets both.
LIMIT_PAIRS = (("register_low", "register_high"), ("listen_low", "listen_high"))
_SWITCH_WORDS = {"true": True, "false": False, "on": True, "off": False}


class ControlError(UserError):
    """Unknown control or invalid value; the message is one line."""


def shown(value: object) -> str:
    """`value` for an error message: one line of at most about 60 characters."""
    try:
        return _short.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a huge number"


def printable(text: object) -> str:
    """`text` on one line of at most 300 characters, with control characters escaped."""
    line = str(text)[:300]
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def nearest(name: str, known: Iterable[str]) -> str:
    """The name in `known` (not empty) that is most similar to `name`."""
    return difflib.get_close_matches(name[:64].lower(), list(known), n=1, cutoff=0.0)[0]


@dataclass(frozen=True)
class Control:
    """The specification of a control, or of a setting in the configuration file.

    `low`..`high` (inclusive) is the range of a number, in `unit`; of a choice's index; of a switch (0..1); or of the length of a
    text in characters. Only settings can be texts.

    `affects`: what a change affects while music plays: the machine's decisions (the plan is then decided again), the output of
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
        """The allowed values as text, such as `0.1..2.0` or `respond, listen`."""
        if self.kind == "choice":
            return ", ".join(self.choices)
        if self.kind == "switch":
            return "true, false"
        limits = f"{self.low}..{self.high}"
        return f"text of {limits} characters" if self.kind == "text" else f"{limits} {self.unit}".rstrip()

    def clamp(self, value: object) -> Value:
        """`value` converted to the control's type, with numbers clamped to `low`..`high`. Lenient, for live use.

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
        """`value` if it has the control's type and is within its range. Strict, for the configuration file.

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
    """Whether `value` is a finite int or float, not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (isinstance(value, int) or math.isfinite(value))


def partner_limit(name: str) -> str | None:
    """The other limit of the pair that `name` belongs to; None if it is not a limit."""
    return next((other for pair in LIMIT_PAIRS for other in pair if name in pair and other != name), None)


def with_partner(values: Mapping[str, Value], name: str, value: Value) -> dict[str, Value]:
    """The changes when the control `name` is set to `value`: also its partner, if the two would be in the wrong order."""
    for low, high in LIMIT_PAIRS:
        crossed = (name == low and value > values[high]) or (name == high and value < values[low])  # type: ignore[operator]
        if crossed:
            return {name: value, (high if name == low else low): value}
    return {name: value}


def _with_partner_help(control: Control) -> Control:
    other = partner_limit(control.name)
    return replace(control, help=f"{control.help} Setting it beyond {other} sets both.") if other else control


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        control.name: _with_partner_help(control)
        for control in (
            Control(
                "temperature",
                "float",
                1.0,
                0.1,
                2.0,
                help="Sampling temperature; 1: as trained, lower: less random.",
                group="invention",
            ),
            Control(
                "min_p",
                "float",
                0.02,
                0.0,
                0.5,
                help="Min-p sampling: excludes events less likely than this fraction of the likeliest.",
                group="invention",
            ),
            Control("variety", "float", 1.0, 0.0, 3.0, help="Penalty on repeated keys; 0 is as trained.", group="invention"),
            Control(
                "density",
                "float",
                0.0,
                -1.0,
                1.0,
                help="Positive plays more notes, negative fewer; added to the effect of pace.",
                group="texture",
            ),
            Control(
                "pace",
                "float",
                0.5,
                0.0,
                2.0,
                help="How strongly a reply keeps the note rate of your phrase; 0: not at all.",
                group="texture",
            ),
            Control(
                "dynamics", "float", 0.0, -1.0, 1.0, help="Bias on velocity; positive: louder, negative: softer.", group="texture"
            ),
            Control("register_low", "int", 21, 0, 127, unit="MIDI note", help="Lowest note the machine plays.", group="texture"),
            Control(
                "register_high", "int", 108, 0, 127, unit="MIDI note", help="Highest note the machine plays.", group="texture"
            ),
            Control("max_polyphony", "int", 12, 1, 32, unit="notes", help="Most notes held at the same time.", group="texture"),
            Control(
                "mode",
                "choice",
                "respond",
                0,
                3,
                ("respond", "duet", "solo", "listen"),
                help="respond: replies to each phrase; duet: plays along; solo: plays continuously; listen: does not play.",
                group="turns",
            ),
            Control(
                "patience",
                "float",
                1.0,
                0.25,
                4.0,
                help="Scales the silence that ends your phrase, which depends on your pace; 0.5: half, 2: twice.",
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
                help="Length of a reply, within 2 s to 60 s.",
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
                help="With a clock: where a turn of the machine begins.",
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
                help="Beats per bar of the clock.",
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
                help="How far ahead the machine decides; your playing still changes what it decided.",
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
                help="Added to the times of the input.",
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
                help="Added to the times of the output.",
                group="timing",
            ),
            Control("transpose", "int", 0, -24, 24, unit="semitones", help="Transposes the output.", group="sound"),
            Control(
                "loudness",
                "float",
                0.0,
                -1.0,
                1.0,
                help="Velocity curve of the output; positive is louder, negative softer.",
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
                help="Lowest key the machine listens to.",
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
                help="Highest key the machine listens to.",
                group="hearing",
                affects="input",
            ),
            Control(
                "seed",
                "int",
                -1,
                -1,
                2**31 - 1,
                help="Random seed, for repeatable replies; -1: a random one for each session.",
                group="invention",
            ),
            Control("hold", "switch", False, help="The machine listens and does not play.", group="turns"),
            Control("thru", "switch", False, help="Copies the input to the output.", group="sound", affects="output"),
        )
    }
)


def find(name: str) -> Control:
    """The control called `name`.

    Raises:
        ControlError: unknown name; the message contains the most similar one.
    """
    control = CONTROLS.get(name)
    if control is None:
        close = CONTROLS[nearest(name, CONTROLS)]
        raise ControlError(f"unknown control {shown(name)}, nearest is {close.name} ({close.allowed})")
    return control


class ControlValues(Mapping[str, Value]):
    """Immutable values of all controls. `version` increases by one with each change, `decision_version` only with changes of
    controls that affect decisions.
    """

    __slots__ = ("_values", "decision_version", "version")

    def __init__(self, values: Mapping[str, Value], version: int = 0, decision_version: int = 0) -> None:
        self._values = values
        self.version, self.decision_version = version, decision_version

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Controls:
    """The current values of the controls. Thread-safe.

    Args:
        values: initial values that replace defaults; they are clamped.

    Raises:
        ControlError: unknown name or invalid value in `values`.
    """

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        start = {control.name: control.default for control in CONTROLS.values()}
        for name, value in (values or {}).items():
            start |= with_partner(start, name, find(name).clamp(value))
        self._lock = threading.RLock()  # reentrant: a listener may set another control
        self._snapshot = ControlValues(start)
        self._listeners: tuple[Listener, ...] = ()

    def snapshot(self) -> ControlValues:
        """All current values, without a lock."""
        return self._snapshot

    def get(self, name: str) -> Value:
        """The value of one control. Raises ControlError for an unknown name."""
        return self._snapshot[find(name).name]

    def set(self, name: str, value: object, source: object = None) -> Value:
        """Sets one control and returns its new value, clamped to its range (see `Control.clamp`).

        If the value changes, listeners are called on this thread, in the order of the changes, with `source`: the caller, which
        a listener can exclude from its own notifications. If a limit is set beyond its partner (see `LIMIT_PAIRS`), the partner
        changes, too; the source of that change is None.

        Raises:
            ControlError: unknown name, wrong type, NaN or infinity; nothing was changed.
        """
        clamped = find(name).clamp(value)
        with self._lock:
            before = self._snapshot
            if before[name] != clamped:
                changes = with_partner(before, name, clamped)
                decision_version = before.decision_version + any(find(changed).affects == "decision" for changed in changes)
                self._snapshot = ControlValues({**before, **changes}, before.version + 1, decision_version)
                for changed, value in changes.items():
                    self._notify(changed, value, source if changed == name else None)
        return clamped

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener(name, value, source)` after each change, until the returned function is called.

        Listeners run under the lock: they must be fast and must not wait for another thread.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other != listener)

        return stop

    def _notify(self, name: str, value: Value, source: object) -> None:
        for listener in self._listeners:
            try:
                listener(name, value, source)
            except Exception:  # a faulty listener must not affect the others or the caller
                log.exception("a listener failed on %s = %r", name, value)
