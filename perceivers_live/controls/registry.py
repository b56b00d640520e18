"""The registry of the live controls: all parameters that can be changed while music plays, and their current values.

The controls are those of ``catalogue``. The performer reads ``Controls.snapshot()``, which is one attribute read without a lock.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping

from engine.text import shown
from perceivers_live.controls.catalogue import CONTROLS, LIMIT_PAIRS
from perceivers_live.controls.control import Control, ControlError, Value, nearest

Listener = Callable[[str, Value, object], None]
COMMANDS = ("takeover", "yield", "panic", "forget")  # commands without arguments

log = logging.getLogger(__name__)


def with_partner(values: Mapping[str, Value], name: str, value: Value) -> dict[str, Value]:
    """The changes when the control ``name`` is set to ``value``: also its partner, if the two would be in the wrong order."""
    for low, high in LIMIT_PAIRS:
        crossed = (name == low and value > values[high]) or (name == high and value < values[low])  # type: ignore[operator]
        if crossed:
            return {name: value, (high if name == low else low): value}
    return {name: value}


def find(name: str) -> Control:
    """The control called ``name``.

    Raises:
        ControlError: unknown name; the message contains the most similar one.
    """
    control = CONTROLS.get(name)
    if control is None:
        close = CONTROLS[nearest(name, CONTROLS)]
        raise ControlError(f"unknown control {shown(name)}, nearest is {close.name} ({close.allowed})")
    return control


class ControlValues(Mapping[str, Value]):
    """Immutable values of all controls. ``version`` increases by one with each change, ``decision_version`` only with changes of
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
        ControlError: unknown name or invalid value in ``values``.
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
        """Sets one control and returns its new value, clamped to its range (see ``Control.clamp``).

        If the value changes, listeners are called on this thread, in the order of the changes, with ``source``: the caller, which
        a listener can exclude from its own notifications. If a limit is set beyond its partner (see ``LIMIT_PAIRS``), the partner
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
        """Calls ``listener(name, value, source)`` after each change, until the returned function is called.

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
