"""A MIDI file -> the arrays that a model learns from: the same actions as in live playing.

``engine.midi_file.to_timed_actions`` converts a file message by message. ``to_actions_fast`` does the same with array operations,
for simple files only, such as those of MAESTRO.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.codec import extend_pedal, shorten_silences
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.keys import PEDAL_DOWN, PEDAL_UP
from engine.midi import ALL_SOUND_OFF, DRUMS, SUSTAIN
from engine.midi_file import closing_time, load, to_timed_actions
from engine.smf import Performance


class Actions(NamedTuple):
    """One performance: times in seconds float64 [n], actions int64 [n], MIDI velocities int64 [n]."""

    times: np.ndarray
    actions: np.ndarray
    velocities: np.ndarray


def parse(path: Path) -> Actions:
    """A MIDI file as clean actions, all channels but the drums merged. Raises ``MidiFileError``."""
    return to_actions(load(path))


def to_actions(performance: Performance) -> Actions:
    """The actions of a file, by the fast way if possible."""
    actions = to_actions_fast(performance)
    return actions_of(to_timed_actions(performance)) if actions is None else actions


def to_actions_fast(performance: Performance) -> Actions | None:
    """The actions of a file that uses one channel (apart from drums), strikes no key that is down, releases every key, and has no
    channel mode messages; None for other files.
    """
    status, first, second = performance.messages.T
    kind, channel = status & 0xF0, status & 0x0F
    music = ((kind <= 0x90) | (kind == 0xB0) & ((first == SUSTAIN) | (first >= ALL_SOUND_OFF))) & (channel != DRUMS)
    kind, channel, first, second = kind[music], channel[music], first[music], second[music]
    control = kind == 0xB0
    if len(first) == 0 or (channel != channel[0]).any() or (first >= 128).any() or (control & (first != SUSTAIN)).any():
        return None
    strike = (kind == 0x90) & (second > 0)
    by_key = np.flatnonzero(~control)[np.argsort(first[~control], kind="stable")]
    begins, ends = by_key[::2], by_key[1::2]
    if len(begins) != len(ends) or not strike[begins].all() or strike[ends].any() or (first[begins] != first[ends]).any():
        return None
    pedal, turned = _pedal(second[control])
    kept, actions = ~control, np.where(strike, NOTE_ON, NOTE_OFF) + first
    kept[np.flatnonzero(control)[turned]] = True
    actions[control] = np.where(pedal, SUSTAIN_DOWN, SUSTAIN_UP)
    last = [SUSTAIN_UP] if len(pedal) and pedal[-1] else []
    times = np.append(performance.times[music][kept], [closing_time(performance)] * len(last))
    velocities = np.append(np.where(strike, second, 0)[kept], [0] * len(last))
    return Actions(times, np.append(actions[kept], last).astype(np.int64), velocities.astype(np.int64))


def _pedal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of CC 64 -> whether the pedal is down after each, and whether each changed that. See ``SustainPedals``."""
    decisive = (values >= PEDAL_DOWN) | (values < PEDAL_UP)
    latest = np.maximum.accumulate(np.where(decisive, np.arange(len(values)), -1))
    down = (latest >= 0) & (values[latest] >= PEDAL_DOWN)
    return down, np.diff(down, prepend=False)


def actions_of(timed: Iterable[Timed]) -> Actions:
    """Timed actions as arrays."""
    timed = list(timed)
    columns = [np.array([one[i] for one in timed]) for i in range(3)]
    return Actions(columns[0].astype(np.float64), columns[1].astype(np.int64), columns[2].astype(np.int64))


def prepare_actions(actions: Actions, pedal: str) -> Actions:
    """Prepares actions for training: the pedal as ``events`` or folded into the notes (``extend``), long silences shortened as in
    live playing.
    """
    if pedal == "extend" and len(actions.times):
        actions = extended(actions)
    return actions._replace(times=shorten_silences(actions.times))


def extended(piece: Actions) -> Actions:
    """Sustain folded into the notes: no pedal actions, notes that last as long as they sound."""
    return actions_of(extend_pedal(Timed(*row) for row in zip(*(part.tolist() for part in piece), strict=True)))
