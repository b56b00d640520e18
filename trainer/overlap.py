"""Overlap area and KL divergence of musical features: whether generated clips differ from real clips as much as real clips differ
among themselves.

For every feature there are two densities: of the distances between pairs of real clips, and of the distances between a real and a
generated clip. If the densities are equal, their overlap area is 1 and their divergence is 0. Source: Yang and Lerch, "On the
evaluation of generative models in music", 2018 (mgeval). Performances have no bars, so lengths are in seconds and features of
bars are left out.

Each figure is reported with its ceiling, which is the figure of one half of the real clips against the other half, and with an
interval from resampling clips. Resampling pairs would give intervals that are too narrow, because pairs share clips.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from engine.events import NOTE_OFF, PITCHES, STEPS_PER_SECOND, SUSTAIN_DOWN
from trainer.data import Actions

CHORD = 0.03  # seconds: onsets closer than this belong to one chord
LENGTHS = 2.0 ** np.arange(-5, 3.5, 0.5)  # edges of the bins of note lengths: half octaves, 31 ms to 8 s, open at both ends
MIN_CLIPS = 3  # clips in a set for a feature to have figures
GRID = 257  # points, an odd number, at which densities are compared
FLOOR = 1e-6  # share of a density's mass spread evenly over the grid, so that divergences are finite

_NOTHING = np.full(2, np.nan)  # overlap area and divergence of too few clips


@dataclasses.dataclass(frozen=True)
class Row:
    """Figures of one feature with their 95 % intervals and ceilings: overlap areas 0..1, and KL divergences, in nats, of the
    density of mixed pairs from that of real pairs. NaN: too few clips.
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

    Histograms are shares of 1, times are in seconds. Lengths and polyphony are those of the keys, without the pedal.
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
    """Lengths in seconds of the notes that end in the clip, and the total time that keys are held. A note ends with the next
    action of its key. Note-offs of notes from before the clip are ignored.
    """
    keys = np.flatnonzero(clip.actions < SUSTAIN_DOWN)
    keys = keys[np.argsort(clip.actions[keys] % PITCHES, kind="stable")]  # sorted by key, then by time
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

    All clips must have the same length, because most features depend on it. The two sets may differ in size. A clip with too few
    notes for a feature is left out of that feature. With fewer than 3 clips left in a set the figures are NaN; with fewer than 6
    real ones (two halves of 3) the ceiling is NaN.

    A resample draws clips of both sets with replacement; copies of the same clip are not paired. A resample has fewer distinct
    clips than the set, which lowers the overlap; the interval is therefore the spread of the resamples, centred on the figure.
    For the same reason the ceiling, an average over random halves, is a few hundredths too low: a figure above the
    ceiling counts as equal to it.
    """
    clips = (real, generated)
    if min(map(len, clips)) < MIN_CLIPS:
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
    """How often each resample contains each clip, [1 + resamples, clips]; the first row is the set itself."""
    return np.concatenate((np.ones((1, clips), np.int64), rng.multinomial(clips, np.full(clips, 1 / clips), resamples)))


def _figures(real: np.ndarray, generated: np.ndarray, taken: np.ndarray, taken_generated: np.ndarray) -> np.ndarray:
    """Overlap area and divergence of every resample: [1 + resamples, 2]. Feature vectors: [clips, n]."""
    if min(len(real), len(generated)) < MIN_CLIPS:
        return np.full((len(taken), 2), np.nan)
    i, j = np.triu_indices(len(real), 1)
    weights = ((a[i] * a[j], np.outer(a, b).ravel()) for a, b in zip(taken, taken_generated, strict=True))
    return _measure(_distances(real, real)[i, j], _distances(real, generated).ravel(), weights)


def _ceiling(real: np.ndarray, splits: int, rng: np.random.Generator) -> np.ndarray:
    """Overlap area and divergence of one random half against the other, averaged over splits: [2]."""
    half = len(real) // 2
    if half < MIN_CLIPS:
        return _NOTHING
    i, j = np.triu_indices(len(real), 1)
    pairs = _distances(real, real)[i, j]
    ranks = rng.permuted(np.tile(np.arange(len(real)), (splits, 1)), axis=1)
    halves = zip(ranks < half, (ranks >= half) & (ranks < 2 * half), strict=True)
    return _measure(pairs, pairs, ((a[i] & a[j], a[i] & b[j] | b[i] & a[j]) for a, b in halves)).mean(0)


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm(one[:, None] - other, axis=-1)


def _measure(intra: np.ndarray, inter: np.ndarray, weights: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Overlap area and divergence of two sets of distances, for each pair of weightings: [n, 2]; NaN for a set without pairs."""
    width = max(np.std(one) * len(one) ** -0.2 for one in (intra, inter))
    pad = max(3 * width, 1e-9)  # wider than the rounding errors of equal distances
    low, high = min(intra.min(), inter.min()) - pad, max(intra.max(), inter.max()) + pad
    bins = [np.rint((one - low) / (high - low) * (GRID - 1)).astype(np.int64) for one in (intra, inter)]
    return np.array([_compare(*(_density(np.bincount(bins[i], pair[i], GRID)) for i in (0, 1))) for pair in weights])


def _density(counts: np.ndarray) -> np.ndarray:
    """Gaussian kernel density, with Scott's bandwidth and sum 1, of distances counted on the grid.

    Smoothing counts gives nearly the density of the distances themselves at a fraction of the cost. Equal distances are no
    special case: they are in one bin.
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
    """A row from figures [1 + resamples, 2]; the first are those of the set itself."""
    value, drawn = figures[0], figures[1:]
    drawn = drawn[np.isfinite(drawn).all(1)]
    low, high = _NOTHING, _NOTHING
    if len(drawn) and np.isfinite(value).all():
        spread = np.quantile(drawn, (0.025, 0.975), axis=0) - np.median(drawn, axis=0)
        low, high = np.clip(value + spread, 0, (1, np.inf))
    return Row(feature, *(float(one[i]) for i in (0, 1) for one in (value, low, high)), *map(float, ceiling))
