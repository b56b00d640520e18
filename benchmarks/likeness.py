"""Distances between two passages of piano music, one for each measure; 0 = equal.

A measure maps a passage to a short vector; the distance of two passages is the mean absolute difference of their vectors. For a
measure of single notes, such as their lengths, the vector consists of quantiles. The distance is then the earth mover's distance
of the two distributions, in the unit of the measure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from engine.events import Timed
from perceivers_live.commands.pianoroll import Note, notes_of

CHORD = 0.03  # seconds: onsets closer than this belong to one chord
NEAR = 6.0  # seconds at the end of a call and at the start of a reply whose keys are compared
LONGEST = 1.0  # seconds; longer notes count as this long in the key profile
QUANTILES = np.arange(0.5, 16) / 16
GRID = 0.05  # seconds between samples of the held keys
WIDEST = 12  # semitones: wider melodic steps count as this wide
AGO = (0.5, 1.0, 2.0, 4.0)  # seconds within which a pitch counts as repeated
THIRDS = 3


@dataclasses.dataclass(frozen=True)
class Passage:
    """Notes in the order of their starts, and the pedal's (down, up) times, all in seconds within 0..``seconds``."""

    notes: Sequence[Note]
    pedal: Sequence[tuple[float, float]]
    seconds: float

    @property
    def onsets(self) -> np.ndarray:
        """Onsets in seconds, [n]."""
        return np.array([note.start for note in self.notes])

    @property
    def lengths(self) -> np.ndarray:
        """Times that the keys are down, in seconds, [n]."""
        return np.array([note.end - note.start for note in self.notes])

    @property
    def pitches(self) -> np.ndarray:
        return np.array([note.pitch for note in self.notes], np.int64)

    def chords(self) -> list[list[Note]]:
        """Notes that start together."""
        chords: list[list[Note]] = []
        for note in self.notes:
            if chords and note.start - chords[-1][0].start < CHORD:
                chords[-1].append(note)
            else:
                chords.append([note])
        return chords

    def gaps(self) -> np.ndarray:
        """Seconds from each chord to the next."""
        return np.diff([chord[0].start for chord in self.chords()])

    def within(self, begin: float, end: float) -> Passage:
        """The part between two times, relative to ``begin``; notes are cut at both ends."""
        notes = [
            dataclasses.replace(note, start=max(note.start - begin, 0.0), end=min(note.end, end) - begin)
            for note in self.notes
            if note.start < end and note.end > begin
        ]
        pedal = [(max(down - begin, 0.0), min(up, end) - begin) for down, up in self.pedal if down < end and up > begin]
        return Passage(notes, pedal, end - begin)


def passage(timed: Sequence[Timed], seconds: float | None = None) -> Passage:
    """The passage from the first note on: ``seconds`` of it, or all. Without notes, an empty passage."""
    notes, pedal = notes_of(timed)
    begin = notes[0].start if notes else 0.0
    seconds = timed[-1].time - begin if seconds is None else seconds
    return Passage(notes, pedal, begin + seconds).within(begin, begin + seconds)


def _quantiles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, QUANTILES) if len(values) else np.full(len(QUANTILES), np.nan)


def _key(one: Passage) -> np.ndarray:
    weight = np.minimum(one.lengths, LONGEST)
    profile = np.bincount(one.pitches % 12, weight, 12) if len(one.notes) else np.full(12, np.nan)
    shares: np.ndarray = profile / max(profile.sum(), 1e-9)
    return shares * 6  # scaled so that the distance is half the sum of differences: 0..1


def _texture(one: Passage) -> np.ndarray:
    moments = np.arange(GRID / 2, one.seconds, GRID)
    held = sum((moments >= note.start) & (moments < note.end) for note in one.notes)
    return _quantiles(np.asarray(held, float) * np.ones(len(moments)))


def _pedal(one: Passage) -> np.ndarray:
    """The share of time with the pedal down, and a quarter of its rate of presses on a logarithmic scale (octaves)."""
    share = sum(up - down for down, up in one.pedal) / one.seconds
    return np.array([share, np.log2(0.5 + 2 * len(one.pedal) / one.seconds) / 4])


def _repetition(one: Passage) -> np.ndarray:
    """The share of notes whose pitch was struck within the last half, one, two and four seconds."""
    onsets, pitches = one.onsets, one.pitches
    since = np.array(
        [
            np.min(onset - onsets[:i][pitches[:i] == pitch], initial=np.inf)
            for i, (onset, pitch) in enumerate(zip(onsets, pitches, strict=True))
        ]
    )
    return np.array([np.mean(since < ago) if len(since) else np.nan for ago in AGO])


def _intervals(one: Passage) -> np.ndarray:
    """Melodic steps between the highest notes of the chords: shares of each size."""
    top = np.array([max(note.pitch for note in chord) for chord in one.chords()], np.int64)
    steps = np.clip(np.diff(top), -WIDEST, WIDEST) + WIDEST
    count = np.bincount(steps, minlength=2 * WIDEST + 1)
    return count / max(len(steps), 1) * len(count) / 2


def _octaves(notes: np.ndarray, seconds: float) -> np.ndarray:
    """The rate of notes in a third, on a logarithmic scale (octaves) that includes zero notes."""
    return np.log2((notes + 0.5) / (seconds / THIRDS))


def _rates(one: Passage) -> np.ndarray:
    """Rates of notes in each third."""
    return _octaves(np.histogram(one.onsets, THIRDS, (0, one.seconds))[0], one.seconds)


def _rate(one: Passage) -> np.ndarray:
    """The rate of all notes, repeated for each third."""
    return _octaves(np.full(THIRDS, len(one.notes) / THIRDS), one.seconds)


@dataclasses.dataclass(frozen=True)
class Measure:
    """``call`` maps a call to a vector, ``reply`` the passage after it; both vectors have the same length. ``weight``: weight in
    the mean over the measures.
    """

    unit: str
    call: Callable[[Passage], np.ndarray]
    reply: Callable[[Passage], np.ndarray]
    weight: float = 1.0

    @classmethod
    def of(cls, unit: str, look: Callable[[Passage], np.ndarray]) -> Measure:
        return cls(unit, look, look)


def _third(index: int) -> Measure:
    at = slice(index, index + 1)
    return Measure("octaves", lambda one: _rate(one)[at], lambda one: _rates(one)[at], 1 / THIRDS)


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "key": Measure(
            "of 1", lambda one: _key(one.within(max(one.seconds - NEAR, 0), one.seconds)), lambda one: _key(one.within(0, NEAR))
        ),
        "note lengths": Measure.of("octaves", lambda one: _quantiles(np.log2(np.maximum(one.lengths, 0.01)))),
        "inter-onset": Measure.of("octaves", lambda one: _quantiles(np.log2(np.maximum(one.gaps(), 0.01)))),
        "register": Measure.of("semitones", lambda one: _quantiles(one.pitches)),
        "texture": Measure.of("keys held", _texture),
        "loudness": Measure.of("velocity", lambda one: _quantiles(np.array([note.velocity for note in one.notes]))),
        "pedal": Measure.of("mixed", _pedal),
        "repetition": Measure.of("of 1", _repetition),
        "melodic intervals": Measure.of("of 1", _intervals),
        "rate, first third": _third(0),
        "rate, second third": _third(1),
        "rate, last third": _third(2),
    }
)


def look(passages: Sequence[Passage], side: str) -> dict[str, np.ndarray]:
    """The vectors of all passages by measure, [n, size]; ``side`` is ``call`` or ``reply``."""
    return {name: np.array([getattr(one, side)(music) for music in passages]) for name, one in MEASURES.items()}


def distances(calls: np.ndarray, replies: np.ndarray) -> np.ndarray:
    """Distances [calls, replies] of every call and every reply, from their vectors [n, size]."""
    apart: np.ndarray = np.abs(calls[:, None] - replies).mean(-1)
    return apart
