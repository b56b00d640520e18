"""Effective Segmentation: which part of a piece a training example is, and how it is augmented.

The traditional loader draws the *start* of a window with full context, so the beginning of a piece is never a target. Here the
position of the latents is drawn; it may extend beyond both ends of the piece and is then clipped. Every event, also the first and
the last, is a target at least as often as those in the middle, and short prefixes down to the start event alone are trained.
Source: PerceiverS, arXiv 2411.08307. ``draw = "traditional"`` selects the traditional loader for comparison.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from engine.config import ModelConfig
from engine.events import MAX_WAIT, PITCHES, REST, START_EVENT, SUSTAIN_DOWN
from engine.sounding import PEDAL, ages_of, presses, subjects
from trainer.data import Actions, Corpus, DataError
from trainer.encoding import EncodedPiece

DRAWS = ("effective", "traditional")


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """Each example has ``latents`` targets and a context of at most ``context`` events before them. The ``near`` newest events of
    the context are all kept; ``sampled`` of the older ones are drawn at random (cross-attention dropout, which also saves work).
    ``cold``: share of examples that begin with a start event, as if the performance had begun there.
    """

    draw: str = "effective"  # or "traditional": a random start, and a full context if the piece is long enough

    latents: int = 1024
    context: int = 8192
    near: int = 1024
    sampled: int = 512
    cold: float = 0.15
    transpose: int = 4  # semitones up or down, at most
    stretch: float = 0.06  # at most, up or down
    loudness: int = 6  # MIDI velocities up or down, at most

    def __post_init__(self) -> None:
        """Raises ``DataError`` for values out of range."""
        if self.draw not in DRAWS:
            raise DataError(f"segmentation: draw is {self.draw!r}, allowed are {', '.join(DRAWS)}")
        least = {"latents": 1, "context": 0, "near": 0, "sampled": 0, "cold": 0.0, "transpose": 0, "stretch": 0.0, "loudness": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if not low <= value < math.inf:
                raise DataError(f"segmentation: {name} is {value}, allowed is {low} or more")
        if self.cold > 1:
            raise DataError(f"segmentation: cold is {self.cold}, allowed is 0 to 1")

    @classmethod
    def for_model(cls, config: ModelConfig) -> Segmentation:
        """Examples with the context that the model can attend to. There are at least twice as many targets as the latent window
        has events, so that half of the targets have a full window as in streaming; and at least as many as near events, because
        the context takes the same time for any number of targets. With a block mask, all targets must be within one window.
        """
        context = config.reach if config.scales else cls.context
        near = min(cls.near, context)
        latents = max(2 * config.window, near)
        if config.mask == "block" and config.scales:
            latents = min(2 * config.window, *config.scales)
        return cls(latents=latents, context=context, near=near, sampled=min(cls.sampled, context - near))


class Example(NamedTuple):
    """Inputs: events [T, 3], ages [T, AGES], positions [T] (-1 = padding in front), times [T] in 10 ms steps, multiplicity [T]
    (how many events a position stands for: more than one where older events were sampled). Targets of the last N positions:
    [N, 3], weight [N] (0 = padding).
    """

    events: np.ndarray
    ages: np.ndarray
    positions: np.ndarray
    times: np.ndarray
    multiplicity: np.ndarray
    targets: np.ndarray
    weight: np.ndarray


def augment(piece: Actions, segmentation: Segmentation, rng: np.random.Generator) -> Actions:
    """Transposes within the keyboard, stretches time, changes loudness. Actions and velocities become int16."""
    actions, velocities = piece.actions.astype(np.int16), piece.velocities.astype(np.int16)
    notes = actions < SUSTAIN_DOWN
    pitches = actions[notes] & (PITCHES - 1)
    low, high = max(-segmentation.transpose, 21 - int(pitches.min())), min(segmentation.transpose, 108 - int(pitches.max()))
    shift = int(rng.integers(low, high + 1)) if low <= high else 0
    actions[notes] += shift
    stretch = np.exp(rng.uniform(-segmentation.stretch, segmentation.stretch))
    return Actions(
        piece.times * stretch,
        actions,
        np.clip(velocities + rng.integers(-segmentation.loudness, segmentation.loudness + 1), 1, 127),
    )


def draw(piece: Actions, segmentation: Segmentation, rng: np.random.Generator) -> Example:
    """Draws one training example of a piece. Every example has ``near + sampled + latents`` positions."""
    encoded = EncodedPiece(augment(piece, segmentation, rng))
    n, last = segmentation.latents, len(encoded) - 1  # inputs are all events but the last
    room = max(0, last - n)
    if segmentation.draw == "effective":
        begin = int(np.clip(rng.integers(-n + 1, last), 0, room))
    else:
        begin = int(rng.integers(min(segmentation.context, room), room + 1))
    stop = min(begin + n, last)
    if begin > 0 and rng.random() < segmentation.cold:
        return _cold_start(encoded.at(np.arange(begin - 1, stop))[0], segmentation)
    low = max(0, begin - segmentation.context)
    older = max(low, begin - segmentation.near)
    kept = np.arange(low, older)
    if len(kept) > segmentation.sampled:
        kept = low + np.sort(rng.choice(len(kept), segmentation.sampled, replace=False, shuffle=False))
    index = np.concatenate((kept, np.arange(older, stop + 1)))
    multiplicity = np.ones(len(index), np.float32)
    multiplicity[: len(kept)] = (older - low) / max(1, len(kept))
    events, ages, times = encoded.at(index)
    inputs = (part[:-1] for part in (events, ages, index, times, multiplicity))
    return _pad(inputs, events[len(events) - (stop - begin) :], segmentation)


def _cold_start(events: np.ndarray, segmentation: Segmentation) -> Example:
    """An example that begins with a start event, as if the performance had begun there. It replaces the first of ``events``."""
    events[0] = START_EVENT
    events = _without_orphan_releases(events)
    inputs, targets = events[:-1], events[1:]
    times = np.cumsum(inputs[:, 0], dtype=np.int64)
    return _pad((inputs, ages_of(inputs), np.arange(len(inputs)), times, np.ones(len(inputs), np.float32)), targets, segmentation)


def _without_orphan_releases(events: np.ndarray) -> np.ndarray:
    """Drops note-offs and pedal-ups that belong to actions before the cut. Their waits are added to the next event, up to
    ``MAX_WAIT``. The first remaining event is an action with wait 0.
    """
    key = subjects(events[:, 1])
    by_key = np.argsort(key, kind="stable")
    key, down = key[by_key], presses(events[:, 1])[by_key]
    held = np.zeros(len(events), bool)  # whether the key was down before
    held[1:] = down[:-1] & (key[1:] == key[:-1])
    legal = np.empty(len(events), bool)
    legal[by_key] = (down != held) | (key > PEDAL)
    owed = np.cumsum(events[:, 0])[legal]
    kept = events[legal]
    kept[1:, 0] = np.minimum(np.diff(owed), MAX_WAIT)
    music = np.flatnonzero(kept[1:, 1] != REST)
    kept = np.concatenate((kept[:1], kept[1 + music[0] :])) if len(music) else kept[:1]
    kept[1:2, 0] = 0  # as in streaming, the first action defines time zero
    return kept


def _pad(inputs: Iterable[np.ndarray], targets: np.ndarray, segmentation: Segmentation) -> Example:
    """Pads an example in front. ``inputs``: events, ages, positions, times and multiplicity."""
    total = segmentation.near + segmentation.sampled + segmentation.latents
    events, ages, positions, times, multiplicity = (
        _padded(rows, total, padding) for rows, padding in zip(inputs, (START_EVENT, -1, -1, 0, 1), strict=True)
    )
    weight = _padded(np.ones(len(targets), np.float32), segmentation.latents, 0)
    return Example(events, ages, positions, times, multiplicity, _padded(targets, segmentation.latents, START_EVENT), weight)


def _padded(rows: np.ndarray, length: int, padding: object) -> np.ndarray:
    """``rows`` at the end of ``length`` rows; those in front are ``padding``."""
    if len(rows) == length:
        return rows
    padded = np.empty((length, *rows.shape[1:]), rows.dtype)
    padded[: length - len(rows)] = padding
    padded[length - len(rows) :] = rows
    return padded


class Examples(Dataset[Example]):
    """An endless dataset. Each example is drawn by a generator that is seeded with its index, so it is the same in every process.
    Pieces are drawn in proportion to their length.
    """

    def __init__(self, corpus: Corpus, pieces: Sequence[int], segmentation: Segmentation, seed: int) -> None:
        weight = np.array([corpus.length(i) for i in pieces], np.float64)
        self._corpus, self._segmentation, self._seed = corpus, segmentation, seed
        self._pieces, self._share = np.array(pieces), weight / weight.sum()

    def __getitem__(self, number: int) -> Example:
        rng = np.random.default_rng((self._seed, number))
        return draw(self._corpus.actions(int(rng.choice(self._pieces, p=self._share))), self._segmentation, rng)
