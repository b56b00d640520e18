"""Phrase-end detection on real performances: python -m benchmarks.phrases FOLDER_OF_MIDI [--pieces N] [--json FILE]

Phrase ends in a performance by one player are defined as gaps between two onsets in which all keys come up (onsets within 50 ms
are one chord). A gap is a phrase end if it lasts at least 3 s; or if it lasts at least 1 s, is the longest within 5 s before and
after, and is at least 3 times the median gap there. The end of the piece is one as well. All other gaps are inside a phrase: hand
shifts, held chords, slow passages, and short pauses beside a longer one.

At a phrase end, the detector gets the releases in the gap and then nothing more. The delay until it fires is measured from the
last onset and from the last release of a key (negative: it fired while a chord was held). In time: it fired before the player
continued. Inside a phrase, firing is a misfire; misfires are counted per minute of playing inside phrases. After each, the
detector is reset, as the performer does.

For comparison: a fixed silence, counted from the last onset or from the time when all keys are up. The last two columns are the
misfires of fixed silences as long as the row's median delays, after the last onset and after the last release. The constants of
`perceivers_live/performer/phrases.py` were chosen on the training and validation splits (`--split validation`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import click
import numpy as np

from engine.events import NOTE_OFF, PITCHES, Timed
from engine.folders import cache_folder
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.phrases import CHORD_SPAN, PhraseDetector
from trainer.data import SPLITS, Corpus, prepare

SHORTEST_END, SURE_END, NEIGHBOURHOOD, TIMES_MEDIAN = 1.0, 3.0, 5.0, 3.0  # seconds, except the last one
PATIENCE = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
FIXED = (1.0, 2.0)  # seconds


class Detector(Protocol):
    def feed(self, timed: Timed) -> None: ...
    def end(self) -> float | None: ...
    def reset(self) -> None: ...


class FixedSilence:
    """Fires ``seconds`` after the last onset; with ``keys_up``, after the last release and never while a key is held."""

    def __init__(self, seconds: float, *, keys_up: bool = False) -> None:
        self._seconds, self._keys_up = seconds, keys_up
        self._held: set[int] = set()
        self._since: float | None = None

    def reset(self) -> None:
        self._since = None

    def feed(self, timed: Timed) -> None:
        if timed.action < NOTE_OFF:
            self._held.add(timed.action)
            self._since = timed.time
        elif timed.action < NOTE_OFF + PITCHES:
            self._held.discard(timed.action - NOTE_OFF)
            if self._keys_up and self._since is not None:
                self._since = timed.time

    def end(self) -> float | None:
        return None if self._since is None or (self._keys_up and self._held) else self._since + self._seconds


class Gap(NamedTuple):
    """First and last onset of a chord, the time when all keys were up, and the next onset; infinite if there is none."""

    chord: float
    onset: float
    up: float
    next: float
    is_end: bool = False


class Passage(NamedTuple):
    """A chord with the actions up to the next one, and whether a phrase ends there."""

    actions: list[Timed]
    gap: Gap


def passages(timed: Sequence[Timed]) -> list[Passage]:
    """A performance cut into chords, its phrase ends marked."""
    parts: list[list[Timed]] = []
    held: set[int] = set()
    chord = onset = up = -np.inf
    gaps: list[Gap] = []
    for one in timed:
        if one.action < NOTE_OFF:
            if one.time - chord > CHORD_SPAN:
                if parts:
                    gaps.append(Gap(chord, onset, up, one.time))
                parts.append([])
                chord = one.time
            onset, up = one.time, np.inf
            held.add(one.action)
        elif one.action < NOTE_OFF + PITCHES:
            held.discard(one.action - NOTE_OFF)
            up = one.time if not held else up
        if parts:
            parts[-1].append(one)
    gaps.append(Gap(chord, onset, up, np.inf))
    return [Passage(part, gap._replace(is_end=end)) for part, gap, end in zip(parts, gaps, ends(gaps), strict=True)]


def ends(gaps: Sequence[Gap]) -> list[bool]:
    """Which gaps are phrase ends, as defined in the module's docstring."""
    onsets, nexts = np.array([gap.onset for gap in gaps]), np.array([gap.next for gap in gaps])
    lengths = nexts - onsets
    found = []
    for i, gap in enumerate(gaps):
        around = lengths[np.searchsorted(nexts, gap.onset - NEIGHBOURHOOD) : np.searchsorted(onsets, gap.next + NEIGHBOURHOOD)]
        around = around[np.isfinite(around)]
        alone = lengths[i] >= max(SHORTEST_END, TIMES_MEDIAN * np.median(around), around.max()) if len(around) else False
        found.append(bool(np.isinf(gap.next) or (gap.up < gap.next and (lengths[i] >= SURE_END or alone))))
    return found


def fired(detector: Detector, actions: Sequence[Timed], until: float) -> float | None:
    """Feeds a passage. Returns the time at which the detector fired, between actions or before ``until``, or None."""
    time: float | None = None
    for i, one in enumerate(actions):
        detector.feed(one)
        if time is None:
            end = detector.end()
            if end is not None and end < (actions[i + 1].time if i + 1 < len(actions) else until):
                time = end
    return time


def measure(pieces: Sequence[Sequence[Passage]], make: Callable[[], Detector]) -> dict[str, float]:
    """Runs one detector over all pieces; returns a row of the table."""
    misfires, in_time, ended = 0, 0, 0
    after_onset: list[float] = []
    after_release: list[float] = []
    for piece in pieces:
        detector = make()
        for actions, gap in piece:
            time = fired(detector, actions, np.inf if gap.is_end else gap.next)
            if gap.is_end:
                assert time is not None, "at the end of a piece every detector fires"
                ended += 1
                in_time += time < gap.next
                after_onset.append(time - gap.onset)
                after_release.append(time - gap.up)
            elif time is not None:
                misfires += 1
            if time is not None:
                detector.reset()
    onset, release = np.percentile(after_onset, [50, 95]), np.percentile(after_release, [50, 95])
    return {
        "misfires_per_minute": misfires / minutes_inside(pieces),
        "after_onset_p50": float(onset[0]),
        "after_onset_p95": float(onset[1]),
        "after_release_p50": float(release[0]),
        "after_release_p95": float(release[1]),
        "in_time": in_time / ended,
        "as_fixed_after_onset": fixed_misfires(pieces, float(onset[0])),
        "as_fixed_after_release": fixed_misfires(pieces, float(release[0]), keys_up=True),
    }


def inside(pieces: Sequence[Sequence[Passage]]) -> list[Gap]:
    return [gap for piece in pieces for _, gap in piece if not gap.is_end]


def minutes_inside(pieces: Sequence[Sequence[Passage]]) -> float:
    return sum(gap.next - gap.chord for gap in inside(pieces)) / 60


def fixed_misfires(pieces: Sequence[Sequence[Passage]], seconds: float, *, keys_up: bool = False) -> float:
    """Misfires a minute of a fixed silence after the last onset; with ``keys_up``, after the last release without held keys."""
    silences = [gap.next - (gap.up if keys_up else gap.onset) for gap in inside(pieces) if gap.up < gap.next or not keys_up]
    return sum(silence > seconds for silence in silences) / minutes_inside(pieces)


def line(name: str, row: dict[str, float]) -> str:
    return (
        f"{name:22}{row['misfires_per_minute']:9.2f}{row['after_onset_p50']:10.2f}{row['after_onset_p95']:7.2f}"
        f"{row['after_release_p50']:10.2f}{row['after_release_p95']:7.2f}{row['in_time']:9.0%}"
        f"{row['as_fixed_after_onset']:10.2f}{row['as_fixed_after_release']:9.2f}"
    )


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--cache", type=click.Path(path_type=Path), default=cache_folder() / "data")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--pieces", default=0, help="Pieces, drawn at random; 0: all of the split.")
@click.option("--seed", default=0)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures here as well.")
def main(data: Path, cache: Path, split: str, pieces: int, seed: int, file: Path | None) -> None:
    corpus = Corpus(prepare(data, cache))
    chosen = corpus.split(split)
    if not chosen:
        raise click.ClickException(f"{data}: has no {split} split")
    if 0 < pieces < len(chosen):
        chosen = np.random.default_rng(seed).choice(chosen, pieces, replace=False).tolist()
    performances = []
    for piece in chosen:
        times, actions, velocities = (part.tolist() for part in corpus.actions(piece))
        performances.append(passages([Timed(*one) for one in zip(times, actions, velocities, strict=True)]))
    count = sum(gap.is_end for piece in performances for _, gap in piece)
    print(f"{split}: {len(performances)} pieces, {minutes_inside(performances):.0f} minutes within phrases, {count} phrase ends")
    print(f"{'':22}{'misfires':>9}{'after onset':>17}{'after release':>17}{'in time':>9}{'fixed silences':>19}")
    print(f"{'':22}{'/minute':>9}{'p50':>10}{'p95':>7}{'p50':>10}{'p95':>7}{'':9}{'onset':>10}{'release':>9}")
    makers: dict[str, Callable[[], Detector]] = {
        f"patience {patience:g}": partial(PhraseDetector, PhraseSettings(), lambda patience=patience: patience)
        for patience in PATIENCE
    }
    makers |= {f"fixed {seconds:g} s": partial(FixedSilence, seconds) for seconds in FIXED}
    makers |= {f"fixed {seconds:g} s, keys up": partial(FixedSilence, seconds, keys_up=True) for seconds in (0.5, *FIXED)}
    rows = {}
    for name, make in makers.items():
        rows[name] = measure(performances, make)
        print(line(name, rows[name]), flush=True)
    if file is not None:
        file.write_text(json.dumps({"split": split, "pieces": len(performances), "ends": count, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
