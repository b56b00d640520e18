"""Likelihood of held-out performances: by the full forward, by streaming, and with a shortened context.

Illegal actions have probability 0, as when playing. Units: nats an event, a note, a second, and a 388-token of the same music.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from tqdm import tqdm

from engine.codec import encode_arrays, tokens_388
from engine.engine import Engine
from engine.events import NOTE_OFF, STEPS_PER_SECOND, Event
from engine.model import PerceiverS, losses
from engine.sounding import ages_of
from trainer.data import Corpus

CHUNK = 16384  # latents of one forward, without those that are recomputed as context
STREAMED = 64  # events absorbed at once when streaming


@dataclasses.dataclass
class Sums:
    """Totals over performances. All reported figures are ratios of these."""

    wait: float = 0.0
    action: float = 0.0
    velocity: float = 0.0
    events: int = 0
    notes: int = 0
    seconds: float = 0.0
    tokens: int = 0

    def add(self, events: np.ndarray, nats: np.ndarray) -> None:
        """Adds a performance [n, 3] with its summed nats of wait, action and velocity [3]."""
        wait, action, velocity = map(float, nats)
        self.wait, self.action, self.velocity = self.wait + wait, self.action + action, self.velocity + velocity
        self.events += len(events) - 1
        self.notes += int(np.count_nonzero(events[:, 1] < NOTE_OFF))
        self.seconds += float(events[:, 0].sum()) / STEPS_PER_SECOND
        self.tokens += tokens_388(events)

    @property
    def nats(self) -> float:
        return self.wait + self.action + self.velocity

    def rates(self) -> dict[str, float]:
        return {
            "nats_per_event": self.nats / self.events,
            "nats_per_note": self.nats / self.notes,
            "nats_per_second": self.nats / self.seconds,
            "nats_per_388_token": self.nats / self.tokens,
        }


def piece_events(corpus: Corpus, piece: int) -> np.ndarray:
    """The events of a performance from START to END: [n, 3]."""
    return encode_arrays(*corpus.actions(piece), end=True)


def forward_losses(model: PerceiverS, events: np.ndarray, low: int, begin: int, stop: int) -> np.ndarray:
    """Nats [stop - begin, 3] of events[begin + 1 : stop + 1], each predicted from all events from ``low`` on before it (within
    the model's windows). Latents before ``begin`` are computed as well, as far as every layer's window needs them.
    """
    config = model.config
    first = max(low, begin - config.window * config.layers)
    low = max(low, first - config.reach)
    device = next(model.parameters()).device
    ages = ages_of(events[:stop], np.arange(low, stop))
    times = np.cumsum(events[:stop, 0], dtype=np.int64)[low:]
    columns = (events[low:stop].astype(np.int64), ages, np.arange(low, stop), times)
    inputs = [torch.from_numpy(column).to(device)[None] for column in columns]
    hidden = model.hidden(inputs[0], inputs[1], inputs[2], inputs[3], stop - first)[0, begin - first :]
    return _losses(model, hidden, events[begin + 1 : stop + 1], ages[begin - low :])


def _losses(model: PerceiverS, hidden: torch.Tensor, targets: np.ndarray, before: np.ndarray) -> np.ndarray:
    """hidden [n, D], target events [n, 3], ages before them [n, AGES] -> nats [n, 3]."""
    device = next(model.parameters()).device
    wanted = torch.from_numpy(targets).long().to(device)
    ages = torch.from_numpy(before).to(device)
    nats: np.ndarray = losses(model.head(hidden.to(device), wanted[:, 0], wanted[:, 1]), wanted, ages).cpu().numpy()
    return nats


def piece_losses(model: PerceiverS, events: np.ndarray) -> np.ndarray:
    """Nats of every event but the first, [n - 1, 3], by the full forward. Exact for any length;
    memory is linear in the windows.
    """
    last = len(events) - 1
    return np.concatenate([forward_losses(model, events, 0, i, min(i + CHUNK, last)) for i in range(0, last, CHUNK)])


def streamed_losses(engine: Engine, model: PerceiverS, events: np.ndarray, chunk: int = STREAMED) -> np.ndarray:
    """``piece_losses`` computed by the streaming engine, ``chunk`` events at a time. ``model`` supplies the heads."""
    engine.forget()
    ages, last = ages_of(events), len(events) - 1
    size = min(chunk, engine.config.slack)
    out = []
    for i in range(0, last, size):
        stop = min(i + size, last)
        absorbed = [Event(*map(int, row)) for row in events[max(i, 1) : stop]]  # the engine has absorbed the start event already
        engine.absorb(absorbed)
        hidden = torch.from_numpy(engine.recent_hidden(stop - i))
        out.append(_losses(model, hidden, events[i + 1 : stop + 1], ages[i:stop]))
    return np.concatenate(out)


def total(corpus: Corpus, pieces: Iterable[int], nats: Iterator[np.ndarray]) -> Sums:
    """Totals over pieces; ``nats`` yields the losses of each."""
    sums = Sums()
    for piece, one in zip(pieces, nats, strict=True):
        sums.add(piece_events(corpus, piece), one.sum(0))
    return sums


@torch.inference_mode()
def likelihood(model: PerceiverS, corpus: Corpus, pieces: list[int]) -> Sums:
    """Totals by the full forward over whole performances."""
    bar = tqdm(pieces, desc="full forward", unit="piece")
    return total(corpus, pieces, (piece_losses(model, piece_events(corpus, piece)) for piece in bar))


@torch.inference_mode()
def streamed_likelihood(engine: Engine, model: PerceiverS, corpus: Corpus, pieces: list[int], chunk: int = STREAMED) -> Sums:
    """Totals by the streaming engine, ``chunk`` events at a time."""
    bar = tqdm(pieces, desc="streaming", unit="piece")
    return total(corpus, pieces, (streamed_losses(engine, model, piece_events(corpus, piece), chunk) for piece in bar))


@torch.inference_mode()
def cut_losses(
    model: PerceiverS,
    corpus: Corpus,
    pieces: list[int],
    keeps: tuple[int | None, ...],
    rng: np.random.Generator,
    *,
    stretches: int = 60,
    length: int = 128,
) -> dict[int | None, float]:
    """Nats an event on the same stretches of ``length`` events, by context: only the last ``keeps`` events before each stretch
    (None: all). Every stretch has more events before it than the longest ``keeps``. The ages of held keys are never cut. Empty if
    no piece is long enough.
    """
    longest = max((keep for keep in keeps if keep is not None), default=0)
    everything = [piece_events(corpus, piece) for piece in pieces]
    room = np.array([max(0, len(events) - 1 - length - longest) for events in everything], np.float64)
    if not room.any():
        return {}
    nats: dict[int | None, list[float]] = {keep: [] for keep in keeps}
    for _ in tqdm(range(stretches), desc="shortened context", unit="stretch"):
        events = everything[int(rng.choice(len(room), p=room / room.sum()))]
        begin = int(rng.integers(longest, len(events) - 1 - length))
        for keep in keeps:
            low = 0 if keep is None else begin + 1 - keep
            nats[keep].append(float(forward_losses(model, events, low, begin, begin + length).sum(-1).mean()))
    return {keep: float(np.mean(values)) for keep, values in nats.items()}
