"""Measures the properties of a reply that the controls set: note rate, velocity, length, range, polyphony; and how it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from benchmarks.faults import faults
from benchmarks.likeness import Passage, passage
from engine.events import PITCHES, Timed
from perceivers_live.commands.piano_roll import Note
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.phrases import PhraseDetector

COLLAPSES = ("few keys", "figure repeated", "silence", "held chord")  # faults that extreme values of a control cause
NARROW_REGISTER = 6  # keys
SPRAY = 25.0  # notes within one second; more than two hands play
HARMONY_SECONDS = 2.0  # before the last chord; the pitch classes that sound in this time are the harmony
Heard = dict[str, float]


def rate_of(timed: Sequence[Timed]) -> float:
    """Notes per second without long pauses, as the machine measures it for a call. NaN for less than a second of music."""
    detector = PhraseDetector(PhraseSettings())
    for action in timed:
        detector.feed(action)
    return detector.rate or float("nan")


def most_held(notes: Sequence[Note]) -> int:
    """The largest number of notes held at the same time."""
    changes = sorted([(note.start, 1) for note in notes] + [(note.end, -1) for note in notes])
    return int(np.max(np.cumsum([change for _, change in changes]), initial=0))


def _busiest(onsets: np.ndarray) -> float:
    """The largest number of onsets within one second."""
    return float(np.max(np.searchsorted(onsets, onsets + 1.0) - np.arange(len(onsets)), initial=0))


def heard(timed: Sequence[Timed]) -> Heard:
    """Measures a call or a reply: notes per second, mean and standard deviation of the velocities, seconds from the first note to
    the last release, median note length and median gap between onsets in seconds, lowest and highest key, largest number of notes
    held at the same time and within one second. Empty without notes.
    """
    if not timed:
        return {}
    music = passage(timed)
    velocities = np.array([note.velocity for note in music.notes], float)
    if not len(velocities):
        return {}
    return {
        "notes": float(len(velocities)),
        "rate": rate_of(timed),
        "velocity": float(velocities.mean()),
        "spread": float(velocities.std()),
        "seconds": max(note.end for note in music.notes),
        "note length": float(np.median(music.lengths)),
        "gap": float(np.median(music.gaps())) if len(music.chords()) > 1 else float("nan"),
        "low": float(music.pitches.min()),
        "high": float(music.pitches.max()),
        "held": float(most_held(music.notes)),
        "busiest second": _busiest(music.onsets),
    }


def collapsed(reply: Sequence[Timed], call: Sequence[Timed], keys: int = PITCHES) -> bool:
    """Whether a reply is a trill, a spray of notes or silence, and the call is not. ``keys``: size of the register. In a register
    of at most ``NARROW_REGISTER`` keys, notes on few keys are not a fault.
    """
    if not reply:
        return True
    music = passage(reply)
    if len(music.notes) == 0:
        return True
    spray = _busiest(music.onsets) > max(SPRAY, 2 * _busiest(passage(call).onsets) if call else 0.0)
    collapses = set(COLLAPSES) - ({"few keys"} if keys <= NARROW_REGISTER else set())
    return spray or bool(call and collapses & set(faults(music, passage(call))))


def chord_spread(music: Passage) -> float:
    """Mean time from the first to the last onset of a chord, in seconds; NaN if no chord has several notes."""
    spreads = [chord[-1].start - chord[0].start for chord in music.chords() if len(chord) > 1]
    return float(np.mean(spreads)) if spreads else float("nan")


def ending(timed: Sequence[Timed], before: float | None = None) -> Heard:
    """Measures the end of a passage; onsets after ``before`` (seconds) are left out. Empty for fewer than four notes.

    ``hold``: length of the last chord's longest note divided by the median gap between onsets. ``on harmony``: share of the last
    chord's notes whose pitch class is among the four that sounded longest in the ``HARMONY_SECONDS`` before it. ``pedal after``:
    seconds from the last release of a key to the last pedal-up, with ``before`` to the first one after the last
    chord began; negative if the pedal came up first; NaN if there is none.
    """
    whole = passage(timed) if timed else Passage((), (), 0.0)
    limit = math.inf if before is None else before - timed[0].time
    music = Passage([note for note in whole.notes if note.start <= limit], whole.pedal, whole.seconds)
    if len(music.notes) < 4:
        return {}
    last = music.chords()[-1]
    end = max(note.end for note in music.notes)
    gaps = [b - a for a, b in pairwise(chord[0].start for chord in music.chords()[-9:])]
    profile = np.zeros(12)
    for note in music.notes:
        if note.start < last[0].start and note.end > last[0].start - HARMONY_SECONDS:
            profile[note.pitch % 12] += min(note.end, last[0].start) - max(note.start, last[0].start - HARMONY_SECONDS)
    harmony = np.argsort(profile)[-4:] if profile.any() else np.arange(12)
    ups = [up for _, up in music.pedal if up > last[0].start]
    pedal = (max(ups) if before is None else min(ups)) if ups else float("nan")
    return {
        "hold": max(note.end - note.start for note in last) / max(float(np.median(gaps)), 0.02),
        "on harmony": float(np.mean([note.pitch % 12 in harmony for note in last])),
        "pedal after": pedal - end,
    }
