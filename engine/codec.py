"""Timed actions <-> performance events, as lists and as arrays.

Times are quantized as absolute times, never as differences: errors stay within half a step and do not add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from engine.events import (
    END,
    MAX_WAIT,
    NO_VELOCITY,
    NOTE_OFF,
    NOTE_ON,
    PITCHES,
    REST,
    START,
    START_EVENT,
    STEPS_PER_SECOND,
    SUSTAIN_DOWN,
    SUSTAIN_UP,
    Event,
    Timed,
    bin_velocity,
    velocity_bin,
)

LONGEST_SILENCE = 500  # steps; longer ones are shortened to this in the history, live and in training
Steps = TypeVar("Steps", int, np.ndarray)


def to_step(seconds: float) -> int:
    """Nearest 10 ms step of an absolute time."""
    return math.floor(seconds * STEPS_PER_SECOND + 0.5)


def surplus(gap: Steps) -> Steps:
    """By how much a silence of ``gap`` steps is shortened in the history; also for arrays."""
    left_out: Steps = (gap > LONGEST_SILENCE) * (gap - LONGEST_SILENCE)
    return left_out


def shorten_silences(times: np.ndarray) -> np.ndarray:
    """Ascending times in seconds [n] with long silences shortened to ``LONGEST_SILENCE``, as in the history of live playing."""
    if len(times) == 0:
        return times
    steps = np.floor((times - times[0]) * STEPS_PER_SECOND + 0.5).astype(np.int64)
    return np.asarray(times - np.cumsum(surplus(np.diff(steps, prepend=0))) / STEPS_PER_SECOND)


def events_after_gap(gap: int, action: int, velocity: int = NO_VELOCITY) -> list[Event]:
    """The event that is ``gap`` steps after the previous one, preceded by rests if the gap exceeds ``MAX_WAIT``."""
    rests = max(0, gap - 1) // MAX_WAIT
    return [Event(MAX_WAIT, REST)] * rests + [Event(gap - rests * MAX_WAIT, action, velocity)]


def encode(timed: Iterable[Timed], *, end: bool = False) -> list[Event]:
    """Encodes a whole performance: ``START``, its events and, with ``end``, ``END``.

    The first action defines step 0 (leading silence is left out). An action with an earlier time than its predecessor gets the
    predecessor's time.
    """
    events, last, origin = [START_EVENT], 0, None
    for one in timed:
        origin = one.time if origin is None else origin
        step = max(last, to_step(one.time - origin))
        velocity = velocity_bin(one.velocity) if one.action < NOTE_OFF else NO_VELOCITY
        events += events_after_gap(step - last, one.action, velocity)
        last = step
    if end:
        events.append(Event(0, END))
    return events


def encode_arrays(times: np.ndarray, actions: np.ndarray, velocities: np.ndarray, *, end: bool = False) -> np.ndarray:
    """``encode`` for arrays: times in seconds [n], actions [n], MIDI velocities [n] -> events [m, 3] int16."""
    if len(times) == 0:
        return np.array([START_EVENT] + [Event(0, END)] * end, np.int16)
    steps = np.floor((times - times[0]) * STEPS_PER_SECOND + 0.5).astype(np.int64)
    steps = np.maximum.accumulate(np.maximum(steps, 0))
    gaps = np.diff(steps, prepend=0)
    rests = np.maximum(gaps - 1, 0) // MAX_WAIT
    index = np.arange(len(steps)) + np.cumsum(rests) + 1  # after START
    events = np.empty((index[-1] + 1 + end, 3), np.int16)
    events[:] = (MAX_WAIT, REST, NO_VELOCITY)
    events[0] = START_EVENT
    events[index, 0] = gaps - rests * MAX_WAIT
    events[index, 1] = actions
    events[index, 2] = np.where(actions < NOTE_OFF, np.clip(velocities, 1, 127) // 4, NO_VELOCITY)
    if end:
        events[-1] = (0, END, NO_VELOCITY)
    return events


def decode(events: Iterable[Event], origin: float = 0.0) -> Iterator[Timed]:
    """Events -> timed actions. Rests, START and END give no action; their waits count."""
    step = 0
    for event in events:
        step += event.wait
        if event.action not in (REST, START, END):
            velocity = bin_velocity(event.velocity) if event.is_note_on else 0
            yield Timed(origin + step / STEPS_PER_SECOND, event.action, velocity)


def extend_pedal(timed: Iterable[Timed]) -> Iterator[Timed]:
    """Replaces the sustain pedal by longer notes (``pedal = "extend"``): a note-off under the pedal moves to the pedal's release
    or to the next note-on of the same pitch.
    """
    pedal = False
    deferred: dict[int, None] = {}  # pitches released under the pedal, in order
    last = 0.0
    for one in timed:
        last = one.time
        if one.action == SUSTAIN_DOWN:
            pedal = True
        elif one.action == SUSTAIN_UP:
            pedal = False
            yield from (Timed(one.time, NOTE_OFF + pitch) for pitch in deferred)
            deferred.clear()
        elif NOTE_OFF <= one.action < NOTE_OFF + PITCHES and pedal:
            deferred[one.action - NOTE_OFF] = None
        else:
            pitch = one.action - NOTE_ON
            if one.action < NOTE_OFF and pitch in deferred:
                del deferred[pitch]
                yield Timed(one.time, NOTE_OFF + pitch)
            yield one
    yield from (Timed(last, NOTE_OFF + pitch) for pitch in deferred)


def tokens_388(events: np.ndarray) -> int:
    """Number of tokens of the same music in the 388-token vocabulary: note-on 128, note-off 128, time shift 100, velocity 32
    (only when the bin changes). A pedal event counts as one token. ``events`` is [n, 3].
    """
    wait, action, velocity = events.T
    played = velocity[action < NOTE_OFF]
    changes = np.count_nonzero(np.diff(played, prepend=-1))
    return int(np.count_nonzero(wait > 0) + np.count_nonzero((action != REST) & (action != START) & (action != END)) + changes)
