"""Baselines: unigram and bigram models over events, fitted on the training split by counting."""

from __future__ import annotations

import numpy as np

from engine.events import ACTIONS, NO_VELOCITY, NOTE_OFF, VELOCITIES, WAITS
from trainer.data import Corpus
from trainer.likelihood import Sums, piece_events


class Counts:
    """Counts with add-``alpha`` smoothing that backs off to the lower order.

    The context is empty, or with ``bigram`` the previous action. The chain is that of the model:
    p(wait | context) p(action | context) p(velocity | velocity of the last note).
    """

    def __init__(self, *, bigram: bool) -> None:
        contexts = ACTIONS if bigram else 1
        self._bigram = bigram
        self._wait = np.zeros((contexts, WAITS))
        self._action = np.zeros((contexts, ACTIONS))
        self._velocity = np.zeros((VELOCITIES if bigram else 1, VELOCITIES))

    def _contexts(self, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not self._bigram:
            zero = np.zeros(len(events) - 1, np.int64)
            return zero, zero
        velocity = events[:, 2].astype(np.int64)
        last = np.maximum.accumulate(np.where(velocity < NO_VELOCITY, np.arange(len(events)), 0))  # index of the last note-on
        return events[:-1, 1].astype(np.int64), velocity[last[:-1]]

    def fit(self, events: np.ndarray) -> None:
        context, loudness = self._contexts(events)
        wait, action, velocity = events[1:].astype(np.int64).T
        np.add.at(self._wait, (context, wait), 1)
        np.add.at(self._action, (context, action), 1)
        on = action < NOTE_OFF
        np.add.at(self._velocity, (loudness[on], velocity[on]), 1)

    def losses(self, events: np.ndarray) -> np.ndarray:
        """Summed nats of wait, action and velocity: [3]."""
        context, loudness = self._contexts(events)
        wait, action, velocity = events[1:].astype(np.int64).T
        on = action < NOTE_OFF
        return np.array(
            [
                -np.log(_smooth(self._wait)[context, wait]).sum(),
                -np.log(_smooth(self._action)[context, action]).sum(),
                -np.log(_smooth(self._velocity)[loudness[on], velocity[on]]).sum(),
            ]
        )


def _smooth(counts: np.ndarray, alpha: float = 20.0) -> np.ndarray:
    total = counts.sum(0) + 0.01
    prior = total / total.sum()
    smoothed: np.ndarray = (counts + alpha * prior) / (counts.sum(1, keepdims=True) + alpha)
    return smoothed


def baseline(corpus: Corpus, pieces: list[int], *, bigram: bool) -> Sums:
    """Fits a baseline on the training split and scores it on ``pieces``."""
    counts, sums = Counts(bigram=bigram), Sums()
    for piece in corpus.split("train"):
        counts.fit(piece_events(corpus, piece))
    for piece in pieces:
        events = piece_events(corpus, piece)
        sums.add(events, counts.losses(events))
    return sums
