"""What sounds after each event: the keys held and the pedal, each with its age.

The model reads these ages beside the event itself, so it never has to search its memory for the keys it holds; the
same table says which actions are legal next.
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
MAX_AGE = 2000  # steps; older counts as this old


class Sounding:
    """Follows one event at a time. ``since[key]`` is the step a key (or the pedal) went down at, -1 while it is up."""

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


def ages_of(events: np.ndarray, first: int = 0) -> np.ndarray:
    """``Sounding.ages`` after each of events[first:], in bulk. ``events`` is [n, 3] -> [n - first, AGES] int16."""
    steps = np.cumsum(events[:, 0], dtype=np.int64)
    action = events[:, 1].astype(np.int64)
    subject = np.where(action < SUSTAIN_DOWN, action % PITCHES, PEDAL)  # the key (or pedal) an event is about
    about = action < REST
    down = (action < NOTE_OFF) | (action == SUSTAIN_DOWN)
    start = np.zeros(AGES, np.int64)  # 1 + index of the last event about each key; 0 = none
    before = np.flatnonzero(about[:first])
    start[subject[before]] = before + 1
    last = np.zeros((len(events) - first, AGES), np.int64)
    after = np.flatnonzero(about[first:])
    last[after, subject[first + after]] = first + after + 1
    if len(last):
        last[0] = np.maximum(last[0], start)
        np.maximum.accumulate(last, axis=0, out=last)
    held = (last > 0) & down[last - 1]
    age = np.minimum(steps[first:, None] - steps[last - 1], MAX_AGE)
    return np.where(held, age, -1).astype(np.int16)


def legal_actions(ages: np.ndarray) -> np.ndarray:
    """Which actions can follow: [..., AGES] -> [..., ACTIONS] bool. ``REST`` is left legal: it depends on the wait."""
    held = ages >= 0
    legal = np.zeros((*ages.shape[:-1], ACTIONS), bool)
    legal[..., :NOTE_OFF] = ~held[..., :PITCHES]
    legal[..., NOTE_OFF:SUSTAIN_DOWN] = held[..., :PITCHES]
    legal[..., SUSTAIN_DOWN] = ~held[..., PEDAL]
    legal[..., SUSTAIN_UP] = held[..., PEDAL]
    legal[..., [REST, END]] = True
    return legal


__all__ = ["AGES", "MAX_AGE", "MAX_WAIT", "PEDAL", "START", "Sounding", "ages_of", "legal_actions"]
