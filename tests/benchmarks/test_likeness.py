"""Distances between synthetic passages with known differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from benchmarks.likeness import MEASURES, Passage, distances, look, passage
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.commands.piano_roll import Note

SECONDS = 12.0


def melody(
    pitches: Sequence[int] = (60, 64, 67, 72), *, gap: float = 0.25, length: float = 0.2, velocity: int = 64, chord: int = 1
) -> Passage:
    """Evenly spaced notes that repeat ``pitches``, each as a chord of ``chord`` octaves."""
    count = round(SECONDS / gap)
    notes = [
        Note(i * gap, i * gap + length, pitches[i % len(pitches)] + 12 * voice, velocity)
        for i in range(count)
        for voice in range(chord)
    ]
    return Passage(notes, (), SECONDS)


def pedalled(*pedal: tuple[float, float]) -> Passage:
    return Passage(melody().notes, pedal, SECONDS)


def distance(name: str, call: Passage, reply: Passage) -> float:
    return float(distances(look([call], "call")[name], look([reply], "reply")[name])[0, 0])


@pytest.mark.parametrize("name", MEASURES)
def test_the_distance_of_a_passage_from_itself_is_zero(name: str) -> None:
    assert distance(name, melody(), melody()) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("key", lambda: melody((61, 66, 68, 70)), 1.0),
        ("note lengths", lambda: melody(length=0.1), 1.0),
        ("inter-onset", lambda: melody(gap=0.5), 1.0),
        ("register", lambda: melody((67, 71, 74, 79)), 7.0),
        ("texture", lambda: melody(chord=3), 1.6),
        ("loudness", lambda: melody(velocity=84), 20.0),
        ("pedal", lambda: pedalled((0.0, 6.0)), 0.30),
        ("repetition", lambda: melody(range(40, 88)), 0.47),
        ("melodic intervals", lambda: melody((60, 61)), 1.0),
        ("rate, first third", lambda: melody(gap=0.5), 0.96),
        ("rate, last third", lambda: melody(gap=0.5), 0.96),
    ],
)
def test_each_measure_gives_the_difference_in_its_unit(name: str, other: Callable[[], Passage], expected: float) -> None:
    assert distance(name, melody(), other()) == pytest.approx(expected, rel=0.05)


def test_a_measure_ignores_other_properties() -> None:
    assert distance("key", melody(), melody((72, 76, 79, 84), gap=0.5, velocity=20)) == pytest.approx(0, abs=0.05)
    assert distance("loudness", melody(), melody((30, 31), gap=0.1)) == pytest.approx(0)
    assert distance("melodic intervals", melody(), melody((65, 69, 72, 77), length=0.02)) == pytest.approx(0)


def test_the_key_is_compared_at_the_end_of_the_call_and_the_start_of_the_reply() -> None:
    low, high = melody((60, 64, 67)), melody((61, 66, 68))
    turn = SECONDS / 2
    modulating = Passage(
        [*low.within(0, turn).notes, *(Note(n.start, n.end, n.pitch, 64) for n in high.notes if n.start >= turn)], (), SECONDS
    )
    assert distance("key", modulating, high) == pytest.approx(0, abs=0.02)
    assert distance("key", high, modulating) == pytest.approx(1, abs=0.02)


def test_a_reply_that_dies_away_differs_in_the_rate_of_the_last_third() -> None:
    dying = Passage([note for note in melody().notes if note.start < 8], (), SECONDS)
    assert distance("rate, first third", melody(), dying) < 0.1
    assert distance("rate, last third", melody(), dying) > 4


def test_a_passage_begins_with_its_first_note_and_is_cut_at_its_end() -> None:
    timed = [
        Timed(9.0, SUSTAIN_DOWN),
        Timed(10.0, NOTE_ON + 60, 70),
        Timed(10.5, SUSTAIN_UP),
        Timed(13.0, NOTE_OFF + 60),
        Timed(13.5, NOTE_ON + 62, 70),
        Timed(14.0, NOTE_OFF + 62),
    ]
    made = passage(timed, 2.0)
    assert made.notes == [Note(0.0, 2.0, 60, 70)]
    assert made.pedal == [(0.0, 0.5)]
    assert passage(timed).seconds == 4.0
    assert len(passage(timed).notes) == 2


def test_distances_from_a_passage_without_notes_are_nan() -> None:
    nothing = passage([], 5.0)
    for name in ("key", "note lengths", "register", "loudness", "repetition"):
        assert np.isnan(distance(name, melody(), nothing))


def test_onsets_close_together_are_one_chord() -> None:
    rolled = Passage([Note(0.0, 1, 60, 64), Note(0.02, 1, 64, 64), Note(0.04, 1, 67, 64), Note(1.0, 2, 60, 64)], (), 2.0)
    assert [len(chord) for chord in rolled.chords()] == [2, 1, 1]
    assert rolled.gaps() == pytest.approx([0.04, 0.96])
