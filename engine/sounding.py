"""The keys and the pedal that are down after each event, each with its age.

The ages are inputs of the model beside the event, so that attention need not find the note-ons of held keys. They also determine
which actions are legal next.
"""

from __future__ import annotations

import numpy as np

from engine.events import (
    ACTIONS,
    END,
    MAX_WAIT,
    NOTE_OFF,
    PITCHES,
    REST,
    START,
    SUSTAIN_DOWN,
    SUSTAIN_UP,
    Event,
)

AGES = PITCHES + 1  # one per key, the pedal last
PEDAL = PITCHES
MAX_AGE = 2000  # steps; greater ages are clipped


class Sounding:
    """Keys and pedal, updated event by event. ``since[key]``: the step at which a key (or the pedal) went down, -1 while it is
    up.
    """

    def __init__(self) -> None:
        self.step = 0
        self.since = np.full(AGES, -1, np.int64)

    def apply(self, event: Event) -> None:
        self.step += event.wait
        if event.action < NOTE_OFF:
            self.since[event.action] = self.step
        elif event.action < SUSTAIN_DOWN:
            self.since[event.action - NOTE_OFF] = -1
        elif event.action == SUSTAIN_DOWN:
            self.since[PEDAL] = self.step
        elif event.action == SUSTAIN_UP:
            self.since[PEDAL] = -1

    def ages(self) -> np.ndarray:
        """[AGES] int16: steps since each key went down, -1 for keys that are up."""
        age = np.minimum(self.step - self.since, MAX_AGE)
        return np.where(self.since < 0, -1, age).astype(np.int16)

    def held(self) -> np.ndarray:
        """Pitches that are down."""
        return np.flatnonzero(self.since[:PITCHES] >= 0)

    @property
    def pedal(self) -> bool:
        return bool(self.since[PEDAL] >= 0)

    def copy(self) -> Sounding:
        other = Sounding()
        other.step, other.since = self.step, self.since.copy()
        return other


def ages_of(events: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """``Sounding.ages`` in bulk, after each of the events whose indices are ``rows`` (ascending; None: after every event).

    events [n, 3] -> [len(rows), AGES] int16. Time and memory grow with the rows, not with all events.
    """
    rows = np.arange(len(events)) if rows is None else rows
    if not len(rows):
        return np.empty((0, AGES), np.int16)
    steps = np.cumsum(events[:, 0], dtype=np.int64)
    action = events[:, 1].astype(np.int64)
    subject = np.where(action < SUSTAIN_DOWN, action % PITCHES, PEDAL)  # the key (or pedal) an event is about
    down = (action < NOTE_OFF) | (action == SUSTAIN_DOWN)
    about = np.flatnonzero(action[: rows[-1] + 1] < REST)
    last = np.zeros((len(rows), AGES), np.int64)  # 1 + index of the last event about each key; 0 = none
    last[np.searchsorted(rows, about), subject[about]] = about + 1  # of several events before one row, the last assignment wins
    np.maximum.accumulate(last, axis=0, out=last)
    held = (last > 0) & down[last - 1]
    age = np.minimum(steps[rows][:, None] - steps[last - 1], MAX_AGE)
    return np.where(held, age, -1).astype(np.int16)


def legal_actions(ages: np.ndarray) -> np.ndarray:
    """Which actions can follow: [..., AGES] -> [..., ACTIONS] bool. ``REST`` is always legal here: it depends on the wait."""
    held = ages >= 0
    legal = np.zeros((*ages.shape[:-1], ACTIONS), bool)
    legal[..., :NOTE_OFF] = ~held[..., :PITCHES]
    legal[..., NOTE_OFF:SUSTAIN_DOWN] = held[..., :PITCHES]
    legal[..., SUSTAIN_DOWN] = ~held[..., PEDAL]
    legal[..., SUSTAIN_UP] = held[..., PEDAL]
    legal[..., [REST, END]] = True
    return legal


__all__ = ["AGES", "MAX_AGE", "MAX_WAIT", "PEDAL", "START", "Sounding", "ages_of", "legal_actions"]
