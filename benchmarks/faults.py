"""Faults of a reply that a pianist would notice. Each is judged relative to the call: if the call does the same, it is not a
fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from benchmarks.likeness import CHORD, GRID, Passage

STALL = 2.5  # seconds without a new note
STUCK = 4.0  # seconds that a key is down
WINDOW = 3.0  # seconds in which the share of sound is measured
SOUNDING = 0.3  # share of a window in which keys or pedal are down
STRETCH = 24  # notes in a row
FEW_KEYS = {1: 10, 2: 18, 3: 20}  # number of keys -> notes on them that a stretch may have
FIGURE = 8  # notes of the longest figure
REPEATED = 12  # consecutive notes that may equal those one figure earlier
MORE = 1.25  # factor by which a reply must exceed the call
BREATH = 0.3  # seconds; a pause is a gap between two onsets of at least this length
BREATH_FACTOR = 3.0  # and of at least this many times the call's median gap
BREATHS = 2  # pauses that a call must have for a reply without pauses to be a fault
BUSY = 2.0  # seconds in which notes are counted
RUSH = 2.0  # factor by which the notes in ``BUSY`` seconds may exceed the call's
THIN = 4.0  # factor by which the rate of the last third may be below that of the call's sparsest third


def _longest_gap(music: Passage) -> tuple[float, float]:
    """The begin and end of the longest time without a new note, in seconds; it may last to the end of the passage."""
    marks = [chord[0].start for chord in music.chords()] or [0.0]
    return max(zip(marks, [*marks[1:], music.seconds], strict=True), key=lambda gap: gap[1] - gap[0])


def _stalls(reply: Passage, call: Passage) -> tuple[bool, bool]:
    """Whether there is a long time without a new note, and whether notes are held for more than half of it."""
    begin, end = _longest_gap(reply)
    longest_in_call = float(np.max(call.gaps(), initial=0.0))
    sounding = max((min(note.end, end) for note in reply.notes if note.start <= begin + CHORD), default=begin) - begin
    return end - begin > max(STALL, 2 * longest_in_call), sounding > (end - begin) / 2


def held_chord(reply: Passage, call: Passage) -> bool:
    """Keys are held for a long time without a new note."""
    return _stalls(reply, call) == (True, True)


def silence(reply: Passage, call: Passage) -> bool:
    """There is no new note for a long time, and no key is held."""
    return _stalls(reply, call) == (True, False)


def stuck_key(reply: Passage, call: Passage) -> bool:
    """A key is held far longer than any key in the call."""
    return bool(np.max(reply.lengths, initial=0.0) > max(STUCK, 2 * np.max(call.lengths, initial=0.0)))


def _least_sound(music: Passage) -> float:
    """The smallest share of any ``WINDOW`` in which a key or the pedal is down."""
    moments = np.arange(GRID / 2, music.seconds, GRID)
    down = [(note.start, note.end) for note in music.notes] + list(music.pedal)
    sounds = np.zeros(len(moments), bool)
    for begin, end in down:
        sounds |= (moments >= begin) & (moments < end)
    size = min(round(WINDOW / GRID), len(moments))
    return float(np.convolve(sounds, np.full(size, 1 / size), "valid").min())


def scattered(reply: Passage, call: Passage) -> bool:
    """For some seconds there are only short notes with longer pauses between them."""
    return _least_sound(reply) < min(SOUNDING, _least_sound(call) / MORE)


def _on_few_keys(music: Passage, keys: int) -> int:
    """The largest number of notes on ``keys`` keys among ``STRETCH`` consecutive notes."""
    pitches = music.pitches
    stretches = [pitches[i : i + STRETCH] for i in range(max(len(pitches) - STRETCH, 0) + 1)]
    return max(int(np.sort(np.bincount(stretch, minlength=keys))[-keys:].sum()) for stretch in stretches)


def few_keys(reply: Passage, call: Passage) -> bool:
    """Many consecutive notes are on a few keys: repeated notes, trills or chords."""
    return any(_on_few_keys(reply, keys) > max(most, MORE * _on_few_keys(call, keys)) for keys, most in FEW_KEYS.items())


def _repeated(music: Passage) -> int:
    """The largest number of consecutive notes that equal those one figure earlier, for figures of up to ``FIGURE`` notes."""
    pitches, most = music.pitches, 0
    for size in range(1, FIGURE + 1):
        count = 0
        for same in pitches[size:] == pitches[:-size]:
            count = count + 1 if same else 0
            most = max(most, count)
    return most


def figure_repeated(reply: Passage, call: Passage) -> bool:
    """A figure is repeated exactly, many times in a row."""
    return _repeated(reply) > max(REPEATED, MORE * _repeated(call))


def breathless(reply: Passage, call: Passage) -> bool:
    """The reply has no pause although the call has at least ``BREATHS``."""
    breath = max(BREATH, BREATH_FACTOR * float(np.median(call.gaps()))) if len(call.notes) > 1 else np.inf
    return int(np.sum(call.gaps() >= breath)) >= BREATHS and not (reply.gaps() >= breath).any()


def _busiest(music: Passage) -> int:
    """The largest number of notes within ``BUSY`` seconds."""
    onsets = music.onsets
    return int(np.max(np.searchsorted(onsets, onsets + BUSY) - np.arange(len(onsets)), initial=0))


def rush(reply: Passage, call: Passage) -> bool:
    """The reply's densest ``BUSY`` seconds have far more notes than the call's."""
    return _busiest(reply) > RUSH * _busiest(call)


def thin(reply: Passage, call: Passage) -> bool:
    """The last third has hardly any notes."""
    last, sparsest = (np.histogram(music.onsets, 3, (0, music.seconds))[0] / music.seconds for music in (reply, call))
    return bool(last[-1] < sparsest.min() / THIN)


FAULTS: Mapping[str, Callable[[Passage, Passage], bool]] = MappingProxyType(
    {
        "held chord": held_chord,
        "silence": silence,
        "stuck key": stuck_key,
        "scattered notes": scattered,
        "few keys": few_keys,
        "figure repeated": figure_repeated,
        "breathless": breathless,
        "rush": rush,
        "thin": thin,
    }
)


def faults(reply: Passage, call: Passage) -> list[str]:
    """The names of a reply's faults."""
    return [name for name, found in FAULTS.items() if found(reply, call)]
