"""What is heard of a reply, in the quantities that the controls ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from benchmarks.faults import faults
from benchmarks.likeness import Passage, passage
from engine.events import PITCHES, Timed
from perceivers_live.commands.pianoroll import Note
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.phrases import PhraseDetector

COLLAPSES = ("few keys", "figure repeated", "silence", "held chord")  # faults of a control that is turned too far
FEW = 6  # keys of a narrow register
SPRAY = 25.0  # notes a second for a whole second: more than two hands play
HARMONY = 2.0  # seconds before an end whose pitch classes are its harmony
Heard = dict[str, float]


def rate_of(timed: Sequence[Timed]) -> float:
    """Notes a second, long pauses left out: as the machine measures a call. NaN for less than a second of music."""
    detector = PhraseDetector(PhraseSettings())
    for one in timed:
        detector.feed(one)
    return detector.rate or float("nan")


def most_held(notes: Sequence[Note]) -> int:
    """The most notes that are held at one moment."""
    changes = sorted([(note.start, 1) for note in notes] + [(note.end, -1) for note in notes])
    return int(np.max(np.cumsum([change for _, change in changes]), initial=0))


def _busiest(onsets: np.ndarray) -> float:
    """The most onsets within a second."""
    return float(np.max(np.searchsorted(onsets, onsets + 1.0) - np.arange(len(onsets)), initial=0))


def heard(timed: Sequence[Timed]) -> Heard:
    """Rate (notes a second), mean and spread of velocities, length from the first note to the last release, median note length
    and gap (seconds), lowest and highest key, most notes held, the most notes within a second.
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
    """Whether a reply is a trill, a spray, or silence, where the call was not. ``keys``: size of the register. In a register of
    at most ``FEW`` keys, notes on few keys are not a fault.
    """
    if not reply:
        return True
    ours = passage(reply)
    if len(ours.notes) == 0:
        return True
    spray = _busiest(ours.onsets) > max(SPRAY, 2 * _busiest(passage(call).onsets) if call else 0.0)
    unwanted = set(COLLAPSES) - ({"few keys"} if keys <= FEW else set())
    return spray or bool(call and unwanted & set(faults(ours, passage(call))))


def chord_spread(music: Passage) -> float:
    """Mean seconds from the first to the last onset of a chord; NaN without chords of several notes."""
    spreads = [chord[-1].start - chord[0].start for chord in music.chords() if len(chord) > 1]
    return float(np.mean(spreads)) if spreads else float("nan")


def ending(timed: Sequence[Timed], before: float | None = None) -> Heard:
    """How a passage ends, up to its last onset not after ``before``.

    ``hold``: length of the last chord's longest note in median gaps between onsets. ``on harmony``: share of the last chord's
    notes whose pitch class is among the four that sounded longest in the ``HARMONY`` seconds before. ``pedal after``: seconds
    from the last release of a key to the pedal's; negative: the pedal came up first.
    """
    whole = passage(timed) if timed else Passage((), (), 0.0)
    cut = math.inf if before is None else before - timed[0].time
    music = Passage([note for note in whole.notes if note.start <= cut], whole.pedal, whole.seconds)
    if len(music.notes) < 4:
        return {}
    last = music.chords()[-1]
    end = max(note.end for note in music.notes)
    gaps = [b - a for a, b in pairwise(chord[0].start for chord in music.chords()[-9:])]
    profile = np.zeros(12)
    for note in music.notes:
        if note.start < last[0].start and note.end > last[0].start - HARMONY:
            profile[note.pitch % 12] += min(note.end, last[0].start) - max(note.start, last[0].start - HARMONY)
    tops = np.argsort(profile)[-4:] if profile.any() else np.arange(12)
    pedal = [up for _, up in music.pedal]
    return {
        "hold": max(note.end - note.start for note in last) / max(float(np.median(gaps)), 0.02),
        "on harmony": float(np.mean([note.pitch % 12 in tops for note in last])),
        "pedal after": max(pedal) - end if pedal and max(pedal) > last[0].start else float("nan"),
    }
