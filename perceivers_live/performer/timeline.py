"""The history of what sounded, of human and machine, on the engine's 10 ms grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.codec import events_after_gap, surplus, to_step
from engine.engine import Engine
from engine.events import NO_VELOCITY, NOTE_OFF, STEPS_PER_SECOND, SUSTAIN_DOWN, Event, Timed, subject, velocity_bin


class Place(NamedTuple):
    """An action's place in the history. An action that changes nothing is omitted, and has the place of its predecessor."""

    position: int
    step: int


class Timeline:
    """Converts between the engine's steps and monotonic seconds. Events up to position ``floor`` have sounded."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.origin: float | None = None  # time of step 0; None before the first action
        self.floor = 0  # position of the last event that is final

    def time(self, step: int) -> float:
        """Monotonic seconds of a step."""
        return (self.origin or 0.0) + step / STEPS_PER_SECOND

    def step(self, time: float) -> int:
        """The nearest step to a time in monotonic seconds."""
        return to_step(time - (self.origin or 0.0))

    def quantized(self, time: float) -> float:
        """The time of the step nearest to ``time``."""
        return time if self.origin is None else self.time(self.step(time))

    def begin(self, now: float) -> None:
        """Starts the time axis at ``now`` if there is none. Shortens a silence before ``now`` that is too long."""
        if self.origin is None:
            self.origin = now - self.engine.step / STEPS_PER_SECOND
        self.origin += surplus(self.step(now) - self.engine.step) / STEPS_PER_SECOND

    def resume(self, newest: float) -> None:
        """Continues from a restored state of the engine. All of it has sounded; its newest event was at ``newest``."""
        self.origin, self.floor = newest - self.engine.step / STEPS_PER_SECOND, self.engine.position

    def absorb(self, actions: Sequence[Timed]) -> None:
        """Appends actions that sounded, in time order (see ``encode``)."""
        self.append(self.encode(actions)[0])

    def encode(self, actions: Sequence[Timed]) -> tuple[list[Event], list[Place]]:
        """Converts actions, in time order, to events after the newest event; returns these and each action's place.

        Actions before the newest event get its time. Actions that change nothing are omitted: the release of a key that is up,
        and the pedal going down or up again. A silence that is too long is shortened.
        """
        events: list[Event] = []
        places = []
        position, step = self.engine.position, self.engine.step
        down = set(np.flatnonzero(self.engine.sounding.since >= 0).tolist())  # keys and pedal
        for one in actions:
            about, presses = subject(one.action), one.action < NOTE_OFF or one.action == SUSTAIN_DOWN
            if one.action < NOTE_OFF or presses != (about in down):
                (down.add if presses else down.discard)(about)
                if self.origin is None:
                    self.origin = one.time - step / STEPS_PER_SECOND
                at = max(step, self.step(one.time))
                if left_out := surplus(at - step):
                    self.origin += left_out / STEPS_PER_SECOND
                    at -= left_out
                events += events_after_gap(
                    at - step, one.action, velocity_bin(one.velocity) if one.action < NOTE_OFF else NO_VELOCITY
                )
                step = at
            places.append(Place(position + len(events), step))
        return events, places

    def append(self, events: Sequence[Event], floor: int | None = None) -> None:
        """Appends the events from ``encode``. Those up to position ``floor`` (None: all) have sounded."""
        self.floor = self.engine.position + len(events) if floor is None else floor
        self.engine.absorb(events)  # after a runtime failure they are in its history, too

    def rewind(self, position: int) -> None:
        """Drops the events after ``position``, but none up to ``floor``."""
        if max(position, self.floor) < self.engine.position:
            self.engine.rewind(max(position, self.floor))

    def forget(self) -> None:
        """Clears the history and the time axis."""
        self.origin, self.floor = None, 0
        self.engine.forget()
