"""Effective Segmentation: which part of a piece a training example is, and how it is augmented.

The traditional loader draws the *start* of a window with full context, so the beginning of a piece is never a target. Here the
position of the latents is drawn; it may extend beyond both ends of the piece and is then clipped. Every event, also the first and
the last, is a target at least as often as those in the middle, and short prefixes down to the start event alone are trained.
Source: PerceiverS, arXiv 2411.08307. ``draw = "traditional"`` selects the traditional loader for comparison.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from engine.codec import encode_arrays, without_long_silences
from engine.config import ModelConfig
from engine.events import ACTIONS, MAX_WAIT, NOTE_OFF, REST, START_EVENT, SUSTAIN_DOWN
from engine.sounding import ages_of, legal_actions
from trainer.data import Actions, Corpus


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

    @classmethod
    def for_model(cls, config: ModelConfig) -> Segmentation:
        """Examples with the context that the model can attend to, and with twice as many targets as the latent window has events,
        so that half of the targets have a full window as in streaming. With a block mask, all targets must be within one window.
        """
        context = config.reach if config.scales else cls.context
        latents = min(2 * config.window, *config.scales) if config.mask == "block" and config.scales else 2 * config.window
        near = min(cls.near, context)
        return cls(latents=latents, context=context, near=near, sampled=min(cls.sampled, context - near))


class Example(NamedTuple):
    """Inputs: events [T, 3], ages [T, AGES], positions [T] (-1 = padding in front), times [T] in 10 ms steps, multiplicity [T]
    (how many events a position stands for: more than one where older events were sampled). Targets of the last N positions:
    [N, 3], legal [N, ACTIONS], weight [N] (0 = padding).
    """

    events: np.ndarray
    ages: np.ndarray
    positions: np.ndarray
    times: np.ndarray
    multiplicity: np.ndarray
    targets: np.ndarray
    legal: np.ndarray
    weight: np.ndarray


def augment(piece: Actions, how: Segmentation, rng: np.random.Generator) -> Actions:
    """Transposes within the keyboard, stretches time, changes loudness."""
    times, actions, velocities = piece
    notes = actions < SUSTAIN_DOWN
    pitches = actions[notes] % 128
    low, high = max(-how.transpose, 21 - int(pitches.min())), min(how.transpose, 108 - int(pitches.max()))
    shift = int(rng.integers(low, high + 1)) if low <= high else 0
    return Actions(
        without_long_silences(times * np.exp(rng.uniform(-how.stretch, how.stretch))),
        np.where(notes, actions + shift, actions),
        np.clip(velocities + int(rng.integers(-how.loudness, how.loudness + 1)), 1, 127),
    )


def draw(piece: Actions, how: Segmentation, rng: np.random.Generator) -> Example:
    """Draws one training example of a piece. Every example has ``near + sampled + latents`` positions."""
    events = encode_arrays(*augment(piece, how, rng), end=True)
    n = how.latents
    room = len(events) - 1 - n  # inputs are all events but the last
    if how.draw == "effective":
        begin = int(np.clip(rng.integers(-n + 1, len(events) - 1), 0, max(0, room)))
    else:
        begin = int(rng.integers(min(how.context, max(0, room)), max(0, room) + 1))
    stop = min(begin + n, len(events) - 1)
    low = max(0, begin - how.context)
    older = max(low, begin - how.near)
    kept = np.arange(low, older)
    if len(kept) > how.sampled:
        kept = np.sort(rng.choice(kept, how.sampled, replace=False))
    if begin > 0 and rng.random() < how.cold:
        # a cold start: a start event replaces the event before the first latent
        events = events[begin - 1 :].copy()
        events[0] = START_EVENT
        events, stop = _without_unheard_releases(events, stop - begin)
        low, begin, older, kept = 0, 0, 0, kept[:0]
    index = np.concatenate((kept, np.arange(older, stop)))
    times = np.cumsum(events[: stop + 1, 0], dtype=np.int64)
    multiplicity = np.ones(len(index), np.float32)
    multiplicity[: len(kept)] = (older - low) / max(1, len(kept))
    return _pad((events[index], ages_of(events, index), index, times[index], multiplicity), events[begin + 1 : stop + 1], how)


def _without_unheard_releases(events: np.ndarray, stop: int) -> tuple[np.ndarray, int]:
    """Drops note-offs and pedal-ups that belong to actions before the cut. Their waits are added to the next event, up to
    ``MAX_WAIT``. The first remaining event is an action with wait 0.
    """
    head = events[: stop + 1]
    legal = np.zeros(len(head), bool)
    held: set[int] = set()
    for i, action in enumerate(head[:, 1].tolist()):
        subject = action % 128 if action < SUSTAIN_DOWN else 128
        if action < NOTE_OFF or action == SUSTAIN_DOWN:
            legal[i] = subject not in held
            held.add(subject)
        elif action < SUSTAIN_DOWN + 2:
            legal[i] = subject in held
            held.discard(subject)
        else:
            legal[i] = True
    owed = np.cumsum(head[:, 0])[legal]
    kept = head[legal].copy()
    kept[1:, 0] = np.minimum(np.diff(owed), MAX_WAIT)
    music = np.flatnonzero(kept[1:, 1] != REST)
    kept = np.concatenate((kept[:1], kept[1 + music[0] :])) if len(music) else kept[:1]
    kept[1:2, 0] = 0  # as in streaming, the first action defines time zero
    return kept, len(kept) - 1


def _pad(inputs: tuple[np.ndarray, ...], targets: np.ndarray, how: Segmentation) -> Example:
    """Pads an example. ``inputs``: events, ages, positions, times and multiplicity."""
    events, ages, index, times, multiplicity = inputs
    before = ages[-len(targets) :]
    short = how.latents - len(targets)
    front = how.near + how.sampled + how.latents - len(index)
    start = np.array(START_EVENT, np.int16)
    return Example(
        np.concatenate((np.tile(start, (front, 1)), events)),
        np.concatenate((np.full((front, ages.shape[1]), -1, np.int16), ages)),
        np.concatenate((np.full(front, -1), index)),
        np.concatenate((np.zeros(front, np.int64), times)),
        np.concatenate((np.ones(front, np.float32), multiplicity)),
        np.concatenate((np.tile(start, (short, 1)), targets)),
        np.concatenate((np.ones((short, ACTIONS), bool), legal_actions(before))),
        np.concatenate((np.zeros(short, np.float32), np.ones(len(targets), np.float32))),
    )


class Examples(Dataset[Example]):
    """An endless dataset. Each example is drawn by a generator that is seeded with its index, so it is the same in every process.
    Pieces are drawn in proportion to their length.
    """

    def __init__(self, corpus: Corpus, pieces: Sequence[int], how: Segmentation, seed: int) -> None:
        weight = np.array([corpus.length(i) for i in pieces], np.float64)
        self._corpus, self._how, self._seed = corpus, how, seed
        self._pieces, self._share = np.array(pieces), weight / weight.sum()

    def __getitem__(self, number: int) -> Example:
        rng = np.random.default_rng((self._seed, number))
        return draw(self._corpus.actions(int(rng.choice(self._pieces, p=self._share))), self._how, rng)
