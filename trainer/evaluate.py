"""Likelihood of held-out performances, beside event-level unigram and bigram baselines.

The full forward runs over whole performances: every event is predicted from all that came before it (within the model's
windows), as in streaming. Illegal actions have probability 0 for the model; the baselines are given no such help, and
the units are those of the documentation: nats an event, a note, a second, and a 388-token of the same music.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from engine.checkpoint import load_model
from engine.codec import encode_arrays, tokens_388
from engine.events import ACTIONS, NO_VELOCITY, NOTE_OFF, VELOCITIES, WAITS
from engine.model import PerceiverS, losses
from engine.sounding import ages_of, legal_actions
from trainer.data import Corpus, DataError

CHUNK = 4096  # latents of one forward; the ones before them are computed again as context


@dataclasses.dataclass
class Sums:
    """Totals over performances; everything reported is a ratio of these."""

    nats: float = 0.0
    wait: float = 0.0
    action: float = 0.0
    velocity: float = 0.0
    events: int = 0
    notes: int = 0
    seconds: float = 0.0
    tokens: int = 0

    def rates(self) -> dict[str, float]:
        return {
            "nats_per_event": self.nats / self.events,
            "nats_per_note": self.nats / self.notes,
            "nats_per_second": self.nats / self.seconds,
            "nats_per_388_token": self.nats / self.tokens,
        }


def piece_events(corpus: Corpus, piece: int) -> np.ndarray:
    """A performance as the model sees it, start to end: [n, 3]."""
    return encode_arrays(*corpus.actions(piece), end=True)


def piece_losses(model: PerceiverS, events: np.ndarray) -> np.ndarray:
    """Nats of every event but the first, [n - 1, 3]: exact for any length, memory linear in the windows.

    Latents are computed in overlapping stretches, long enough before each scored one that every layer's window is full.
    """
    config = model.config
    warm = config.window * config.layers
    device = next(model.parameters()).device
    out = []
    for begin in range(0, len(events) - 1, CHUNK):
        stop = min(begin + CHUNK, len(events) - 1)
        first = max(0, begin - warm)
        low = max(0, first - max(config.scales))
        inputs = torch.from_numpy(events[low:stop]).long().to(device)[None]
        ages = ages_of(events[:stop], low)
        positions = torch.arange(low, stop, device=device)[None]
        hidden = model.hidden(inputs, torch.from_numpy(ages).to(device)[None], positions, stop - first)[:, begin - first :]
        targets = torch.from_numpy(events[begin + 1 : stop + 1]).long().to(device)[None]
        legal = torch.from_numpy(legal_actions(ages[begin - low :])).to(device)[None]
        out.append(losses(model.head(hidden, targets[..., 0], targets[..., 1]), targets, legal)[0].cpu().numpy())
    return np.concatenate(out)


def likelihood(model: PerceiverS, corpus: Corpus, pieces: list[int]) -> Sums:
    sums = Sums()
    with torch.inference_mode():
        for piece in tqdm(pieces, desc="evaluating", unit="piece"):
            events = piece_events(corpus, piece)
            wait, action, velocity = piece_losses(model, events).sum(0)
            add(sums, events, float(wait), float(action), float(velocity))
    return sums


def add(sums: Sums, events: np.ndarray, wait: float, action: float, velocity: float) -> None:
    sums.nats += wait + action + velocity
    sums.wait, sums.action, sums.velocity = sums.wait + wait, sums.action + action, sums.velocity + velocity
    sums.events += len(events) - 1
    sums.notes += int(np.count_nonzero(events[:, 1] < NOTE_OFF))
    sums.seconds += float(events[:, 0].sum()) / 100
    sums.tokens += tokens_388(events)


class Counts:
    """Event-level baselines, fitted by counting with add-``alpha`` smoothing backed off to the order below.

    A field's context is: nothing, or for ``bigram`` the previous action; the chain is the model's own:
    p(wait | context) p(action | context, wait bucket) p(velocity | context's action kind).
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
        last = np.maximum.accumulate(np.where(velocity < NO_VELOCITY, np.arange(len(events)), 0))  # the last note-on's
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
    """Fitted on the training split, scored on ``pieces``."""
    counts, sums = Counts(bigram=bigram), Sums()
    for piece in corpus.split("train"):
        counts.fit(piece_events(corpus, piece))
    for piece in pieces:
        events = piece_events(corpus, piece)
        add(sums, events, *map(float, counts.losses(events)))
    return sums


def report(corpus: Corpus, checkpoint: Path, split: str, *, pieces: int | None = None, json_file: Path | None = None) -> None:
    """Prints the table of a split, and writes it as a flat JSON object. Raises ``DataError`` if the split is empty."""
    chosen = corpus.split(split)
    if not chosen:
        raise DataError(f"the data has no {split} pieces")
    if pieces is not None and pieces < len(chosen):
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, pieces).round().astype(int)]
    rows = {name: baseline(corpus, chosen, bigram=name == "bigram") for name in ("unigram", "bigram")}
    rows["model"] = likelihood(load_model(checkpoint), corpus, chosen)
    print(f"{split}: {len(chosen)} pieces, {rows['model'].events} events, {rows['model'].notes} notes")
    print(
        f"{'':10}{'nats/event':>12}{'nats/note':>12}{'nats/second':>12}{'nats/388-token':>16}{'wait':>8}{'action':>8}{'velocity':>9}"
    )
    for name, sums in rows.items():
        rates = sums.rates()
        fields = [value / sums.events for value in (sums.wait, sums.action, sums.velocity)]
        print(
            f"{name:10}{rates['nats_per_event']:12.4f}{rates['nats_per_note']:12.3f}{rates['nats_per_second']:12.2f}"
            f"{rates['nats_per_388_token']:16.4f}{fields[0]:8.3f}{fields[1]:8.3f}{fields[2]:9.3f}"
        )
    if json_file is not None:
        best = rows["model"]
        flat: dict[str, object] = {
            "split": split,
            "pieces": len(chosen),
            **best.rates(),
            "events": best.events,
            "notes": best.notes,
        }
        for name in ("unigram", "bigram"):
            flat |= {f"{name}_{key}": value for key, value in rows[name].rates().items()}
        json_file.write_text(json.dumps(flat, indent=1) + "\n")
