"""Scores from distances: 0 = the continuation of another piece, 1 = the real continuation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.likeness import MEASURES, Passage, distances, look

RESAMPLES = 2000
INTERVAL = (0.025, 0.975)


@dataclasses.dataclass(frozen=True)
class Distances:
    """Distances from each call by one measure, [n]: to the machine's reply; to the continuations of other pieces, as a mean; and
    to the real continuation. ``apart``: probability that the real continuation is nearer than that of another piece; chance is
    0.5.
    """

    reply: np.ndarray
    other: np.ndarray
    real: np.ndarray
    apart: float = float("nan")


@dataclasses.dataclass(frozen=True)
class Score:
    """A score with the limits of its 95 % interval (bootstrap over the calls)."""

    value: float
    low: float
    high: float


def measure(
    calls: Sequence[Passage], pieces: Sequence[int], replies: Sequence[Passage], real: Sequence[Passage]
) -> dict[str, Distances]:
    """The distances for each measure. ``pieces``: the piece of each call; ``real``: the real continuations. A reply without notes
    gets the distance of another piece.
    """
    call_vectors, reply_vectors, real_vectors = look(calls, "call"), look(replies, "reply"), look(real, "reply")
    other = np.not_equal.outer(pieces, pieces)
    found = {}
    for name in MEASURES:
        to_real = distances(call_vectors[name], real_vectors[name])
        floor = np.array([row[columns].mean() for row, columns in zip(to_real, other, strict=True)])
        own = np.diag(to_real)
        nearer = [np.mean(np.sign(row[columns] - row[i])) for i, (row, columns) in enumerate(zip(to_real, other, strict=True))]
        reply = np.abs(call_vectors[name] - reply_vectors[name]).mean(-1)
        reply = np.where(np.isfinite(reply), reply, floor)
        found[name] = Distances(reply, floor, own, float(np.mean(nearer) / 2 + 0.5))
    return found


def resampled(measured: Mapping[str, Distances], seed: int = 0) -> dict[str, np.ndarray]:
    """Scores for each measure and, as ``mean``, their weighted mean: [1 + RESAMPLES]. The first score is that of all calls, the
    others are those of bootstrap resamples.

    In the mean, scores are clipped at 1, because being nearer to the call than the real continuation is not better. The score is
    NaN if the real continuation is not nearer than other pieces; the calls are then too few or too similar.
    """
    count = len(next(iter(measured.values())).reply)
    resamples = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    counts = np.concatenate((np.ones((1, count), np.int64), resamples))
    drawn = {
        name: _ratio(counts @ (found.other - found.reply), counts @ (found.other - found.real))
        for name, found in measured.items()
    }
    scores = np.minimum(np.array(list(drawn.values())), 1)
    weights = np.array([[MEASURES[name].weight] for name in measured]) * np.isfinite(scores)
    drawn["mean"] = _ratio((weights * np.nan_to_num(scores)).sum(0), weights.sum(0))
    return drawn


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 1e-9)
    return ratio


def score(drawn: np.ndarray) -> Score:
    """The score of all calls, with the interval of the resampled scores; ``drawn`` is from ``resampled``."""
    kept = drawn[1:][np.isfinite(drawn[1:])]
    low, high = np.quantile(kept, INTERVAL) if len(kept) else (np.nan, np.nan)
    return Score(float(drawn[0]), float(low), float(high))
