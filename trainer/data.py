"""MIDI files -> a packed, memory-mapped cache of timed actions.

The cache keeps absolute times in units of 0.1 ms rather than events: stretching and quantising happen when an example is
drawn, so augmentation costs no copies. Three flat arrays, one entry an action, and an index of pieces, in a folder named by
the files' content and the settings:

    times.npy  uint32    actions.npy  uint16    velocities.npy  uint8    index.json
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from engine.codec import extend_pedal
from engine.errors import UserError
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import LONGEST, MAX_FILE_BYTES, MidiFileError, read_file

log = logging.getLogger(__name__)

UNITS_PER_SECOND = 10_000
FORMAT = 4
PEDALS = ("events", "extend")
EVERY = 20  # files, of which one is held out
SPLITS = ("train", "validation", "test")


class DataError(UserError, ValueError):
    """Training data that cannot be used; the message is one line for the user."""


class Actions(NamedTuple):
    """One performance: times in seconds float64 [n], actions int64 [n], MIDI velocities int64 [n]."""

    times: np.ndarray
    actions: np.ndarray
    velocities: np.ndarray


def parse(path: Path) -> Actions:
    """A MIDI file as clean actions, all channels but the drums merged. Raises what its readers raise for broken files, and
    ``MidiFileError`` for one that is larger or longer than music is.

    symusic reads the plain case, one track whose notes do not overlap on a key; everything else goes through the slower reader
    that live playing uses, so that both mean the same by the same music. (One difference is left: symusic drops tracks that hold
    a pedal but no notes.)
    """
    import symusic

    if path.stat().st_size > MAX_FILE_BYTES:
        raise MidiFileError(f"larger than {MAX_FILE_BYTES >> 20} MB")
    score: Any = symusic.Score(path, ttype="second")
    if not score.end() <= LONGEST:
        raise MidiFileError(f"lasts longer than {LONGEST / 3600:g} hours")
    tracks = [track for track in score.tracks if not track.is_drum and (len(track.notes) or len(track.controls))]
    if len(tracks) != 1:
        return _parse_slowly(path)
    notes, controls = tracks[0].notes.numpy(), tracks[0].controls.numpy()
    start, pitch = notes["time"].astype(np.float64), notes["pitch"].astype(np.int64)
    end = start + notes["duration"]
    order = np.lexsort((start, pitch))
    start, end, pitch = start[order], end[order], pitch[order]
    velocity = notes["velocity"][order].astype(np.int64)
    same = pitch[1:] == pitch[:-1]
    late = same & (end[:-1] > start[1:])
    if (end <= start).any() or (late & (end[:-1] - start[1:] > 1e-4)).any():
        return _parse_slowly(path)
    end[:-1] = np.where(late, start[1:], end[:-1])  # float32 seconds: a release at the next strike, give or take a hair
    pedal_times, pedal_actions = _pedal(controls)
    times = np.concatenate((start, end, pedal_times))
    actions = np.concatenate((NOTE_ON + pitch, NOTE_OFF + pitch, pedal_actions))
    velocities = np.concatenate((velocity, np.zeros(len(end) + len(pedal_times), np.int64)))
    rank = np.repeat((2, 0, 1), (len(start), len(end), len(pedal_times)))  # at one instant: releases, pedal, strikes
    order = np.lexsort((rank, times))  # stable: pedal flips of one instant stay in order
    return Actions(times[order], actions[order], velocities[order])


def _parse_slowly(path: Path) -> Actions:
    return actions_of(read_file(path))


def actions_of(timed: Iterable[Timed]) -> Actions:
    """Timed actions as arrays."""
    timed = list(timed)
    columns = [np.array([one[i] for one in timed]) for i in range(3)]
    return Actions(columns[0].astype(np.float64), columns[1].astype(np.int64), columns[2].astype(np.int64))


def _pedal(controls: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sustain flips, CC64 at or over 64; CC121 lifts the pedal."""
    time = controls["time"][np.isin(controls["number"], (64, 121))].astype(np.float64)
    number = controls["number"][np.isin(controls["number"], (64, 121))]
    down = (controls["value"][np.isin(controls["number"], (64, 121))] >= 64) & (number == 64)
    order = np.argsort(time, kind="stable")
    time, down = time[order], down[order]
    flips = np.flatnonzero(np.diff(down, prepend=False))
    return time[flips], np.where(down[flips], SUSTAIN_DOWN, SUSTAIN_UP)


def extended(piece: Actions) -> Actions:
    """Sustain folded into the notes: no pedal actions, notes that last as long as they sound."""
    return actions_of(extend_pedal(Timed(*row) for row in zip(*(part.tolist() for part in piece), strict=True)))


def _parse_or_reason(path: Path, pedal: str) -> Actions | str:
    try:
        actions = parse(path)
        if pedal == "extend" and len(actions.times):
            actions = extended(actions)
    except Exception as error:  # a corrupt file must never stop a run
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return actions if np.count_nonzero(actions.actions < NOTE_OFF) >= 16 else "fewer than 16 notes"


def find_files(folder: Path) -> list[tuple[Path, str | None]]:
    """MIDI files below a folder with their split: MAESTRO's own where its csv lies beside them, and ``train`` for what that does
    not name; None where there is no csv.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".mid", ".midi") and path.is_file())
    official: dict[Path, str] = {}
    for table in folder.rglob("maestro-*.csv"):
        try:
            with table.open(newline="", encoding="utf-8") as lines:
                rows = list(csv.DictReader(lines))
        except (OSError, UnicodeError, csv.Error) as error:
            raise DataError(f"{table}: no table of comma-separated values ({error})") from error
        if any(row.get("split") not in SPLITS or not row.get("midi_filename") for row in rows):
            raise DataError(f"{table}: every row needs a midi_filename and a split of {', '.join(SPLITS)}")
        official |= {table.parent / row["midi_filename"]: row["split"] for row in rows}
    if official:
        return [(path, official.get(path, "train")) for path in files]
    return [(path, None) for path in files]


def prepare(folder: Path, cache: Path, *, pedal: str = "events", workers: int | None = None) -> Path:
    """Packs a folder of MIDI files into ``cache/<key>`` and returns it; a cache of the same files and settings is used again.

    ``pedal``: sustain as ``events`` of its own, or folded into the notes (``extend``). Files that cannot be used are counted
    and named in the log and in the index, never fatal. Where no split is official, every 20th of the others by name, or the last
    one of fewer, is held out for validation. Raises ``DataError`` if nothing is left.
    """
    files = find_files(folder)
    if not files:
        raise DataError(f"{folder}: no .mid or .midi files found")
    target = cache / _key(folder, files, pedal)
    if (target / "index.json").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    pieces: list[dict[str, Any]] = []
    parts: list[Actions] = []
    skipped: list[str] = []
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = pool.map(partial(_parse_or_reason, pedal=pedal), [path for path, _ in files], chunksize=8)
        for (path, split), result in zip(files, tqdm(results, total=len(files), desc="parsing", unit="file"), strict=True):
            if isinstance(result, str):
                skipped.append(f"{path.relative_to(folder)}: {result}")
                continue
            offset = pieces[-1]["stop"] if pieces else 0
            where = {"start": offset, "stop": offset + len(result.times)}
            pieces.append({"name": str(path.relative_to(folder)), "split": split, **where})
            parts.append(result)
    held_out = min(EVERY, len(pieces)) - 1
    for i, piece in enumerate(pieces):
        piece["split"] = piece["split"] or ("validation" if i % EVERY == held_out else "train")
    for reason in skipped:
        log.warning("skipped %s", reason)
    log.info("%d of %d files used, %d skipped", len(parts), len(files), len(skipped))
    if not parts:
        raise DataError(f"{folder}: none of {len(files)} MIDI files could be used, first reason: {skipped[0]}")
    np.save(target / "times.npy", np.concatenate([packed_times(part) for part in parts]))
    np.save(target / "actions.npy", np.concatenate([p.actions for p in parts]).astype(np.uint16))
    np.save(target / "velocities.npy", np.concatenate([p.velocities for p in parts]).astype(np.uint8))
    index = json.dumps({"format": FORMAT, "pedal": pedal, "pieces": pieces, "skipped": skipped}, indent=1)
    (target / "index.json.part").write_text(index)
    (target / "index.json.part").replace(target / "index.json")  # last and atomic: an index means a whole cache
    return target


def packed_times(piece: Actions) -> np.ndarray:
    """A piece's times as the cache keeps them, since its first action: uint32 [n]."""
    return np.round((piece.times - piece.times[0]) * UNITS_PER_SECOND).astype(np.uint32)


def _follow(pieces: list[dict[str, Any]], *lengths: int) -> bool:
    """Whether pieces lie one after another in arrays of these lengths, named and of a split that there is."""
    stop = 0
    for piece in pieces:
        if type(piece["stop"]) is not int or piece["start"] != stop or piece["stop"] <= stop:
            return False
        if not isinstance(piece["name"], str) or piece["split"] not in SPLITS:
            return False
        stop = piece["stop"]
    return set(lengths) == {stop}


def _key(folder: Path, files: list[tuple[Path, str | None]], pedal: str) -> str:
    key = hashlib.sha256(json.dumps([FORMAT, pedal]).encode())
    for path, split in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        key.update(json.dumps([str(path.relative_to(folder)), split, content]).encode())
    return key.hexdigest()[:16]


class Corpus:
    """A packed cache, memory-mapped: processes that are given one map the same files. Raises ``DataError``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if index.get("format") != FORMAT:
                raise DataError(f"{folder}: a cache of another format, delete it and prepare the data again")
            self.pedal: str = index["pedal"]
            self.pieces: list[dict[str, Any]] = index["pieces"]
            self._times = np.load(folder / "times.npy", mmap_mode="r")
            self._actions = np.load(folder / "actions.npy", mmap_mode="r")
            self._velocities = np.load(folder / "velocities.npy", mmap_mode="r")
            good = self.pedal in PEDALS and _follow(self.pieces, len(self._times), len(self._actions), len(self._velocities))
        except DataError:
            raise
        except Exception as error:  # of whatever is not as ``prepare`` writes it
            raise DataError(f"{folder}: a damaged cache, delete it ({type(error).__name__})") from error
        if not good:
            raise DataError(f"{folder}: a damaged cache, delete it (its index does not fit its arrays)")

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        return Corpus, (self.folder,)

    def split(self, name: str) -> list[int]:
        """Indices of the pieces of a split."""
        return [i for i, piece in enumerate(self.pieces) if piece["split"] == name]

    def length(self, piece: int) -> int:
        return int(self.pieces[piece]["stop"] - self.pieces[piece]["start"])

    def actions(self, piece: int) -> Actions:
        where = slice(self.pieces[piece]["start"], self.pieces[piece]["stop"])
        return Actions(
            self._times[where] / UNITS_PER_SECOND,
            self._actions[where].astype(np.int64),
            self._velocities[where].astype(np.int64),
        )
