"""The longest shared n-gram equals that of an exhaustive comparison, also with hash collisions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tqdm")

import itertools

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP
from trainer import copying
from trainer.copying import Match, NgramIndex
from trainer.data import Actions

Strikes = list[tuple[int, int]]  # (10 ms step, pitch)


def actions(strikes: Strikes, *, semitones: int = 0, later: float = 0.0) -> Actions:
    """A performance with these strikes, and note-offs and pedal events in between."""
    rows = [(step / 100 + later, NOTE_ON + pitch + semitones, 64) for step, pitch in strikes]
    rows += [(step / 100 + later + 0.004, NOTE_OFF + pitch + semitones, 0) for step, pitch in strikes]
    rows += [(step / 100 + later + 0.001, SUSTAIN_DOWN if i % 2 else SUSTAIN_UP, 0) for i, (step, _) in enumerate(strikes)]
    rows.sort(key=lambda row: row[0])
    return Actions(*(np.array([row[i] for row in rows], kind) for i, kind in enumerate((np.float64, np.int64, np.int64))))


def melody(count: int, *, seed: int) -> Strikes:
    rng = np.random.default_rng(seed)
    return list(zip(np.cumsum(rng.integers(1, 60, count)).tolist(), rng.integers(21, 105, count).tolist(), strict=True))


def gram(strikes: Strikes, begin: int, n: int) -> tuple[list[int], list[int]]:
    part = sorted(strikes)[begin : begin + n]
    pitches = [pitch for _, pitch in part]
    waits = [min(round((b[0] - a[0]) / 5), 40) for a, b in itertools.pairwise(part)]
    return pitches, waits


def exhaustive_match(pieces: list[Strikes], clip: Strikes) -> Match:
    for n in range(len(clip), 0, -1):
        for begin in range(len(clip) - n + 1):
            wanted = gram(clip, begin, n)
            for number, piece in enumerate(pieces):
                for position in range(len(piece) - n + 1):
                    if gram(piece, position, n) == wanted:
                        return Match(n, number, position, begin)
    return Match()


few = st.lists(st.tuples(st.sampled_from([0, 1, 3, 8, 300]), st.sampled_from([60, 61, 62])), max_size=9).map(
    lambda rows: [(int(step), pitch) for step, (_, pitch) in zip(np.cumsum([gap for gap, _ in rows]), rows, strict=True)]
)


@pytest.mark.parametrize("bits", [64, 3])
@settings(deadline=None, max_examples=80)
@given(pieces=st.lists(few, max_size=4), clips=st.lists(few, max_size=4))
def test_longest_equals_an_exhaustive_comparison(bits: int, pieces: list[Strikes], clips: list[Strikes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "HASH_BITS", bits)  # with 3 bits nearly every hit is a collision
        index = NgramIndex([actions(piece) for piece in pieces])
        found = index.longest([actions(clip) for clip in clips])
    assert found == [exhaustive_match(pieces, clip) for clip in clips]


def test_an_excerpt_is_found_with_its_length_and_position() -> None:
    pieces = [melody(count, seed=seed) for seed, count in enumerate((80, 0, 300, 120))]
    index = NgramIndex(actions(piece) for piece in pieces)
    clips = [actions(pieces[2][37:251]), actions(pieces[3][:1]), actions(pieces[0]), actions(melody(50, seed=9))]
    found = index.longest(clips)
    assert found[0] == Match(214, 2, 37, 0)
    assert found[1].notes == 1
    assert found[2] == Match(80, 0, 0, 0)
    assert found[3].notes < 4


def test_a_copy_inside_other_music_is_found() -> None:
    piece = melody(200, seed=1)
    around = melody(40, seed=2)
    shift = around[-1][0] + 7 - piece[100][0]
    clip = around + [(step + shift, pitch) for step, pitch in piece[100:130]]
    assert NgramIndex([actions(piece)]).longest([actions(clip)]) == [Match(30, 0, 100, 40)]


def test_a_match_does_not_span_two_pieces() -> None:
    piece = melody(100, seed=3)
    index = NgramIndex([actions(piece[:60]), actions(piece[60:])])
    assert index.longest([actions(piece)]) == [Match(60, 0, 0, 0)]


def test_a_transposed_copy_is_not_found() -> None:
    piece = melody(100, seed=4)
    index, clip = NgramIndex([actions(piece)]), actions(piece[10:90], semitones=3)
    assert index.longest([clip])[0].notes < 5


def test_the_order_within_a_chord_does_not_matter() -> None:
    piece = [(0, 60), (50, 64), (50, 67), (50, 72), (100, 60)]
    clip = [(0, 60), (50, 72), (50, 64), (50, 67), (100, 60)]
    assert NgramIndex([actions(piece)]).longest([actions(clip)]) == [Match(5, 0, 0, 0)]


@pytest.mark.parametrize(
    ("gap", "other", "same"), [(10, 12, True), (10, 13, False), (0, 2, True), (200, 900, True), (190, 200, False)]
)
def test_times_between_onsets_are_compared_in_bins_of_50_ms(gap: int, other: int, same: bool) -> None:
    index = NgramIndex([actions([(0, 60), (gap, 62)])])
    assert index.longest([actions([(0, 60), (other, 62)])])[0].notes == (2 if same else 1)


def test_an_offset_of_whole_steps_changes_nothing() -> None:
    piece = melody(150, seed=5)
    assert NgramIndex([actions(piece)]).longest([actions(piece, later=12.34)])[0].notes == 150


def test_empty_training_sets_and_empty_clips_have_no_match() -> None:
    empty, clip = actions([]), actions(melody(10, seed=6))
    assert NgramIndex([]).longest([clip, empty]) == [Match(), Match()]
    assert NgramIndex([empty, empty]).longest([clip, empty]) == [Match(), Match()]
    assert NgramIndex([clip]).longest([empty, clip]) == [Match(), Match(10, 0, 0, 0)]
    assert NgramIndex([clip]).longest([]) == []


def test_searching_many_clips_equals_searching_each_alone() -> None:
    piece = melody(400, seed=7)
    index = NgramIndex([actions(piece)])
    clips = [actions(piece[i : i + 5 + 13 * i]) for i in range(12)]
    assert index.longest(clips) == [index.longest([clip])[0] for clip in clips]
