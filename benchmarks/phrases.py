"""Phrase-end detection on real performances: python -m benchmarks.phrases FOLDER_OF_MIDI [--pieces N] [--json FILE]

The performances are by one pianist and have no marked phrase ends, so they are defined as follows. Onsets within 50 ms are one
chord. A gap between two onsets is a phrase end if all keys come up in it, and it either lasts at least 3 s, or lasts at least 1
s, is the longest gap within 5 s before and after, and is at least 3 times the median gap there. The end of the piece is a phrase
end as well. All other gaps are inside a phrase: hand shifts, held chords, slow music, and short pauses near a longer one.

At a phrase end, the detector gets the releases in the gap, and then nothing more. Its delay is the time until it fires, from the
last onset and from the last release of a key (negative: it fired while a chord was held). `in time` is the share of phrase ends
at which it fired before the pianist continued. Inside a phrase, firing is a misfire; misfires are counted per minute of playing
inside phrases. The detector is reset after it fires, as in a performance.

For comparison, the table has detectors that wait for a fixed silence, from the last onset or from the time when all keys are up.
The last two columns are the misfires of fixed silences as long as the row's median delays. The constants of
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

from benchmarks.calls import open_corpus
from engine.events import NOTE_OFF, PITCHES, Timed
from engine.folders import cache_folder
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.phrases import CHORD_SPAN, PhraseDetector
from trainer.data import SPLITS, DataError

MIN_END, CERTAIN_END, NEIGHBOURHOOD = 1.0, 3.0, 5.0  # seconds; the module's docstring defines a phrase end
TIMES_MEDIAN = 3.0
PATIENCES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
FIXED_SILENCES = (1.0, 2.0)  # seconds


class Detector(Protocol):
    """What is tested: ``PhraseDetector``, or a fixed silence. ``reply_due``: the time at which it fires if
    nothing more is played."""

    def feed(self, timed: Timed) -> None: ...
    def reply_due(self) -> float | None: ...
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

    def reply_due(self) -> float | None:
        return None if self._since is None or (self._keys_up and self._held) else self._since + self._seconds


class Gap(NamedTuple):
    """The gap after a chord: the chord's first onset ``chord`` and last onset ``onset``, the time ``up`` when all keys were up,
    and the next onset ``next``, in seconds; infinite if there is none. ``is_end``: whether a phrase ends here.
    """

    chord: float
    onset: float
    up: float
    next: float
    is_end: bool = False


class ChordSegment(NamedTuple):
    """The actions from a chord's first onset up to the next chord, and the gap between the two."""

    actions: list[Timed]
    gap: Gap


def phrase_detector(patience: float) -> PhraseDetector:
    """The daemon's detector with its default settings and this patience."""
    return PhraseDetector(PhraseSettings(), lambda: patience)


def chord_segments(timed: Sequence[Timed]) -> list[ChordSegment]:
    """Cuts a performance into chords and marks the phrase ends."""
    parts: list[list[Timed]] = []
    held: set[int] = set()
    chord = onset = up = -np.inf
    gaps: list[Gap] = []
    for action in timed:
        if action.action < NOTE_OFF:
            if action.time - chord > CHORD_SPAN:
                if parts:
                    gaps.append(Gap(chord, onset, up, action.time))
                parts.append([])
                chord = action.time
            onset, up = action.time, np.inf
            held.add(action.action)
        elif action.action < NOTE_OFF + PITCHES:
            held.discard(action.action - NOTE_OFF)
            up = action.time if not held else up
        if parts:
            parts[-1].append(action)
    gaps.append(Gap(chord, onset, up, np.inf))
    return [ChordSegment(part, gap._replace(is_end=end)) for part, gap, end in zip(parts, gaps, phrase_ends(gaps), strict=True)]


def phrase_ends(gaps: Sequence[Gap]) -> list[bool]:
    """Whether each gap is a phrase end, as defined in the module's docstring."""
    onsets, nexts = np.array([gap.onset for gap in gaps]), np.array([gap.next for gap in gaps])
    lengths = nexts - onsets
    found = []
    for i, gap in enumerate(gaps):
        around = lengths[np.searchsorted(nexts, gap.onset - NEIGHBOURHOOD) : np.searchsorted(onsets, gap.next + NEIGHBOURHOOD)]
        around = around[np.isfinite(around)]
        longest = lengths[i] >= max(MIN_END, TIMES_MEDIAN * np.median(around), around.max()) if len(around) else False
        found.append(bool(np.isinf(gap.next) or (gap.up < gap.next and (lengths[i] >= CERTAIN_END or longest))))
    return found


def firing_time(detector: Detector, actions: Sequence[Timed], until: float) -> float | None:
    """Feeds actions to the detector. Returns the first time at which it fired before the next action, or before ``until`` after
    the last one; None if it did not.
    """
    time: float | None = None
    for i, action in enumerate(actions):
        detector.feed(action)
        if time is None:
            due = detector.reply_due()
            if due is not None and due < (actions[i + 1].time if i + 1 < len(actions) else until):
                time = due
    return time


def measure(pieces: Sequence[Sequence[ChordSegment]], make: Callable[[], Detector]) -> dict[str, float]:
    """Runs new detectors from ``make`` over all pieces, one for each; returns the figures of a row. Delays are in seconds."""
    misfires, in_time, ended = 0, 0, 0
    after_onset: list[float] = []
    after_release: list[float] = []
    for piece in pieces:
        detector = make()
        for actions, gap in piece:
            time = firing_time(detector, actions, np.inf if gap.is_end else gap.next)
            if gap.is_end:
                assert time is not None, "every detector fires at the end of a piece"
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


def gaps_inside(pieces: Sequence[Sequence[ChordSegment]]) -> list[Gap]:
    """The gaps that are inside a phrase."""
    return [gap for piece in pieces for _, gap in piece if not gap.is_end]


def minutes_inside(pieces: Sequence[Sequence[ChordSegment]]) -> float:
    """Minutes of playing inside phrases."""
    return sum(gap.next - gap.chord for gap in gaps_inside(pieces)) / 60


def fixed_misfires(pieces: Sequence[Sequence[ChordSegment]], seconds: float, *, keys_up: bool = False) -> float:
    """Misfires per minute of a fixed silence after the last onset; with ``keys_up``, after the time when all keys are up."""
    silences = [gap.next - (gap.up if keys_up else gap.onset) for gap in gaps_inside(pieces) if gap.up < gap.next or not keys_up]
    return sum(silence > seconds for silence in silences) / minutes_inside(pieces)


def table_line(name: str, row: dict[str, float]) -> str:
    """A row as a line of the table."""
    return (
        f"{name:22}{row['misfires_per_minute']:9.2f}{row['after_onset_p50']:10.2f}{row['after_onset_p95']:7.2f}"
        f"{row['after_release_p50']:10.2f}{row['after_release_p95']:7.2f}{row['in_time']:9.0%}"
        f"{row['as_fixed_after_onset']:10.2f}{row['as_fixed_after_release']:9.2f}"
    )


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--cache", type=click.Path(path_type=Path), default=cache_folder() / "data")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--pieces", default=0, help="Number of pieces, drawn at random; 0: all of the split.")
@click.option("--seed", default=0)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the figures to this file.")
def main(data: Path, cache: Path, split: str, pieces: int, seed: int, file: Path | None) -> None:
    try:
        corpus = open_corpus(data, cache)
    except DataError as error:
        raise click.ClickException(str(error)) from error
    chosen = corpus.split(split)
    if not chosen:
        raise click.ClickException(f"{data}: has no {split} split")
    if 0 < pieces < len(chosen):
        chosen = np.random.default_rng(seed).choice(chosen, pieces, replace=False).tolist()
    performances = []
    for piece in chosen:
        times, actions, velocities = (part.tolist() for part in corpus.actions(piece))
        performances.append(chord_segments([Timed(*action) for action in zip(times, actions, velocities, strict=True)]))
    count = sum(gap.is_end for piece in performances for _, gap in piece)
    print(f"{split}: {len(performances)} pieces, {minutes_inside(performances):.0f} minutes inside phrases, {count} phrase ends")
    print(f"{'':22}{'misfires':>9}{'after onset':>17}{'after release':>17}{'in time':>9}{'fixed silences':>19}")
    print(f"{'':22}{'/minute':>9}{'p50':>10}{'p95':>7}{'p50':>10}{'p95':>7}{'':9}{'onset':>10}{'release':>9}")
    makers: dict[str, Callable[[], Detector]] = {
        f"patience {patience:g}": partial(phrase_detector, patience) for patience in PATIENCES
    }
    makers |= {f"fixed {seconds:g} s": partial(FixedSilence, seconds) for seconds in FIXED_SILENCES}
    makers |= {
        f"fixed {seconds:g} s, keys up": partial(FixedSilence, seconds, keys_up=True) for seconds in (0.5, *FIXED_SILENCES)
    }
    rows = {}
    for name, make in makers.items():
        rows[name] = measure(performances, make)
        print(table_line(name, rows[name]), flush=True)
    if file is not None:
        file.write_text(json.dumps({"split": split, "pieces": len(performances), "ends": count, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
