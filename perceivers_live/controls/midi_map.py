"""MIDI CC -> controls and commands: steering with the faders, knobs and buttons of a keyboard or a control surface.

A binding gives one controller number (CC), on one channel or on any, to a control or to a command. A fader sweeps a control's
range, or a part of it; a switch turns at 64; a choice has zones of equal width. A command runs when the value rises to 64 or
more: once a press. A controller that is bound steers only: it does not reach the music.

`MidiMap.learn` binds the next controller that is moved. The bindings live in one file of the user's, `midi_map.toml`, which
is rewritten whenever they change (see `midi_map_file`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.midi import is_channel_message
from perceivers_live.controls.midi_map_file import NOT_BINDABLE, Binding, MidiMapError, read, set_aside, write
from perceivers_live.controls.registry import CONTROLS, Control, Controls, nearest, printable, shown

LEARN_TIMEOUT = 20.0  # seconds that learning waits
LEARN_MOVEMENT = 4  # steps that a controller must go to be learnt: a noisy fader trembles by one or two
PRESS_VALUE = 64  # of 127, the value at which switches turn and commands run
_PEDALS = range(64, 70)  # sustain, portamento, sostenuto, soft, legato, hold: a pianist's feet are not to be learnt by accident
_PARAMETER = range(96, 102)  # data increment and decrement; NRPN and RPN, fine and coarse: which parameter is meant
_DATA_ENTRY = frozenset({6, 38})  # a slider's, unless a parameter is chosen, whose value it is then
NOT_LEARNABLE = frozenset({0, 32, *_PEDALS, *_PARAMETER, *NOT_BINDABLE})  # nor is bank select
COMMAND_PEDALS = frozenset({66, 67})  # but a command may have the sostenuto or the soft pedal: a foot can hand over
_LSB = 32  # CC 32..63 may be the fine half of CC 0..31

log = logging.getLogger(__name__)
Key = tuple[int, int]  # channel, controller number
Learnt = Callable[[Binding], None]


class Learning(NamedTuple):
    """What waits for a controller, until when, where each controller stood that has been heard since, and the numbers of those
    that moved but are not learnt.
    """

    target: str
    deadline: float
    start: dict[Key, int]
    passed_over: set[int]


class MidiMap:
    """The bindings, and what they do. Every method may be called from any thread; times are monotonic seconds.

    Args:
        controls: what faders and switches set.
        commands: name -> function without arguments, run on the thread that calls `feed`: it must return at once.
        path: the bindings' file, read now; None keeps them in memory only. A file that cannot be used is set aside, and
            `error` says why, in one line; the map is empty then.
        on_learnt: told of a binding once it has been learnt and saved, on a thread of its own.
        on_fault: told when learning has been given up, or the file cannot be written, on the thread that found it out; it can be
            set later too.

    Raises:
        ValueError: a command has the name of a control.
    """

    def __init__(
        self,
        controls: Controls,
        commands: Mapping[str, Callable[[], object]] | None = None,
        path: Path | None = None,
        *,
        on_learnt: Learnt = lambda _: None,
        on_fault: Callable[[MidiMapError], None] = lambda error: log.warning("%s", error),
    ) -> None:
        self._controls, self._commands = controls, dict(commands or {})
        taken = sorted(self._commands.keys() & CONTROLS.keys())
        if taken:
            raise ValueError(f"command names in use: {', '.join(taken)}")
        self._path, self._on_learnt, self.on_fault = path, on_learnt, on_fault
        self._values: dict[Key, int] = {}  # the last one of each controller
        self._chosen: set[int] = set()  # channels where an RPN or NRPN is chosen: data entry belongs to that
        self._learning: Learning | None = None
        self._lock = threading.Lock()  # guards what is being learnt, and who replaces the next; readers take no lock
        self._bound: Mapping[Key, Binding] = {}  # replaced, never changed
        self._saving = threading.Lock()
        self.error: str | None = None
        if path is not None:
            self._read(path)

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """What is bound now."""
        return tuple(self._bound.values())

    def feed(self, now: float, message: Sequence[int]) -> bool:
        """One raw message: does what is bound to it. Whether it was for us; if so it must not reach the music. Never raises,
        and never waits for a disk.
        """
        if len(message) != 3 or message[0] & 0xF0 != 0xB0 or not is_channel_message(message):
            return False
        channel, number, value = (message[0] & 0x0F) + 1, message[1], message[2]
        before = self._values.get((channel, number))
        self._values[channel, number] = value
        self._choose_parameter(channel, number)
        if self._learning is not None and self._learn_from(now, (channel, number), before, value):
            return True
        binding = self._bound.get((channel, number)) or self._bound.get((0, number))
        if binding is None:
            return False
        if self.learning(now) is None:  # whoever is choosing a fader does not mean to steer with it
            try:
                self._apply(binding, before, value)
            except Exception:  # a command's fault must not reach the MIDI driver
                log.exception("CC %d failed to steer %s", number, binding.target)
        return True

    def learn(self, target: str, now: float) -> None:
        """Binds the next controller that moves to a control, over its whole range, or to a command.

        Whatever that controller did before ends; other controllers of `target` stay. Another call takes the place of this
        one, and after `LEARN_TIMEOUT` seconds it is given up. Bank select, RPN and NRPN messages and channel mode messages are
        not learnt, pedals neither, but for the sostenuto and the soft pedal by a command.

        Raises:
            MidiMapError: there is no such control or command.
        """
        self._check(target)
        with self._lock:
            self._learning = Learning(target, now + LEARN_TIMEOUT, {}, set())

    def learning(self, now: float) -> str | None:
        """The control or command that still waits for a controller, if any."""
        waiting = self._learning
        return waiting.target if waiting is not None and now < waiting.deadline else None

    def unlearn(self, target: str) -> int:
        """Removes the bindings of a control or command; returns how many there were.

        Raises:
            MidiMapError: there is no such control or command; or the file cannot be written, and the bindings are back at the
                next start.
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
        """Gives learning up if it is time, and tells why. To be called now and then, but not in the MIDI driver's callback."""
        with self._lock:
            waiting = self._learning
            if waiting is None or now < waiting.deadline:
                return
            self._learning = None
        moved = ", ".join(f"CC {number}" for number in sorted(waiting.passed_over))
        why = f"what moved cannot be learnt: {moved}" if moved else "no controller moved"
        self.on_fault(MidiMapError(f"{waiting.target}: not learnt, {why} ({LEARN_TIMEOUT:.0f} s); learn it again to go on"))

    # What a controller does.

    def _apply(self, binding: Binding, before: int | None, value: int) -> None:
        command = self._commands.get(binding.target)
        if command is None:
            self._controls.set(binding.target, control_value(CONTROLS[binding.target], binding, value), source=self)
        elif value >= PRESS_VALUE and (before is None or before < PRESS_VALUE):
            command()

    # Learning.

    def _learn_from(self, now: float, key: Key, before: int | None, value: int) -> bool:
        """Whether this controller is the one that was waited for, bound from now on."""
        channel, number = key
        with self._lock:
            waiting = self._learning
            if waiting is None or now >= waiting.deadline:
                return False
            if not self._may_be_learnt(key, waiting.target):
                waiting.passed_over.add(number)
                return False
            start = waiting.start.setdefault(key, value if before is None else before)
            fine = number in range(_LSB, 2 * _LSB) and (channel, number - _LSB) in waiting.start  # it moves most, and says least
            if abs(value - start) < LEARN_MOVEMENT or fine:
                return False
            binding = Binding(waiting.target, number, channel)
            kept = {other: bound for other, bound in self._bound.items() if other not in (key, (0, number))}
            self._bound = {**kept, key: binding}
            self._learning = None
        threading.Thread(target=self._keep, args=(binding,), name="midi-map").start()  # a disk is too slow for the driver
        return True

    def _may_be_learnt(self, key: Key, target: str) -> bool:
        channel, number = key
        if number in NOT_LEARNABLE:
            return number in COMMAND_PEDALS and target in self._commands
        return number not in _DATA_ENTRY or channel not in self._chosen

    def _choose_parameter(self, channel: int, number: int) -> None:
        """Follows which parameter data entry is meant for: one is chosen by its number's two halves, and none by 127 in both."""
        if number in (98, 99, 100, 101):
            fine = number & ~1
            chosen = self._values.get((channel, fine), 0), self._values.get((channel, fine + 1), 0)
            if chosen == (127, 127):
                self._chosen.discard(channel)
            else:
                self._chosen.add(channel)
        elif number == 121:  # reset all controllers
            self._chosen.discard(channel)

    def _keep(self, binding: Binding) -> None:
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
            bindings = read(path, self._commands)
        except MidiMapError as error:
            aside = set_aside(path)
            kept = f"set aside as {printable(aside.name)}" if aside else "left as it is, and nothing learnt will be saved"
            self.error = f"{error}; {kept}"
            if aside is None:
                self._path = None
            log.warning("%s", self.error)
        else:
            self._bound = {(binding.channel, binding.number): binding for binding in bindings}

    def _save(self) -> None:
        with self._saving:  # the last to save writes what is bound by then
            if self._path is not None:
                write(self._path, self.bindings)


def control_value(control: Control, binding: Binding, value: int) -> float:
    """Where a controller's value of 0..127 puts a control: a number, or the index of a choice or a switch."""
    low, high = binding.limits(control)
    if control.kind in ("choice", "switch"):
        zone = value * (abs(int(high - low)) + 1) // 128
        return int(low) + zone if low <= high else int(low) - zone
    return high if value == 127 else low + (high - low) * value / 127
