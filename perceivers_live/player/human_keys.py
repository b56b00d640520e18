"""The keys and the pedal that the human holds. Other records of them, such as the phrase detector's, lag behind this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import MessageReader

KeyRange = Callable[[], tuple[int, int]]  # lowest and highest key


class HumanKeys:
    """Converts the human's messages to consistent actions (no release without a press), which model and phrase detector
    receive. ``held`` and ``pedal`` are the state after them.

    ``key_range``: returns the range of keys that count now. A key that was pressed within the range is also released if the range
    has changed since. Thread-safe. A caller that changes the plan together with the keys holds the player's lock.
    """

    def __init__(self, key_range: KeyRange = lambda: (0, PITCHES - 1)) -> None:
        self._key_range = key_range
        self._reader = MessageReader()
        self._lock = threading.Lock()
        self._held: frozenset[int] = frozenset()  # replaced, never modified, so that readers need no lock
        self._pedal = False

    @property
    def held(self) -> frozenset[int]:
        """Keys within the range that are down."""
        return self._held

    @property
    def pedal(self) -> bool:
        """Whether the sustain pedal is down."""
        return self._pedal

    def feed(self, time: float, message: Sequence[int]) -> list[Timed]:
        """Applies one raw message; returns the resulting actions."""
        with self._lock:
            return [one for one in self._reader.feed(time, message) if self._apply(one)]

    def apply(self, timed: Timed) -> bool:
        """Applies one action instead of a message. False if it has no effect."""
        with self._lock:
            return self._apply(timed)

    def release_all(self, time: float) -> list[Timed]:
        """Releases all keys and the pedal, such as after a lost input port; returns the releases."""
        with self._lock:
            self._reader.close(time)
            actions = [*(NOTE_OFF + pitch for pitch in sorted(self._held)), *([SUSTAIN_UP] if self._pedal else [])]
            self._held, self._pedal = frozenset(), False
            return [Timed(time, action) for action in actions]

    def _apply(self, timed: Timed) -> bool:
        if timed.action < NOTE_OFF:
            pitch = timed.action - NOTE_ON
            low, high = sorted(self._key_range())
            if low <= pitch <= high:
                self._held |= {pitch}
            return low <= pitch <= high
        if timed.action < NOTE_OFF + PITCHES:
            pitch = timed.action - NOTE_OFF
            was = pitch in self._held
            self._held -= {pitch}
            return was
        self._pedal = timed.action == SUSTAIN_DOWN
        return True
