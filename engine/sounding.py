"""The keys and the pedal that are down after each event, each with its age.

The ages are inputs of the model beside the event, so that attention does not have to infer which keys are held. They also
determine which actions are legal next.
"""

from __future__ import annotations

import numpy as np

from engine.events import (
    ACTIONS,
    NOTE_OFF,
    PITCHES,
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

    @staticmethod
    def of(step: int, ages: np.ndarray) -> Sounding:
        """What is down at a step, from its ages: [AGES]. Ages that were clipped remain clipped."""
        sounding = Sounding()
        sounding.step, sounding.since = step, np.where(ages < 0, -1, step - ages.astype(np.int64))
        return sounding

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

    def down(self) -> np.ndarray:
        """[AGES] bool: which keys are down, and the pedal."""
        down: np.ndarray = self.since >= 0
        return down

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

    events [n, 3] -> [len(rows), AGES] int16.
    """
    rows = np.arange(len(events)) if rows is None else rows
    steps = np.cumsum(events[:, 0], dtype=np.int64)
    return ages_after(events[:, 1], steps, rows + 1, steps[rows])


def ages_after(actions: np.ndarray, steps: np.ndarray, counts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """``Sounding.ages`` after the first ``counts`` actions, at step ``times``: [R, AGES] int16.

    actions and their steps [n]; counts [R] (ascending) and times [R]. Only what is down is computed, from each note-on (or
    pedal-down) to the next action about the same key.
    """
    ages = np.full((len(counts), AGES), -1, np.int16)
    n = int(counts[-1]) if len(counts) else 0
    key = subjects(actions[:n])
    by_key = np.argsort(key, kind="stable")  # a radix sort, because these are bytes
    key = key[by_key]
    ends = np.flatnonzero(key[1:] != key[:-1])  # of a key's actions
    until = np.append(by_key[1:], n)  # index of the next action about the same key
    until[ends] = n
    down = presses(actions[:n])[by_key]
    action, until, key = by_key[down], until[down], key[down]
    row_at = np.bincount(counts, minlength=n + 1)
    np.cumsum(row_at, out=row_at)  # of an action's index: the first row after that action
    first, last = row_at[action], row_at[until]
    seen = np.flatnonzero(first < last)
    first, length = first[seen], last[seen] - first[seen]
    row = np.arange(length.sum()) + np.repeat(first - np.cumsum(length) + length, length)
    since = np.repeat(steps[action[seen]], length)
    ages[row, np.repeat(key[seen], length)] = np.minimum(times[row] - since, MAX_AGE)
    return ages


def subjects(actions: np.ndarray) -> np.ndarray:
    """The key (or ``PEDAL``, or ``PEDAL + 1``: none) that each action is about, as bytes."""
    return np.where(actions < SUSTAIN_DOWN, actions & (PITCHES - 1), PEDAL + (actions > SUSTAIN_UP)).astype(np.uint8)


def presses(actions: np.ndarray) -> np.ndarray:
    """Which actions put a key or the pedal down."""
    down: np.ndarray = (actions < NOTE_OFF) | (actions == SUSTAIN_DOWN)
    return down


def legal_actions(down: np.ndarray) -> np.ndarray:
    """Which actions can follow when these keys and this pedal are down: [..., AGES] bool -> [..., ACTIONS] bool. ``REST`` is
    always legal here: it depends on the wait.
    """
    legal = np.ones((*down.shape[:-1], ACTIONS), bool)
    legal[..., :NOTE_OFF] = ~down[..., :PITCHES]
    legal[..., NOTE_OFF:SUSTAIN_DOWN] = down[..., :PITCHES]
    legal[..., SUSTAIN_DOWN] = ~down[..., PEDAL]
    legal[..., SUSTAIN_UP] = down[..., PEDAL]
    legal[..., START] = False
    return legal
