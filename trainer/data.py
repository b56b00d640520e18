"""MIDI files -> a packed, memory-mapped cache of timed actions.

``trainer.reading`` parses the files. The cache keeps absolute times in units of 0.1 ms rather than events: stretching and
quantizing happen when an example is drawn, so augmentation costs no copies. Three flat arrays, one entry an action, and an
index of pieces, in a folder named by the files' content and the settings:

    times.npy  uint32    actions.npy  uint16    velocities.npy  uint8    index.json
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from engine.errors import UserError
from engine.events import NOTE_OFF
from engine.midi_file import MAX_FILE_BYTES, SUFFIXES, MidiFileError, load
from trainer.reading import Actions as Actions
from trainer.reading import prepare_actions, to_actions

log = logging.getLogger(__name__)

UNITS_PER_SECOND = 10_000
FORMAT = 6
PEDALS = ("events", "extend")
UNREADABLE = "unreadable"
HOLD_OUT_EVERY = 20  # one of so many files is held out
SPLITS = ("train", "validation", "test")
HELD_OUT = ("validation", "test")
ALL = "all"  # of the pieces, whatever their split
MIN_NOTES = 16  # files with fewer notes are not used


class DataError(UserError, ValueError):
    """Training data that cannot be used; the message is one line for the user."""


class _Read(NamedTuple):
    """The result of reading a file: its actions, or the reason for rejecting it; and the damage, if there is any."""

    actions: Actions | None
    reason: str = ""
    damage: str = ""


def _read(path: Path, pedal: str) -> _Read:
    try:
        performance = load(path)
        actions = prepare_actions(to_actions(performance), pedal)
    except MidiFileError as error:
        return _Read(None, str(error).removeprefix(f"{path}: "))
    except Exception as error:  # no file may stop a run
        return _Read(None, f"{type(error).__name__}: {error}".splitlines()[0])
    if np.count_nonzero(actions.actions < NOTE_OFF) < MIN_NOTES:
        return _Read(None, f"fewer than {MIN_NOTES} notes")
    return _Read(actions, damage=performance.damage)


def is_music(name: str) -> bool:
    """Whether a file of this name is read, by its suffix; not macOS's metadata files (``._a.mid``)."""
    return name.lower().endswith(SUFFIXES) and not name.startswith("._")


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, in order. Folders that cannot be read are skipped."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def find_files(folder: Path) -> list[tuple[Path, str | None]]:
    """MIDI files below a folder with their split: MAESTRO's own if its csv is there (``train`` for files that it does not name);
    else None.
    """
    found = list(_walk(folder))
    files = sorted(path for path in found if is_music(path.name) and os.path.isfile(path))  # noqa: PTH113 (is_file() can raise)
    official: dict[Path, str] = {}
    for table in (path for path in found if path.match("maestro-*.csv")):
        try:
            with table.open(newline="", encoding="utf-8") as lines:
                rows = list(csv.DictReader(lines))
        except (OSError, UnicodeError, csv.Error) as error:
            raise DataError(f"{table}: not a csv file ({error})") from error
        if any(row.get("split") not in SPLITS or not row.get("midi_filename") for row in rows):
            raise DataError(f"{table}: every row needs a midi_filename and a split of {', '.join(SPLITS)}")
        official |= {table.parent / row["midi_filename"]: row["split"] for row in rows}
    if official:
        return [(path, official.get(path, "train")) for path in files]
    return [(path, None) for path in files]


def prepare(folder: Path, cache: Path, *, pedal: str = "events", workers: int | None = None) -> Path:
    """Packs a folder of MIDI files into ``cache/<key>`` and returns it; a cache of the same files and settings is used again, and
    a folder that is a packed cache is used as it is.

    ``pedal``: sustain as ``events`` of its own, or folded into the notes (``extend``). Files that cannot be used, and copies of
    other files, are counted in the log and named in the index. Of the files without an official split, every 20th by name is held
    out for validation; with fewer than 20 files, the last one. Raises ``DataError`` if nothing is left.
    """
    if (folder / "index.json").is_file() and (folder / "times.npy").is_file():
        if (packed := Corpus(folder).pedal) != pedal:
            raise DataError(f"{folder}: packed with the pedal as {packed}, wanted as {pedal}; give the MIDI files")
        return folder
    files = find_files(folder)
    if not files:
        raise DataError(f"{folder}: no MIDI files found ({', '.join(SUFFIXES)})")
    contents = {path: _content(path) for path, _ in files}
    target = cache / _key(folder, files, contents, pedal)
    if (target / "index.json").exists():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache, prefix="packing-") as temporary:  # other processes may pack the same files
            made = Path(temporary) / target.name
            made.mkdir()
            skipped, damaged = _pack(folder, files, _copies(files, contents), made, pedal, workers)
            _move(made, target)
    except BrokenProcessPool as error:
        raise DataError(f"{folder}: a process that parses the files was killed, probably for lack of memory") from error
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}); make room or choose another --cache"
        ) from error
    for what, which in (("left out", skipped), ("damaged and read as far as they go", damaged)):
        if which:
            log.warning("%d of %d files %s: %s", len(which), len(files), what, summarised(which.values()))
    if skipped or damaged:
        log.warning("they are named in %s", target / "index.json")
    return target


def _move(packed: Path, target: Path) -> None:
    """Moves a whole cache to its place, unless another process was faster. Raises ``OSError``."""
    try:
        packed.rename(target)
    except OSError:
        if not (target / "index.json").exists():
            target.rename(packed.with_name("unfinished"))  # left over from an interruption
            packed.rename(target)


def _pack(
    folder: Path, files: list[tuple[Path, str | None]], copies: set[Path], target: Path, pedal: str, workers: int | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Writes a cache of the files but ``copies`` to the folder ``target``. Returns the reasons by file: of those left out, and of
    those damaged.
    """
    pieces: list[dict[str, Any]] = []
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # in the small types of the cache: a corpus may have 10^9 actions
    skipped = {str(path.relative_to(folder)): "a copy of another file" for path in sorted(copies)}
    files = [(path, split) for path, split in files if path not in copies]
    damaged: dict[str, str] = {}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = pool.map(partial(_read, pedal=pedal), [path for path, _ in files], chunksize=8)
        for (path, split), read in zip(files, tqdm(results, total=len(files), desc="parsing", unit="file"), strict=True):
            name = str(path.relative_to(folder))
            if read.actions is None:
                skipped[name] = read.reason
                continue
            if read.damage:
                damaged[name] = read.damage
            offset = pieces[-1]["stop"] if pieces else 0
            where = {"start": offset, "stop": offset + len(read.actions.times)}
            pieces.append({"name": name, "split": split, **where})
            _, actions, velocities = read.actions
            parts.append((packed_times(read.actions), actions.astype(np.uint16), velocities.astype(np.uint8)))
    if not parts:
        raise DataError(f"{folder}: none of {len(files)} MIDI files could be used: {summarised(skipped.values())}")
    held_out = min(HOLD_OUT_EVERY, len(pieces)) - 1
    for i, piece in enumerate(pieces):
        piece["split"] = piece["split"] or ("validation" if i % HOLD_OUT_EVERY == held_out else "train")
    for name, arrays in zip(("times", "actions", "velocities"), zip(*parts, strict=True), strict=True):
        np.save(target / f"{name}.npy", np.concatenate(arrays))
    index = {"format": FORMAT, "pedal": pedal, "pieces": pieces, "skipped": skipped, "damaged": damaged}
    (target / "index.json").write_text(json.dumps(index, indent=1))
    log.info("%d of %d files used", len(parts), len(files) + len(copies))
    return skipped, damaged


def summarised(reasons: Iterable[str], most: int = 5) -> str:
    """The number of times that each reason was given, in one line: the ``most`` frequent ones, and the sum of the others."""
    counts = Counter(reasons)
    rest = counts.total() - sum(count for _, count in counts.most_common(most))
    parts = [f"{count} {reason}" for reason, count in counts.most_common(most)]
    return "; ".join([*parts, f"{rest} for other reasons"] if rest else parts)


def packed_times(piece: Actions) -> np.ndarray:
    """A piece's times as the cache keeps them, since its first action: uint32 [n]."""
    return np.round((piece.times - piece.times[:1]) * UNITS_PER_SECOND).astype(np.uint32)


def _are_contiguous(pieces: list[dict[str, Any]], *lengths: int) -> bool:
    """Whether the pieces are contiguous in arrays of these lengths, have names, and belong to an existing split."""
    stop = 0
    for piece in pieces:
        if type(piece["stop"]) is not int or piece["start"] != stop or piece["stop"] <= stop:
            return False
        if not isinstance(piece["name"], str) or piece["split"] not in SPLITS:
            return False
        stop = piece["stop"]
    return set(lengths) == {stop}


def _copies(files: list[tuple[Path, str | None]], contents: dict[Path, str]) -> set[Path]:
    """All but one of the files with the same content, so that no performance is in two splits. Of copies that official splits
    name, the one that is not for training is kept.
    """
    kept: dict[str, Path] = {}
    readable = [file for file in files if not contents[file[0]].startswith(UNREADABLE)]
    for path, _ in sorted(readable, key=lambda file: file[1] in (None, "train")):
        kept.setdefault(contents[path], path)
    return {path for path, _ in readable if kept[contents[path]] != path}


def _key(folder: Path, files: list[tuple[Path, str | None]], contents: dict[Path, str], pedal: str) -> str:
    key = hashlib.sha256(json.dumps([FORMAT, pedal]).encode())
    for path, split in files:
        key.update(json.dumps([str(path.relative_to(folder)), split, contents[path]]).encode())
    return key.hexdigest()[:16]


def _content(path: Path) -> str:
    """SHA-256 of the part of a file that is read, or why it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(MAX_FILE_BYTES + 1)).hexdigest()
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror}"


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
            good = self.pedal in PEDALS and _are_contiguous(
                self.pieces, len(self._times), len(self._actions), len(self._velocities)
            )
        except DataError:
            raise
        except Exception as error:  # of whatever is not as ``prepare`` writes it
            raise DataError(f"{folder}: a damaged cache, delete it ({type(error).__name__})") from error
        if not good:
            raise DataError(f"{folder}: a damaged cache, delete it (its index does not fit its arrays)")

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        return Corpus, (self.folder,)

    def split(self, name: str) -> list[int]:
        """Indices of the pieces of a split, or of ``ALL`` of them."""
        return [i for i, piece in enumerate(self.pieces) if name in (piece["split"], ALL)]

    def length(self, piece: int) -> int:
        """Number of actions of a piece."""
        return int(self.pieces[piece]["stop"] - self.pieces[piece]["start"])

    def actions(self, piece: int) -> Actions:
        """A piece as arrays [n]: times in seconds, actions, MIDI velocities."""
        where = slice(self.pieces[piece]["start"], self.pieces[piece]["stop"])
        return Actions(
            self._times[where] / UNITS_PER_SECOND,
            self._actions[where].astype(np.int64),
            self._velocities[where].astype(np.int64),
        )
