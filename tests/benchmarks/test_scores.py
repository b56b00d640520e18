"""Scores: 0 for replies as far away as another piece, 1 for those as near as the real continuation, linear in between."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.likeness import MEASURES, Passage
from benchmarks.scores import Distances, measure, resampled, score
from perceivers_live.commands.piano_roll import Note

CALLS = 24


def piece(seed: int, moment: int) -> Passage:
    """Random notes with the scale, register, rate, note length, velocity and pedal of piece ``seed``."""
    style, rng = np.random.default_rng(seed), np.random.default_rng((seed, moment))
    low, scale = int(style.integers(36, 72)), style.choice(24, 5, replace=False)
    gap, length, velocity, pedal = style.uniform(0.1, 0.5), style.uniform(0.05, 1), style.uniform(30, 100), style.uniform(0, 12)
    notes = [
        Note(i * gap, min(i * gap + length, 12.0), low + int(rng.choice(scale)), int(velocity + rng.integers(-5, 6)))
        for i in range(int(12 / gap))
    ]
    return Passage(notes, ((0.0, float(pedal)),), 12.0)


CALL, REAL, OTHER = ([piece(seed + offset, moment) for seed in range(CALLS)] for offset, moment in ((0, 0), (0, 1), (1000, 1)))


def scores(replies: list[Passage]) -> dict[str, np.ndarray]:
    return resampled(measure(CALL, range(CALLS), replies, REAL))


def test_the_real_continuation_scores_one_in_every_measure() -> None:
    found = scores(REAL)
    assert [*found] == [*MEASURES, "mean"]
    for values in found.values():
        assert values == pytest.approx(1)


def test_another_piece_scores_about_zero_and_a_mixture_about_half() -> None:
    nothing = score(scores(OTHER)["mean"])
    assert nothing.low < 0.15 and abs(nothing.value) < 0.3  # noqa: PT018
    mixed = score(scores([*REAL[: CALLS // 2], *OTHER[CALLS // 2 :]])["mean"])
    assert nothing.value + 0.2 < mixed.value < 0.8
    assert mixed.low < mixed.value < mixed.high


def test_an_empty_reply_counts_as_another_piece() -> None:
    found = measure(CALL, range(CALLS), [Passage([], (), 12.0)] * CALLS, REAL)
    assert found["key"].reply == pytest.approx(found["key"].other)


def test_the_floor_is_measured_with_other_pieces_only() -> None:
    pieces = [i // 2 for i in range(CALLS)]  # two calls of each
    twice = [CALL[i - i % 2] for i in range(CALLS)]
    found = measure(twice, pieces, twice, twice)
    assert (found["register"].real == 0).all()
    assert found["register"].other.min() > 0.5


def test_apart_states_whether_a_measure_distinguishes_pieces() -> None:
    found = measure(CALL, range(CALLS), REAL, REAL)
    assert found["loudness"].apart > 0.9
    shuffled = measure(CALL, range(CALLS), REAL, OTHER)
    assert 0.3 < shuffled["loudness"].apart < 0.7


def test_scores_over_one_count_as_one_in_the_mean() -> None:
    ones = np.ones(4)
    found = resampled({"key": Distances(0 * ones, 2 * ones, ones), "register": Distances(2 * ones, 2 * ones, ones)})
    assert found["key"][0] == 2
    assert found["mean"] == pytest.approx(0.5)
