"""MIDI CC -> controls and commands, for the faders, knobs and buttons of a keyboard or a control surface.

A binding assigns one controller number (CC), on one channel or on all, to a control or a command. The controller's values 0..127
cover the control's range or a part of it. A switch is on from 64; a choice has zones of equal width. A command runs once when the
value rises to 64 or more, and at each 127 of a button that sends nothing else. Messages of a bound controller are not treated as
music.

``MidiMap.learn`` binds the next controller that is moved (MIDI learn). The bindings are stored in the user's ``midi_map.toml``
(see ``midi_map_file``). If the user or another daemon has changed that file, the changes are kept, and take effect here when the
next binding is learnt or removed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.midi import is_channel_message
from engine.text import printable, shown
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Control, nearest
from perceivers_live.controls.midi_map_file import NOT_BINDABLE, Binding, MidiMapError, read, set_aside, write
from perceivers_live.controls.registry import Controls

LEARN_TIMEOUT = 20.0  # seconds to wait for a controller
LEARN_MOVEMENT = 4  # change of value that binds a controller; a noisy fader changes by one or two
PRESS_VALUE = 64  # value from which a switch is on and a command runs
_PEDALS = range(64, 70)  # sustain, portamento, sostenuto, soft, legato, hold 2: not bound by accident
_PARAMETER = range(96, 102)  # data increment and decrement; NRPN and RPN, LSB and MSB
_DATA_ENTRY = frozenset({6, 38})  # a controller, unless an RPN or NRPN is selected: then its value
NOT_LEARNABLE = frozenset({0, 32, *_PEDALS, *_PARAMETER, *NOT_BINDABLE})  # 0, 32: bank select
COMMAND_PEDALS = frozenset({66, 67})  # sostenuto and soft pedal can be bound to commands, such as takeover
_LSB = 32  # CC 32..63 may be the LSB of CC 0..31

log = logging.getLogger(__name__)
Key = tuple[int, int]  # channel, controller number
OnLearnt = Callable[[Binding], None]


class Learning(NamedTuple):
    """A control or command that waits for a controller until ``deadline`` (monotonic seconds)."""

    target: str
    deadline: float
    start: dict[Key, int]  # first value of each controller received since
    rejected: set[int]  # numbers of controllers that moved but cannot be learnt


class MidiMap:
    """The bindings. Sets controls and runs commands. Thread-safe; times are monotonic seconds.

    Args:
        controls: are set by bound controllers.
        commands: name -> function without arguments, called on the thread that calls ``feed``; must not block.
        path: the file of bindings, read now; None: in memory only. An invalid file is renamed, and the map is empty; ``error``
            then has the reason, in one line.
        on_learnt: called with a binding after it was learnt and saved, on a separate thread.
        on_fault: called when learning has timed out or the file cannot be written, on the thread that detects it. Can be
            changed later.

    Raises:
        ValueError: a command has the name of a control.
    """

    def __init__(
        self,
        controls: Controls,
        commands: Mapping[str, Callable[[], object]] | None = None,
        path: Path | None = None,
        *,
        on_learnt: OnLearnt = lambda _: None,
        on_fault: Callable[[MidiMapError], None] = lambda error: log.warning("%s", error),
    ) -> None:
        self._controls, self._commands = controls, dict(commands or {})
        duplicates = sorted(self._commands.keys() & CONTROLS.keys())
        if duplicates:
            raise ValueError(f"command names in use: {', '.join(duplicates)}")
        self._path, self._on_learnt, self.on_fault = path, on_learnt, on_fault
        self._values: dict[Key, int] = {}  # latest value of each controller
        self._parameter_channels: set[int] = set()  # channels with a selected RPN or NRPN, which receives data entry
        self._learning: Learning | None = None
        self._lock = threading.Lock()  # guards ``_learning`` and changes of ``_bound``; readers need no lock
        self._bound: Mapping[Key, Binding] = {}  # replaced, never modified
        self._stored: Mapping[Key, Binding] = {}  # as they were last read from the file or written to it
        self._saving = threading.Lock()  # guards the file and ``_stored``
        self.error: str | None = None
        if path is not None:
            self._read(path)

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The current bindings."""
        return tuple(self._bound.values())

    def feed(self, now: float, message: Sequence[int]) -> bool:
        """Handles one raw message: learns or applies its controller. True if it was used; it is then not music. Never raises and
        never waits for the disk.
        """
        if len(message) != 3 or message[0] & 0xF0 != 0xB0 or not is_channel_message(message):
            return False
        channel, number, value = (message[0] & 0x0F) + 1, message[1], message[2]
        before = self._values.get((channel, number))
        self._values[channel, number] = value
        self._track_parameter(channel, number)
        if self._learning is not None and self._learn_from(now, (channel, number), before, value):
            return True
        binding = self._bound.get((channel, number)) or self._bound.get((0, number))
        if binding is None:
            return False
        if self.learning(now) is None:  # moving controllers to learn one does not change controls
            try:
                self._apply(binding, before, value)
            except Exception:  # an error of a command must not reach the MIDI driver
                log.exception("CC %d: %s failed", number, binding.target)
        return True

    def learn(self, target: str, now: float) -> None:
        """Binds the next controller that moves to a command, or to a control with its whole range.

        This replaces the previous binding of that controller, but not other bindings of ``target``. A second call replaces the
        first. Learning ends after ``LEARN_TIMEOUT`` seconds. Bank select, RPN, NRPN, channel mode messages and pedals cannot be
        learnt; commands can learn the sostenuto and the soft pedal.

        Raises:
            MidiMapError: unknown control or command.
        """
        self._check(target)
        with self._lock:
            self._learning = Learning(target, now + LEARN_TIMEOUT, {}, set())

    def learning(self, now: float) -> str | None:
        """The control or command that waits for a controller; None if there is none."""
        waiting = self._learning
        return waiting.target if waiting is not None and now < waiting.deadline else None

    def unlearn(self, target: str) -> int:
        """Removes all bindings of a control or command; returns their number.

        Raises:
            MidiMapError: unknown control or command; or the file cannot be written, and the bindings return at the next start.
        """
        self._check(target)
        with self._lock:
            left = {key: binding for key, binding in self._bound.items() if binding.target != target}
            removed = len(self._bound) - len(left)
            self._bound = left
        if removed:
            self._save()
        return removed

    def expire(self, now: float) -> None:
        """Ends learning after its timeout and reports why. Call it regularly, but not in the MIDI driver's callback."""
        with self._lock:
            waiting = self._learning
            if waiting is None or now < waiting.deadline:
                return
            self._learning = None
        moved = ", ".join(f"CC {number}" for number in sorted(waiting.rejected))
        why = f"these controllers cannot be learnt: {moved}" if moved else "no controller moved"
        self.on_fault(MidiMapError(f"{waiting.target}: not learnt, {why} ({LEARN_TIMEOUT:.0f} s); start learning again"))

    # Applying.

    def _apply(self, binding: Binding, before: int | None, value: int) -> None:
        command = self._commands.get(binding.target)
        if command is None:
            self._controls.set(binding.target, control_value(CONTROLS[binding.target], binding, value), source=self)
        elif value >= PRESS_VALUE and (before is None or before < PRESS_VALUE or _is_repeated_press(before, value)):
            command()

    # Learning.

    def _learn_from(self, now: float, key: Key, before: int | None, value: int) -> bool:
        """Binds this controller if a target waits for one and it has moved far enough. Returns whether it did."""
        channel, number = key
        with self._lock:
            waiting = self._learning
            if waiting is None or now >= waiting.deadline:
                return False
            if not self._is_learnable(key, waiting.target):
                waiting.rejected.add(number)
                return False
            start = waiting.start.setdefault(key, value if before is None else before)
            is_lsb = number in range(_LSB, 2 * _LSB) and (channel, number - _LSB) in waiting.start
            is_button = waiting.target in self._commands and _is_repeated_press(before, value)
            has_moved = abs(value - start) >= LEARN_MOVEMENT or is_button
            if is_lsb or not has_moved:  # the MSB is learnt, although its LSB moves more
                return False
            binding = Binding(waiting.target, number, channel)
            kept = {other: bound for other, bound in self._bound.items() if other not in (key, (0, number))}
            self._bound = {**kept, key: binding}
            self._learning = None
        # A thread, since the MIDI driver must not wait for the disk.
        threading.Thread(target=self._save_learnt, args=(binding,), name="midi-map").start()
        return True

    def _is_learnable(self, key: Key, target: str) -> bool:
        channel, number = key
        if number in NOT_LEARNABLE:
            return number in COMMAND_PEDALS and target in self._commands
        return number not in _DATA_ENTRY or channel not in self._parameter_channels

    def _track_parameter(self, channel: int, number: int) -> None:
        """Tracks whether an RPN or NRPN is selected: by MSB and LSB of its number; 127 in both deselects."""
        if number in (98, 99, 100, 101):
            lsb = number & ~1
            selected = self._values.get((channel, lsb), 0), self._values.get((channel, lsb + 1), 0)
            if selected == (127, 127):
                self._parameter_channels.discard(channel)
            else:
                self._parameter_channels.add(channel)
        elif number == 121:  # reset all controllers
            self._parameter_channels.discard(channel)

    def _save_learnt(self, binding: Binding) -> None:
        try:
            self._save()
        except MidiMapError as error:
            self.on_fault(error)
        try:
            self._on_learnt(binding)
        except Exception:
            log.exception("a listener failed on %s", binding)

    def _check(self, target: str) -> None:
        known = [*CONTROLS, *self._commands]
        if target not in known:
            raise MidiMapError(f"unknown control or command {shown(target)}, nearest is {nearest(str(target), known)}")

    # The file.

    def _read(self, path: Path) -> None:
        try:
            self._bound = self._stored = self._bindings_of(path)
        except MidiMapError as error:
            aside = set_aside(path)
            result = f"renamed to {printable(aside.name)}" if aside else "it stays, and new bindings will not be saved"
            self.error = f"{error}; {result}"
            if aside is None:
                self._path = None
            log.warning("%s", self.error)

    def _bindings_of(self, path: Path) -> Mapping[Key, Binding]:
        return {(binding.channel, binding.number): binding for binding in read(path, self._commands)}

    def _save(self) -> None:
        """Applies the changes since the last save to the file, which may have been changed by others. Raises ``MidiMapError``."""
        with self._saving:
            if self._path is None:
                return
            stored, present = self._stored, self._bindings_of(self._path)
            with self._lock:
                changed = {key: binding for key, binding in self._bound.items() if stored.get(key) != binding}
                removed = stored.keys() - self._bound.keys()
                self._bound = {key: binding for key, binding in {**present, **changed}.items() if key not in removed}
                bound = self._bound
            write(self._path, bound.values())
            self._stored = bound


def _is_repeated_press(before: int | None, value: int) -> bool:
    """Whether this is another press of a button that sends 127 for each press and nothing for a release."""
    return before == value == 127


def control_value(control: Control, binding: Binding, value: int) -> float:
    """The value of a control for a controller's value of 0..127: a number, or the index of a choice or switch."""
    low, high = binding.limits(control)
    if control.kind in ("choice", "switch"):
        zone = value * (abs(int(high - low)) + 1) // 128
        return int(low) + zone if low <= high else int(low) - zone
    return high if value == 127 else low + (high - low) * value / 127
