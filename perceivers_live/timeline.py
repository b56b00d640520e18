"""One history of what really sounded, human and machine, on the engine's 10 ms grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.codec import spell, to_step
from engine.engine import Engine
from engine.events import NO_VELOCITY, NOTE_OFF, PITCHES, STEPS_PER_SECOND, SUSTAIN_DOWN, Timed, velocity_bin
from engine.sounding import PEDAL

LONGEST_SILENCE = 500  # steps; a longer one in the history is shortened to this


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
        surplus = self.step(now) - self.engine.step - LONGEST_SILENCE
        if surplus > 0:
            self.origin += surplus / STEPS_PER_SECOND

    def resume(self, newest: float) -> None:
        """The engine was put into another state, all of which sounded; its newest event was at ``newest``."""
        self.origin, self.floor = newest - self.engine.step / STEPS_PER_SECOND, self.engine.position

    def absorb(self, actions: Sequence[Timed]) -> None:
        """What sounded, in time order. What seems to have been earlier than the newest event counts as at the same moment. What
        changes nothing is left out: the release of a key that is up, and the pedal's second foot.
        """
        events = []
        step = self.engine.step
        down = set(np.flatnonzero(self.engine.sounding.since >= 0).tolist())  # keys and pedal
        for one in actions:
            subject = one.action % PITCHES if one.action < SUSTAIN_DOWN else PEDAL
            presses = one.action < NOTE_OFF or one.action == SUSTAIN_DOWN
            if one.action >= NOTE_OFF and presses == (subject in down):
                continue
            (down.add if presses else down.discard)(subject)
            if self.origin is None:
                self.origin = one.time - step / STEPS_PER_SECOND
            at = max(step, self.step(one.time))
            if at - step > LONGEST_SILENCE:
                self.origin += (at - step - LONGEST_SILENCE) / STEPS_PER_SECOND
                at = step + LONGEST_SILENCE
            events += spell(at - step, one.action, velocity_bin(one.velocity) if one.action < NOTE_OFF else NO_VELOCITY)
            step = at
        self.floor = self.engine.position + len(events)  # the engine has them in its history even if its runtime fails
        self.engine.absorb(events)

    def rewind(self, position: int | None) -> None:
        """Back to the last event of the plan that sounded, or to ``floor``, whichever came later."""
        if position is not None and max(position, self.floor) < self.engine.position:
            self.engine.rewind(max(position, self.floor))

    def forget(self) -> None:
        self.origin, self.floor = None, 0
        self.engine.forget()
