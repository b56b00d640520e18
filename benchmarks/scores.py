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
    """Distances of each call by one measure, [n]: to the reply, to the continuations of other pieces (their mean), and to the
    real continuation. ``apart``: how often the real continuation is nearer than another piece's; 0.5 is chance.
    """

    reply: np.ndarray
    other: np.ndarray
    real: np.ndarray
    apart: float = float("nan")


@dataclasses.dataclass(frozen=True)
class Score:
    """A score with its 95 % interval, by resampling calls."""

    value: float
    low: float
    high: float


def measure(
    calls: Sequence[Passage], pieces: Sequence[int], replies: Sequence[Passage], real: Sequence[Passage]
) -> dict[str, Distances]:
    """Distances by measure. ``pieces``: the piece of each call. Replies without notes get the distance of another piece."""
    theirs, ours, ceiling = look(calls, "call"), look(replies, "reply"), look(real, "reply")
    other = np.not_equal.outer(pieces, pieces)
    found = {}
    for name in MEASURES:
        apart = distances(theirs[name], ceiling[name])
        floor = np.array([row[columns].mean() for row, columns in zip(apart, other, strict=True)])
        own = np.diag(apart)
        nearer = [np.mean(np.sign(row[columns] - row[i])) for i, (row, columns) in enumerate(zip(apart, other, strict=True))]
        reply = np.abs(theirs[name] - ours[name]).mean(-1)
        reply = np.where(np.isfinite(reply), reply, floor)
        found[name] = Distances(reply, floor, own, float(np.mean(nearer) / 2 + 0.5))
    return found


def resampled(measured: Mapping[str, Distances], seed: int = 0) -> dict[str, np.ndarray]:
    """Scores by measure and, last, their weighted ``mean``: [1 + RESAMPLES]; the first is the score of all calls, without
    resampling.

    In the mean, scores are clipped at 1: being nearer to the call than the real continuation is not better. A measure by which
    the real continuation is not nearer than other pieces has no score: NaN. The calls are then too few or too similar.
    """
    count = len(next(iter(measured.values())).reply)
    taken = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    taken = np.concatenate((np.ones((1, count), np.int64), taken))
    drawn = {name: _ratio(taken @ (one.other - one.reply), taken @ (one.other - one.real)) for name, one in measured.items()}
    scores = np.minimum(np.array(list(drawn.values())), 1)
    weights = np.array([[MEASURES[name].weight] for name in measured]) * np.isfinite(scores)
    drawn["mean"] = _ratio((weights * np.nan_to_num(scores)).sum(0), weights.sum(0))
    return drawn


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 1e-9)
    return ratio


def score(drawn: np.ndarray) -> Score:
    """The first value, with the interval of the others."""
    kept = drawn[1:][np.isfinite(drawn[1:])]
    low, high = np.quantile(kept, INTERVAL) if len(kept) else (np.nan, np.nan)
    return Score(float(drawn[0]), float(low), float(high))
