"""How much generated clips copy from the training set: the longest n-gram of notes that each clip shares with it.

An n-gram is n consecutive notes and the n - 1 times between their onsets, in bins of 50 ms; all times over 2 s share one bin.
Onsets are in whole 10 ms steps, as the model writes them. Notes of one step are sorted by pitch, so the order within a chord does
not matter. A clip cut from a piece must keep its times or be moved by whole steps; otherwise rounding breaks n-grams.

Sharing an n-gram implies sharing an (n - 1)-gram, so n is found by bisection. For one n, rolling polynomial hashes of the whole
training set (Karp and Rabin, 1987, modulo 2**64) are looked up among those of the clips. A hit counts only after the notes
themselves were compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from engine.events import NOTE_OFF, PITCHES, STEPS_PER_SECOND
from trainer.data import Actions

BIN = 5  # 10 ms steps in a bin of inter-onset intervals
BINS = 41  # the last bin: 2 s and more
BORDER = 2 * PITCHES * BINS  # code of the end of a piece; no note has it
HASH_BITS = 64  # tests use fewer, which only causes collisions
TABLE = 2**20  # slots of a filter that rejects most of the training set


@dataclasses.dataclass(frozen=True)
class Match:
    """The longest n-gram of a clip in the training set: its number of notes, the index of the piece, and the index of its first
    note in the piece and in the clip. If nothing is shared, notes is 0 and the rest is -1.
    """

    notes: int = 0
    piece: int = -1
    position: int = -1
    clip_position: int = -1


class Notes(NamedTuple):
    """Notes in order: pitches uint8 [n], and codes uint16 [n] of the interval and the time to the next one, ``BORDER`` for the
    last note.
    """

    pitches: np.ndarray
    codes: np.ndarray


def notes_of(performance: Actions) -> Notes:
    """The note-ons of a performance."""
    on = performance.actions < NOTE_OFF
    pitches = performance.actions[on]
    steps = np.floor(performance.times[on] * STEPS_PER_SECOND + 0.5).astype(np.int64)
    order = np.lexsort((pitches, steps))
    pitches, steps = pitches[order], steps[order]
    waits = np.minimum((np.diff(steps) + BIN // 2) // BIN, BINS - 1)
    codes = np.full(len(pitches), BORDER, np.uint16)
    codes[:-1] = (np.diff(pitches) + PITCHES) * BINS + waits
    return Notes(pitches.astype(np.uint8), codes)


class _Hashed:
    """Notes of one or more pieces, with prefix sums from which the hash of any n-gram follows."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        rng = np.random.default_rng(0)
        values = rng.integers(2**64, size=BORDER + 1, dtype=np.uint64)
        self._pitch_values = rng.integers(2**64, size=PITCHES, dtype=np.uint64)
        base = int(rng.integers(2**63)) * 2 + 1  # odd numbers have an inverse modulo 2**64
        self._sums = np.zeros(len(notes.codes) + 1, np.uint64)  # prefix sums of values times powers
        self._sums[1:] = np.cumsum(values[notes.codes] * _powers(base, len(notes.codes)))
        self._inverses = _powers(pow(base, -1, 2**64), len(notes.codes))

    def hashes(self, n: int) -> np.ndarray:
        """Hashes of the n-grams at each note, uint64 [notes - n + 1]. N-grams across two pieces contain ``BORDER``."""
        count = len(self.notes.codes) - n + 1
        hashes = (self._sums[n - 1 : n - 1 + count] - self._sums[:count]) * self._inverses[:count]
        hashes += self._pitch_values[self.notes.pitches[:count]]
        hashes >>= np.uint64(64 - HASH_BITS)
        return hashes


def _powers(base: int, count: int) -> np.ndarray:
    """1, base, base**2, ... modulo 2**64."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, out=powers)


class NgramIndex:
    """An index of a training set's notes for searching clips. Memory: 20 bytes a note, 60 during a search."""

    def __init__(self, pieces: Iterable[Actions]) -> None:
        notes = [notes_of(piece) for piece in pieces] or [Notes(np.zeros(0, np.uint8), np.zeros(0, np.uint16))]
        self._stops = np.cumsum([len(one.codes) for one in notes])
        self._hashed = _Hashed(Notes(*(np.concatenate(part) for part in zip(*notes, strict=True))))

    def longest(self, clips: Sequence[Actions]) -> list[Match]:
        """The longest n-gram that each clip shares with one piece. If there are several, the first one in the clip, then the
        first one in the training set. A search for many clips takes little longer than for one.
        """
        hashed = [_Hashed(notes_of(clip)) for clip in clips]
        lengths = [len(clip.notes.codes) for clip in hashed]
        matches = [Match()] * len(clips)
        step: int = 2 ** max(lengths, default=0).bit_length()
        while step := step // 2:
            tries: dict[int, list[int]] = {}  # n -> clips to search; one pass over the training set for each n
            for i, (match, length) in enumerate(zip(matches, lengths, strict=True)):
                if match.notes + step <= length:
                    tries.setdefault(match.notes + step, []).append(i)
            for n, members in tries.items():
                found = self._find([hashed[i] for i in members], n)
                for i, one in zip(members, found, strict=True):
                    matches[i] = one or matches[i]
        return matches

    def _find(self, clips: list[_Hashed], n: int) -> list[Match | None]:
        """For each clip, an n-gram that it shares with the training set, or None."""
        if n > len(self._hashed.notes.codes):
            return [None] * len(clips)
        wanted = [clip.hashes(n) for clip in clips]
        hashes = self._hashed.hashes(n)
        table = np.zeros(TABLE, bool)
        table[np.concatenate(wanted) % TABLE] = True
        places = np.flatnonzero(table[hashes % TABLE])
        places = places[np.isin(hashes[places], np.concatenate(wanted))]
        hashes = hashes[places]
        order = np.argsort(hashes, kind="stable")
        places, hashes = places[order], hashes[order]
        found: list[Match | None] = []
        for clip, one in zip(clips, wanted, strict=True):
            first, stop = np.searchsorted(hashes, one), np.searchsorted(hashes, one, side="right")
            hits = ((int(i), int(place)) for i in np.flatnonzero(first < stop) for place in places[first[i] : stop[i]])
            true = (hit for hit in hits if self._same(clip.notes, *hit, n))
            found.append(next((self._match(n, *hit) for hit in true), None))
        return found

    def _same(self, clip: Notes, begin: int, place: int, n: int) -> bool:
        pitches, codes = self._hashed.notes
        here, there = slice(begin, begin + n - 1), slice(place, place + n - 1)
        return bool(clip.pitches[begin] == pitches[place]) and np.array_equal(clip.codes[here], codes[there])

    def _match(self, n: int, begin: int, place: int) -> Match:
        piece = int(np.searchsorted(self._stops, place, side="right"))
        return Match(n, piece, place - int(self._stops[piece - 1] if piece else 0), begin)
