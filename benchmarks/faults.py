"""Faults of a reply: what a pianist would call broken. Each is judged relative to the call: what the call does as well is not a
fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from benchmarks.likeness import CHORD, GRID, Passage

STALL = 2.5  # seconds without a new note
STUCK = 4.0  # seconds that a key is down
WINDOW = 3.0  # seconds
SOUNDING = 0.3  # share of a window in which keys or pedal are down
STRETCH = 24  # notes in a row
FEW_KEYS = {1: 10, 2: 18, 3: 20}  # number of keys -> notes of a stretch on them; more is a fault
FIGURE = 8  # longest figure in notes
REPEATED = 12  # consecutive notes that equal those one figure earlier
MORE = 1.25  # times the value of the call
BREATH = 0.3  # seconds, and this many times the call's median gap, between two onsets
BREATH_FACTOR = 3.0
BREATHS = 2  # pauses in a call, if the reply has none
BUSY = 2.0  # seconds of a window in which notes are counted
RUSH = 2.0  # times the notes of the call's busiest window
THIN = 4.0  # the last third has this many times fewer notes than the sparsest third of the call


def _longest_gap(one: Passage) -> tuple[float, float]:
    """The longest time without a new note, up to the end of the passage: begin and end in seconds."""
    marks = [chord[0].start for chord in one.chords()] or [0.0]
    return max(zip(marks, [*marks[1:], one.seconds], strict=True), key=lambda gap: gap[1] - gap[0])


def _stalls(reply: Passage, call: Passage) -> tuple[bool, bool]:
    """Whether no new note comes for a long time, and whether keys or pedal are down for most of it."""
    begin, end = _longest_gap(reply)
    usual = float(np.max(call.gaps(), initial=0.0))
    sounding = max((min(note.end, end) for note in reply.notes if note.start <= begin + CHORD), default=begin) - begin
    return end - begin > max(STALL, 2 * usual), sounding > (end - begin) / 2


def held_chord(reply: Passage, call: Passage) -> bool:
    """Keys are held while no new note comes for a long time."""
    return _stalls(reply, call) == (True, True)


def silence(reply: Passage, call: Passage) -> bool:
    """No key is held and no new note comes for a long time."""
    return _stalls(reply, call) == (True, False)


def stuck_key(reply: Passage, call: Passage) -> bool:
    """A key is held far longer than any of the call's."""
    return bool(np.max(reply.lengths, initial=0.0) > max(STUCK, 2 * np.max(call.lengths, initial=0.0)))


def _least_sound(one: Passage) -> float:
    """The smallest share of any ``WINDOW`` in which a key or the pedal is down."""
    moments = np.arange(GRID / 2, one.seconds, GRID)
    down = [(note.start, note.end) for note in one.notes] + list(one.pedal)
    sounds = np.zeros(len(moments), bool)
    for begin, end in down:
        sounds |= (moments >= begin) & (moments < end)
    size = min(round(WINDOW / GRID), len(moments))
    return float(np.convolve(sounds, np.full(size, 1 / size), "valid").min())


def scattered(reply: Passage, call: Passage) -> bool:
    """For some seconds hardly anything sounds but short notes, and pauses are longer than they."""
    return _least_sound(reply) < min(SOUNDING, _least_sound(call) / MORE)


def _on_few_keys(one: Passage, keys: int) -> int:
    """The largest number of notes of any ``STRETCH`` on its ``keys`` most frequent keys."""
    pitches = one.pitches
    stretches = [pitches[i : i + STRETCH] for i in range(max(len(pitches) - STRETCH, 0) + 1)]
    return max(int(np.sort(np.bincount(stretch, minlength=keys))[-keys:].sum()) for stretch in stretches)


def few_keys(reply: Passage, call: Passage) -> bool:
    """Endless repeated notes, trills or chords."""
    return any(_on_few_keys(reply, keys) > max(most, MORE * _on_few_keys(call, keys)) for keys, most in FEW_KEYS.items())


def _repeated(one: Passage) -> int:
    """The most consecutive notes that equal those one figure earlier, for figures of up to ``FIGURE`` notes."""
    pitches, most = one.pitches, 0
    for size in range(1, FIGURE + 1):
        count = 0
        for same in pitches[size:] == pitches[:-size]:
            count = count + 1 if same else 0
            most = max(most, count)
    return most


def figure_repeated(reply: Passage, call: Passage) -> bool:
    """A figure is repeated over and over, note by note."""
    return _repeated(reply) > max(REPEATED, MORE * _repeated(call))


def breathless(reply: Passage, call: Passage) -> bool:
    """No pause at all, where the call had some."""
    breath = max(BREATH, BREATH_FACTOR * float(np.median(call.gaps()))) if len(call.notes) > 1 else np.inf
    return int(np.sum(call.gaps() >= breath)) >= BREATHS and not (reply.gaps() >= breath).any()


def _busiest(one: Passage) -> int:
    onsets = one.onsets
    return int(np.max(np.searchsorted(onsets, onsets + BUSY) - np.arange(len(onsets)), initial=0))


def rush(reply: Passage, call: Passage) -> bool:
    """Far more notes at once than the call ever had."""
    return _busiest(reply) > RUSH * _busiest(call)


def thin(reply: Passage, call: Passage) -> bool:
    """Hardly any notes in the last third."""
    last, sparsest = (np.histogram(one.onsets, 3, (0, one.seconds))[0] / one.seconds for one in (reply, call))
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
    """The names of a reply's faults. A reply without notes has all faults that an empty one can have."""
    return [name for name, found in FAULTS.items() if found(reply, call)]
