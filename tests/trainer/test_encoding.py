"""Events encoded by index equal those of the whole encoded performance."""

from __future__ import annotations

import numpy as np
import pytest

from engine.codec import encode_arrays, shorten_silences
from engine.sounding import ages_of
from tests.music import improvise_timed

pytest.importorskip("tqdm")  # a dependency of the trainer

from trainer.encoding import EncodedPiece
from trainer.reading import Actions, actions_of


def performance(count: int, seed: int, speed: float = 1.0) -> Actions:
    piece = actions_of(improvise_timed(count, seed=seed))
    return piece._replace(times=piece.times * speed)


@pytest.mark.parametrize(("count", "speed"), [(2, 1.0), (300, 1.0), (300, 10.0), (2000, 0.3)])
def test_events_ages_and_times_equal_those_of_the_whole_performance(count: int, speed: float) -> None:
    for seed in range(5):
        piece = performance(count, seed, speed)
        events = encode_arrays(shorten_silences(piece.times), piece.actions, piece.velocities, end=True)
        encoded, chance = EncodedPiece(piece), np.random.default_rng(seed)
        assert len(encoded) == len(events)
        some = np.sort(chance.choice(len(events), int(chance.integers(1, len(events) + 1)), replace=False))
        for rows in (np.arange(len(events)), some, some[:0]):
            found, ages, times = encoded.at(rows)
            assert np.array_equal(found, events[rows])
            assert np.array_equal(ages, ages_of(events, rows))
            assert np.array_equal(times, np.cumsum(events[:, 0], dtype=np.int64)[rows])
