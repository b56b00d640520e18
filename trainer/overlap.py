"""Overlap area and KL divergence of musical features: do generated clips differ from real ones as real ones differ among
themselves?

For every feature, the distances between pairs of real clips and those between real and generated clips make two densities;
their overlap area is 1 and their divergence 0 where generated clips scatter around the real ones as real ones do. Source of
the method: Yang and Lerch, "On the evaluation of generative models in music", 2018 (mgeval); performances have no bars, so
lengths are in seconds and features of bars are left out.

Neither figure means anything alone: each stands beside its ceiling, what one half of the real clips gives against the other,
and an interval from resampling clips (not pairs: pairs share clips, and resampling them would promise too much).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from engine.events import NOTE_OFF, PITCHES, STEPS_PER_SECOND, SUSTAIN_DOWN
from trainer.data import Actions

CHORD = 0.03  # seconds: onsets closer than this belong to one chord
LENGTHS = 2.0 ** np.arange(-5, 3.5, 0.5)  # edges of the bins of note lengths: half octaves, 31 ms to 8 s, open at both ends
FEWEST = 3  # clips in a set, for a feature to have figures
GRID = 257  # points, an odd number, at which densities are compared
FLOOR = 1e-6  # of a density's mass lies evenly over the grid, so that divergences are finite

_NOTHING = np.full(2, np.nan)  # an overlap area and a divergence of nothing


@dataclasses.dataclass(frozen=True)
class Row:
    """Figures of one feature with their 95 % intervals, and what real clips reach among themselves: overlap areas in 0..1, KL
    divergences of the mixed pairs' density from the real pairs' in nats. NaN where too few clips can be compared.
    """

    feature: str
    oa: float
    oa_low: float
    oa_high: float
    kld: float
    kld_low: float
    kld_high: float
    ceiling_oa: float
    ceiling_kld: float


def features(clip: Actions) -> dict[str, np.ndarray]:
    """Feature vectors of a clip by name; NaN for a feature that the clip has too few notes for.

    Histograms are shares of 1, times are seconds, lengths and polyphony those of the keys: a pedal does not lengthen notes.
    A note held at the end has no length, but counts as held until the last action. ``note_rate`` counts notes.
    """
    times, actions, velocities = clip
    on = np.flatnonzero(actions < NOTE_OFF)
    gaps = np.diff(times[on])
    on = on[np.lexsort((actions[on], np.round(times[on] * STEPS_PER_SECOND)))]  # a chord's notes by pitch
    pitches, loudness = actions[on], velocities[on]
    lengths, held = _lengths(clip)
    span = np.ptp(times) if len(times) else 0.0
    return {
        "pitch_classes": _shares(pitches % 12, 12),
        "pitch_class_transitions": _shares(pitches[:-1] % 12 * 12 + pitches[1:] % 12, 144),
        "mean_pitch": _number(np.mean, pitches),
        "pitch_range": _number(np.ptp, pitches),
        "inter_onset": _number(np.mean, gaps[gaps >= CHORD]),
        "note_lengths": _shares(np.searchsorted(LENGTHS, lengths, side="right"), len(LENGTHS) + 1),
        "velocity": _number(np.mean, loudness),
        "velocity_spread": _number(np.std, loudness),
        "polyphony": np.array([held / span if span > 0 else np.nan]),
        "note_rate": np.array([float(len(on))]),
    }


def _lengths(clip: Actions) -> tuple[np.ndarray, float]:
    """Seconds of every note that ends in the clip, and those that keys are held in all. A note ends with the next action on its
    key, whichever that is; releases of notes struck before the clip are ignored.
    """
    keys = np.flatnonzero(clip.actions < SUSTAIN_DOWN)
    keys = keys[np.argsort(clip.actions[keys] % PITCHES, kind="stable")]  # key by key, each in order of time
    times, pitches, struck = clip.times[keys], clip.actions[keys] % PITCHES, clip.actions[keys] < NOTE_OFF
    ends = np.diff(pitches, append=-1) == 0
    lengths = np.diff(times, append=0)[struck & ends]
    return lengths, float(lengths.sum() + (clip.times[-1:] - times[struck & ~ends]).sum())


def _shares(values: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(values, minlength=count) / len(values) if len(values) else np.full(count, np.nan)


def _number(summary: Callable[[np.ndarray], float], values: np.ndarray) -> np.ndarray:
    return np.array([float(summary(values)) if len(values) else np.nan])


FEATURES = tuple(features(Actions(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))))


def compare(
    real: Sequence[Actions], generated: Sequence[Actions], rng: np.random.Generator, *, resamples: int = 200, splits: int = 50
) -> list[Row]:
    """A row for every feature and, last, ``mean``, over the features that have figures.

    The caller sees to it that all clips, real and generated, are equally long: most features depend on it. The two sets may
    differ in size. A clip with too few notes for a feature is left out of that feature; with fewer than 3 clips left in either
    set its figures are NaN, with fewer than 6 real ones (two halves of 3) its ceiling is.

    A resample draws clips of both sets with replacement; a clip makes no pair with its own copy. Resamples hold fewer different
    clips than the sets, which lowers any overlap, so an interval is their spread around the figure, not where they lie. For the
    same reason the ceiling, averaged over random halves, is a few hundredths low: a figure above it is as good as one at it.
    """
    clips = (real, generated)
    if min(map(len, clips)) < FEWEST:
        return [_row(name, _NOTHING[None], _NOTHING) for name in (*FEATURES, "mean")]
    tables = [[features(clip) for clip in one] for one in clips]
    draws = [_draws(len(one), resamples, rng) for one in clips]
    figures: dict[str, np.ndarray] = {}
    ceilings: dict[str, np.ndarray] = {}
    for name in FEATURES:
        vectors = [np.array([row[name] for row in table]) for table in tables]
        kept = [np.isfinite(one).all(1) for one in vectors]
        ours, theirs = (one[keep] for one, keep in zip(vectors, kept, strict=True))
        figures[name] = _figures(ours, theirs, *(drawn[:, keep] for drawn, keep in zip(draws, kept, strict=True)))
        ceilings[name] = _ceiling(ours, splits, rng)
    figures["mean"], ceilings["mean"] = _mean(figures.values()), _mean(ceilings.values())
    return [_row(name, figures[name], ceilings[name]) for name in figures]


def _draws(clips: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each clip is taken, [1 + resamples, clips]; the first row is the set itself."""
    return np.concatenate((np.ones((1, clips), np.int64), rng.multinomial(clips, np.full(clips, 1 / clips), resamples)))


def _figures(real: np.ndarray, generated: np.ndarray, taken: np.ndarray, taken_generated: np.ndarray) -> np.ndarray:
    """Overlap area and divergence of every draw: [1 + resamples, 2]. Vectors [clips, n]."""
    if min(len(real), len(generated)) < FEWEST:
        return np.full((len(taken), 2), np.nan)
    i, j = np.triu_indices(len(real), 1)
    weights = ((a[i] * a[j], np.outer(a, b).ravel()) for a, b in zip(taken, taken_generated, strict=True))
    return _measure(_distances(real, real)[i, j], _distances(real, generated).ravel(), weights)


def _ceiling(real: np.ndarray, splits: int, rng: np.random.Generator) -> np.ndarray:
    """The same of one random half against the other, averaged: [2]."""
    half = len(real) // 2
    if half < FEWEST:
        return _NOTHING
    i, j = np.triu_indices(len(real), 1)
    pairs = _distances(real, real)[i, j]
    ranks = rng.permuted(np.tile(np.arange(len(real)), (splits, 1)), axis=1)
    halves = zip(ranks < half, (ranks >= half) & (ranks < 2 * half), strict=True)
    return _measure(pairs, pairs, ((a[i] & a[j], a[i] & b[j] | b[i] & a[j]) for a, b in halves)).mean(0)


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm(one[:, None] - other, axis=-1)


def _measure(intra: np.ndarray, inter: np.ndarray, weights: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Overlap area and divergence of two sets of distances for each weighting of both, [n, 2]; NaN for one without pairs."""
    width = max(np.std(one) * len(one) ** -0.2 for one in (intra, inter))
    pad = max(3 * width, 1e-9)  # never finer than the rounding errors of equal distances
    low, high = min(intra.min(), inter.min()) - pad, max(intra.max(), inter.max()) + pad
    bins = [np.rint((one - low) / (high - low) * (GRID - 1)).astype(np.int64) for one in (intra, inter)]
    return np.array([_compare(*(_density(np.bincount(bins[i], pair[i], GRID)) for i in (0, 1))) for pair in weights])


def _density(counts: np.ndarray) -> np.ndarray:
    """Distances counted on the grid -> their Gaussian kernel density there, summing to 1, with Scott's bandwidth.

    Smoothing the counts gives what smoothing the bare distances would, at a fraction of the cost, and equal distances are no
    special case: they stay in their bin.
    """
    total = counts.sum()
    if total == 0:
        return np.full(GRID, np.nan)
    mass, place = counts / total, np.arange(GRID)
    width = max(np.sqrt(mass @ (place - mass @ place) ** 2) * total**-0.2, 0.25)
    density = np.convolve(mass, np.exp(-0.5 * ((place - GRID // 2) / width) ** 2), "same")
    return density / density.sum()


def _compare(real: np.ndarray, mixed: np.ndarray) -> tuple[float, float]:
    p, q = ((1 - FLOOR) * one + FLOOR / GRID for one in (real, mixed))
    return float(np.minimum(real, mixed).sum()), float((p * np.log(p / q)).sum())


def _mean(figures: Iterable[np.ndarray]) -> np.ndarray:
    kept = [one for one in figures if np.isfinite(one.flat[0])]
    return np.mean(kept, axis=0) if kept else _NOTHING


def _row(feature: str, figures: np.ndarray, ceiling: np.ndarray) -> Row:
    """Figures [1 + resamples, 2], the first of them the set's own."""
    value, drawn = figures[0], figures[1:]
    drawn = drawn[np.isfinite(drawn).all(1)]
    low, high = _NOTHING, _NOTHING
    if len(drawn) and np.isfinite(value).all():
        spread = np.quantile(drawn, (0.025, 0.975), axis=0) - np.median(drawn, axis=0)
        low, high = np.clip(value + spread, 0, (1, np.inf))
    return Row(feature, *(float(one[i]) for i in (0, 1) for one in (value, low, high)), *map(float, ceiling))
