"""The account of what the human holds: the one place that says which keys and whether the pedal are down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import MessageReader

Listened = Callable[[], tuple[int, int]]


class HumanKeys:
    """Fed with every message of the human's; ``held`` and ``pedal`` say what is down. What it returns are clean actions, which
    everybody else follows: the model, the phrase detector, the recording.

    ``listened``: the lowest and the highest key that counts, by now. A key is released as it was struck, wherever the range has
    moved meanwhile. Safe from any thread; who must not see a change before what follows from it holds the player's lock.
    """

    def __init__(self, listened: Listened = lambda: (0, PITCHES - 1)) -> None:
        self._listened = listened
        self._reader = MessageReader()
        self._lock = threading.Lock()
        self._held: frozenset[int] = frozenset()  # replaced, never changed: readers take no lock
        self._pedal = False

    @property
    def held(self) -> frozenset[int]:
        """Keys that are down, of those that are listened to."""
        return self._held

    @property
    def pedal(self) -> bool:
        """Whether the sustain pedal is down."""
        return self._pedal

    def feed(self, time: float, message: Sequence[int]) -> list[Timed]:
        """One raw message; returns what it changed."""
        with self._lock:
            return [one for one in self._reader.feed(time, message) if self._take(one)]

    def take(self, one: Timed) -> bool:
        """An action, where there are no messages; returns whether it counts."""
        with self._lock:
            return self._take(one)

    def release_all(self, time: float) -> list[Timed]:
        """The hands are gone, or what they hold is to be forgotten: returns the releases."""
        with self._lock:
            self._reader.close(time)
            actions = [*(NOTE_OFF + pitch for pitch in sorted(self._held)), *([SUSTAIN_UP] if self._pedal else [])]
            self._held, self._pedal = frozenset(), False
            return [Timed(time, action) for action in actions]

    def _take(self, one: Timed) -> bool:
        if one.action < NOTE_OFF:
            pitch = one.action - NOTE_ON
            low, high = sorted(self._listened())
            if low <= pitch <= high:
                self._held |= {pitch}
            return low <= pitch <= high
        if one.action < NOTE_OFF + PITCHES:
            pitch = one.action - NOTE_OFF
            was = pitch in self._held
            self._held -= {pitch}
            return was
        self._pedal = one.action == SUSTAIN_DOWN
        return True
