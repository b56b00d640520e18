"""Cuts calls out of held-out performances, each with the pianist's real continuation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from engine.events import NOTE_OFF, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import MessageReader, message_of
from trainer.data import Actions, Corpus, DataError, prepare

SEARCH = 5.0  # seconds; a call ends at the widest gap between two onsets within this time
MIN_NOTES = 16  # in a call, and in its continuation
ATTEMPTS = 50  # for each call, to find one with ``MIN_NOTES``


@dataclasses.dataclass(frozen=True)
class Call:
    """A call and the music that follows it in the piece. At the end of ``call`` all keys and the pedal are released;
    ``continuation`` starts at that time with a note. Times are in seconds from the start of the piece.
    """

    name: str
    piece: int
    call: Sequence[Timed]
    continuation: Sequence[Timed]


def open_corpus(data: Path, cache: Path) -> Corpus:
    """Opens the packed corpus in ``data``. If ``data`` has MIDI files instead, packs them into ``cache`` first."""
    return Corpus(data if (data / "index.json").exists() else prepare(data, cache))


def cut_calls(corpus: Corpus, split: str, count: int, seconds: float, seed: int) -> list[Call]:
    """Cuts ``count`` calls of about ``seconds``, from different pieces if there are enough. The same seed gives the same calls.

    Each call ends at the widest gap between onsets nearby a random position, and at least ``seconds`` of music follow. Raises
    ``DataError`` if the split has fewer than two pieces that are long enough, or not enough calls with ``MIN_NOTES``.
    """
    long_enough = [piece for piece in corpus.split(split) if corpus.actions(piece).times[-1] > 2 * seconds + SEARCH]
    if len(long_enough) < 2:
        raise DataError(f"{corpus.folder}: {len(long_enough)} pieces of the {split} split are long enough, at least 2 are needed")
    rng = np.random.default_rng((seed, 0))
    order = np.concatenate([rng.permutation(long_enough) for _ in range(-(-ATTEMPTS * count // len(long_enough)))])
    cut = (_cut(corpus, int(piece), seconds, rng) for piece in order)
    enough = (call for call in cut if min(_note_count(call.call), _note_count(call.continuation)) >= MIN_NOTES)
    calls = list(islice(enough, count))
    if len(calls) < count:
        raise DataError(f"{corpus.folder}: only {len(calls)} calls of {MIN_NOTES} notes found in the {split} split")
    return calls


def _note_count(actions: Sequence[Timed]) -> int:
    return sum(action.action < NOTE_OFF for action in actions)


def _cut(corpus: Corpus, piece: int, seconds: float, rng: np.random.Generator) -> Call:
    music = corpus.actions(piece)
    onsets = music.times[music.actions < NOTE_OFF]
    position = float(rng.uniform(onsets[0] + seconds, max(onsets[-1] - seconds - SEARCH, onsets[0] + seconds)))
    first = int(np.searchsorted(onsets, position))
    nearby = onsets[max(first - 1, 0) : max(int(np.searchsorted(onsets, position + SEARCH)), first + 1) + 1]
    end = float(nearby[int(np.argmax(np.diff(nearby))) + 1])
    return Call(corpus.pieces[piece]["name"], piece, excerpt(music, end - seconds, end), excerpt(music, end, end + seconds))


def excerpt(music: Actions, begin: float, end: float) -> list[Timed]:
    """The actions from ``begin`` up to ``end`` in seconds. All keys and the pedal are released at ``end``. If the pedal is down
    at ``begin``, the excerpt starts with a pedal press. Keys struck before ``begin`` are left out.
    """
    times, actions, velocities = music
    first, last = np.searchsorted(times, (begin, end))
    reader = MessageReader()
    pedal = actions[:first][np.isin(actions[:first], (SUSTAIN_DOWN, SUSTAIN_UP))]
    timed = reader.feed(begin, message_of(SUSTAIN_DOWN, 0)) if len(pedal) and pedal[-1] == SUSTAIN_DOWN else []
    for time, action, velocity in zip(times[first:last], actions[first:last], velocities[first:last], strict=True):
        timed += reader.feed(float(time), message_of(int(action), int(velocity)))
    return timed + reader.close(end)
