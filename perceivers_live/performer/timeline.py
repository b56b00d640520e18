"""One history of what really sounded, human and machine, on the engine's 10 ms grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.codec import spell, surplus, to_step
from engine.engine import Engine
from engine.events import NO_VELOCITY, NOTE_OFF, STEPS_PER_SECOND, SUSTAIN_DOWN, Event, Timed, subject, velocity_bin


class Place(NamedTuple):
    """Where an action is in the history. One that changes nothing is left out of it, and has its predecessor's place."""

    position: int
    step: int


class Timeline:
    """Ties the engine's steps to monotonic seconds. Everything up to ``floor`` has sounded; what lies after it is a plan."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.origin: float | None = None  # time of step 0, None before anything was heard
        self.floor = 0  # position

    def time(self, step: int) -> float:
        return (self.origin or 0.0) + step / STEPS_PER_SECOND

    def step(self, time: float) -> int:
        return to_step(time - (self.origin or 0.0))

    def begin(self, now: float) -> None:
        """Time runs from here on, if nothing was heard before; a silence up to here that is too long is shortened."""
        if self.origin is None:
            self.origin = now - self.engine.step / STEPS_PER_SECOND
        self.origin += surplus(self.step(now) - self.engine.step) / STEPS_PER_SECOND

    def resume(self, newest: float) -> None:
        """The engine was put into another state, all of which sounded; its newest event was at ``newest``."""
        self.origin, self.floor = newest - self.engine.step / STEPS_PER_SECOND, self.engine.position

    def absorb(self, actions: Sequence[Timed]) -> None:
        """What sounded, in time order: see ``spell``."""
        self.take(self.spell(actions)[0])

    def spell(self, actions: Sequence[Timed]) -> tuple[list[Event], list[Place]]:
        """The events that tell of these actions, which are in time order, after the newest event, and each action's place then.
        What seems to have been earlier than the newest event counts as at the same moment. What changes nothing is left out: the
        release of a key that is up, and the pedal's second foot. A silence that is too long is shortened.
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
                events += spell(at - step, one.action, velocity_bin(one.velocity) if one.action < NOTE_OFF else NO_VELOCITY)
                step = at
            places.append(Place(position + len(events), step))
        return events, places

    def take(self, events: Sequence[Event], floor: int | None = None) -> None:
        """Appends what ``spell`` made; up to position ``floor`` (None: all of it) it has sounded."""
        self.floor = self.engine.position + len(events) if floor is None else floor
        self.engine.absorb(events)  # which has them in its history even if its runtime fails

    def rewind(self, position: int) -> None:
        """Back to a position, or to ``floor`` if that came later."""
        if max(position, self.floor) < self.engine.position:
            self.engine.rewind(max(position, self.floor))

    def forget(self) -> None:
        self.origin, self.floor = None, 0
        self.engine.forget()
