"""Distances between two passages of piano music, one for each measure; 0: equal.

A measure maps a passage to a short vector. The distance between two passages is the mean absolute difference of their vectors.
For a property of single notes, such as their lengths, the vector has quantiles of its distribution; the distance is then the
earth mover's distance between the two distributions, in the unit of the measure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from engine.events import Timed
from perceivers_live.commands.piano_roll import Note, notes_of

CHORD = 0.03  # seconds: onsets closer than this belong to one chord
KEY_SECONDS = 6.0  # at the end of a call and at the start of a reply; the key is compared within them
MAX_LENGTH = 1.0  # seconds; longer notes count as this long in the key profile
QUANTILES = np.arange(0.5, 16) / 16
GRID = 0.05  # seconds; interval at which the held keys are sampled
MAX_INTERVAL = 12  # semitones; wider melodic intervals count as this wide
REPEAT_TIMES = (0.5, 1.0, 2.0, 4.0)  # seconds; a note on the same pitch within this time is a repetition
THIRDS = 3


@dataclasses.dataclass(frozen=True)
class Passage:
    """Notes in order of their onsets, and the (down, up) times of the pedal; all times are in seconds within 0..``seconds``."""

    notes: Sequence[Note]
    pedal: Sequence[tuple[float, float]]
    seconds: float

    @property
    def onsets(self) -> np.ndarray:
        """Onsets in seconds, [n]."""
        return np.array([note.start for note in self.notes])

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the notes, without the pedal, in seconds, [n]."""
        return np.array([note.end - note.start for note in self.notes])

    @property
    def pitches(self) -> np.ndarray:
        """MIDI key numbers, [n]."""
        return np.array([note.pitch for note in self.notes], np.int64)

    def chords(self) -> list[list[Note]]:
        """The notes, grouped into chords: notes that start within ``CHORD`` seconds of the chord's first."""
        chords: list[list[Note]] = []
        for note in self.notes:
            if chords and note.start - chords[-1][0].start < CHORD:
                chords[-1].append(note)
            else:
                chords.append([note])
        return chords

    def gaps(self) -> np.ndarray:
        """Seconds from each chord to the next, [chords - 1]."""
        return np.diff([chord[0].start for chord in self.chords()])

    def within(self, begin: float, end: float) -> Passage:
        """The part between two times in seconds, with times relative to ``begin``. Notes and pedal are cut at both ends."""
        notes = [
            dataclasses.replace(note, start=max(note.start - begin, 0.0), end=min(note.end, end) - begin)
            for note in self.notes
            if note.start < end and note.end > begin
        ]
        pedal = [(max(down - begin, 0.0), min(up, end) - begin) for down, up in self.pedal if down < end and up > begin]
        return Passage(notes, pedal, end - begin)


def passage(timed: Sequence[Timed], seconds: float | None = None) -> Passage:
    """The passage that starts with the first note: its first ``seconds``, or all of it. Without notes it is empty."""
    notes, pedal = notes_of(timed)
    begin = notes[0].start if notes else 0.0
    seconds = timed[-1].time - begin if seconds is None else seconds
    return Passage(notes, pedal, begin + seconds).within(begin, begin + seconds)


def _quantiles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, QUANTILES) if len(values) else np.full(len(QUANTILES), np.nan)


def _key_profile(music: Passage) -> np.ndarray:
    weight = np.minimum(music.lengths, MAX_LENGTH)
    profile = np.bincount(music.pitches % 12, weight, 12) if len(music.notes) else np.full(12, np.nan)
    shares: np.ndarray = profile / max(profile.sum(), 1e-9)
    return shares * 6  # scaled so that the distance is half the sum of differences: 0..1


def _texture(music: Passage) -> np.ndarray:
    moments = np.arange(GRID / 2, music.seconds, GRID)
    held = sum((moments >= note.start) & (moments < note.end) for note in music.notes)
    return _quantiles(np.asarray(held, float) * np.ones(len(moments)))


def _pedal(music: Passage) -> np.ndarray:
    """The share of time with the pedal down, and the rate of pedal presses on a logarithmic scale."""
    share = sum(up - down for down, up in music.pedal) / music.seconds
    return np.array([share, np.log2(0.5 + 2 * len(music.pedal) / music.seconds) / 4])


def _repetition(music: Passage) -> np.ndarray:
    """The shares of notes whose pitch was struck within the ``REPEAT_TIMES`` before."""
    onsets, pitches = music.onsets, music.pitches
    since = np.array(
        [
            np.min(onset - onsets[:i][pitches[:i] == pitch], initial=np.inf)
            for i, (onset, pitch) in enumerate(zip(onsets, pitches, strict=True))
        ]
    )
    return np.array([np.mean(since < seconds) if len(since) else np.nan for seconds in REPEAT_TIMES])


def _intervals(music: Passage) -> np.ndarray:
    """The share of each interval between the highest notes of consecutive chords."""
    top = np.array([max(note.pitch for note in chord) for chord in music.chords()], np.int64)
    intervals = np.clip(np.diff(top), -MAX_INTERVAL, MAX_INTERVAL) + MAX_INTERVAL
    count = np.bincount(intervals, minlength=2 * MAX_INTERVAL + 1)
    return count / max(len(intervals), 1) * len(count) / 2


def _octaves(notes: np.ndarray, seconds: float) -> np.ndarray:
    """The logarithm to base 2 of the note rate in a third of the passage; finite for zero notes."""
    return np.log2((notes + 0.5) / (seconds / THIRDS))


def _rates(music: Passage) -> np.ndarray:
    """The note rate of each third."""
    return _octaves(np.histogram(music.onsets, THIRDS, (0, music.seconds))[0], music.seconds)


def _rate(music: Passage) -> np.ndarray:
    """The note rate of the whole passage, repeated for each third."""
    return _octaves(np.full(THIRDS, len(music.notes) / THIRDS), music.seconds)


@dataclasses.dataclass(frozen=True)
class Measure:
    """``call`` maps a call to a vector, ``reply`` maps a reply or continuation to a vector of the same length. ``unit``: of the
    distance. ``weight``: in the mean over the measures.
    """

    unit: str
    call: Callable[[Passage], np.ndarray]
    reply: Callable[[Passage], np.ndarray]
    weight: float = 1.0

    @classmethod
    def of(cls, unit: str, vector: Callable[[Passage], np.ndarray]) -> Measure:
        """A measure that treats calls and replies alike."""
        return cls(unit, vector, vector)


def _third(index: int) -> Measure:
    at = slice(index, index + 1)
    return Measure("octaves", lambda music: _rate(music)[at], lambda music: _rates(music)[at], 1 / THIRDS)


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "key": Measure(
            "of 1",
            lambda music: _key_profile(music.within(max(music.seconds - KEY_SECONDS, 0), music.seconds)),
            lambda music: _key_profile(music.within(0, KEY_SECONDS)),
        ),
        "note lengths": Measure.of("octaves", lambda music: _quantiles(np.log2(np.maximum(music.lengths, 0.01)))),
        "inter-onset": Measure.of("octaves", lambda music: _quantiles(np.log2(np.maximum(music.gaps(), 0.01)))),
        "register": Measure.of("semitones", lambda music: _quantiles(music.pitches)),
        "texture": Measure.of("keys held", _texture),
        "loudness": Measure.of("velocity", lambda music: _quantiles(np.array([note.velocity for note in music.notes]))),
        "pedal": Measure.of("mixed", _pedal),
        "repetition": Measure.of("of 1", _repetition),
        "melodic intervals": Measure.of("of 1", _intervals),
        "rate, first third": _third(0),
        "rate, second third": _third(1),
        "rate, last third": _third(2),
    }
)


def look(passages: Sequence[Passage], side: str) -> dict[str, np.ndarray]:
    """For each measure, the vectors of all passages, [n, size]. ``side``: ``call`` or ``reply``, the function of the measure to
    use.
    """
    return {name: np.array([getattr(measure, side)(music) for music in passages]) for name, measure in MEASURES.items()}


def distances(calls: np.ndarray, replies: np.ndarray) -> np.ndarray:
    """The distance between every call and every reply, [calls, replies], from their vectors [n, size]."""
    result: np.ndarray = np.abs(calls[:, None] - replies).mean(-1)
    return result
