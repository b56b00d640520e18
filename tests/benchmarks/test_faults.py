"""Faults are found in replies that have them, but not in faultless replies, nor if the call has the same fault."""

from __future__ import annotations

import pytest

from benchmarks.faults import FAULTS, faults
from benchmarks.likeness import Passage
from perceivers_live.commands.piano_roll import Note

SECONDS = 12.0
TUNE = (60, 64, 67, 62, 65, 69, 71, 72, 59, 67, 74, 76, 55)


def even(first: float = 0.0, last: float = SECONDS, *, gap: float = 0.25, length: float = 0.22) -> list[Note]:
    times = [first + i * gap for i in range(round((last - first) / gap))]
    return [Note(time, time + length, TUNE[(i * 5 + i * i // 3) % len(TUNE)], 64) for i, time in enumerate(times)]


def made(*notes: Note, pedal: tuple[tuple[float, float], ...] = ()) -> Passage:
    return Passage(sorted(notes, key=lambda note: (note.start, note.pitch)), pedal, SECONDS)


def chord(first: float, last: float, *pitches: int) -> list[Note]:
    return [Note(first, last, pitch, 64) for pitch in pitches]


FINE = made(*even())
BREATHING = made(*even(0, 3), *even(4, 7.5), *even(8.5, 12))
TRILL = made(*(Note(i * 0.2, i * 0.2 + 0.15, 60 + 2 * (i % 2), 64) for i in range(30)), *even(6, 12))
DRONE = made(*(Note(i * 0.4 + 0.2, i * 0.4 + 0.5, 36, 64) for i in range(20)), *even(gap=0.4))
CHORDS = made(*(note for i in range(10) for note in chord(i * 0.5, i * 0.5 + 0.4, 60, 64, 67)), *even(5, 12))
ALBERTI = made(*(Note(i * 0.2, i * 0.2 + 0.2, (60, 67, 64, 67, 72)[i % 5], 64) for i in range(60)))
HELD = made(*even(0, 5), *chord(5.0, 10, 60, 64, 67), *even(10, 12))
SILENT = made(*even(0, 5), *even(9, 12))
STUCK = made(Note(1.0, 9.0, 40, 64), *even())
DRY = made(*even(0, 6), *even(6, 12, gap=1.2, length=0.08))
RUSH = made(*even(0, 6), *even(6, 12, gap=0.05, length=0.05))
THIN = made(*even(0, 8), *even(8, 12, gap=2.0, length=1.9))


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("held chord", HELD),
        ("silence", SILENT),
        ("stuck key", STUCK),
        ("scattered notes", DRY),
        ("few keys", TRILL),
        ("few keys", DRONE),
        ("few keys", CHORDS),
        ("figure repeated", ALBERTI),
        ("rush", RUSH),
        ("thin", THIN),
    ],
)
def test_a_fault_is_found_unless_the_call_has_it_too(name: str, reply: Passage) -> None:
    assert name in faults(reply, FINE)
    assert name not in faults(reply, reply)


def test_a_reply_without_pauses_to_a_call_with_pauses_is_breathless() -> None:
    assert faults(FINE, BREATHING) == ["breathless"]
    assert not faults(BREATHING, BREATHING)


def test_faultless_music_has_no_faults() -> None:
    assert not faults(FINE, FINE)
    assert "silence" not in faults(made(*even(0, 5), *even(9, 12), *chord(5.0, 9.0, 60)), FINE)


def test_short_notes_under_the_pedal_are_not_scattered() -> None:
    assert "scattered notes" not in faults(made(*DRY.notes, pedal=((5.0, 12.0),)), FINE)


def test_an_empty_reply_is_a_fault() -> None:
    assert "silence" in faults(Passage([], (), SECONDS), FINE)


def test_every_fault_is_described() -> None:
    assert all(found.__doc__ for found in FAULTS.values())
