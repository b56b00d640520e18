"""The journal of a recording: an append-only file of played actions. If the session is killed, only the last moments are lost.

The file is a header, then records of 16 bytes: time (float64, seconds), action (uint16), velocity and part (uint8), CRC-32 of
those. Records have fixed offsets, so a damaged record does not affect later ones. An open journal is locked.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import struct
import sys
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from engine.events import REST, Timed

HEADER = b"perceivers-live\x01"
_RECORD, _CRC = struct.Struct("<dHBB"), struct.Struct("<I")
RECORD_BYTES = _RECORD.size + _CRC.size
_READ_AT_ONCE = RECORD_BYTES << 12
MAX_BYTES = RECORD_BYTES << 20  # a million actions; converting them to a MIDI file takes half a gigabyte of memory


class JournalError(ValueError):
    """The file is not a journal; the message is one line."""


class Entry(NamedTuple):
    """An action and the number of the part (track) that played it."""

    part: int
    timed: Timed

    def encoded(self) -> bytes:
        record = _RECORD.pack(self.timed.time, self.timed.action, self.timed.velocity, self.part)
        return record + _CRC.pack(zlib.crc32(record))


def decoded(record: bytes) -> Entry | None:
    """Decodes a record; None if it is damaged."""
    time, action, velocity, part = _RECORD.unpack_from(record)
    if _CRC.unpack_from(record, _RECORD.size)[0] != zlib.crc32(record[: _RECORD.size]):
        return None
    good = math.isfinite(time) and action < REST and velocity < 128 and part < 16
    return Entry(part, Timed(time, action, velocity)) if good else None


class Journal:
    """An open and locked journal, made by ``create`` or ``open``."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._end = os.fstat(file.fileno()).st_size

    @classmethod
    def create(cls, path: Path) -> Journal:
        """Creates a journal. Raises ``OSError``; ``FileExistsError`` if the name is in use."""
        file = cast(BinaryIO, path.open("xb+", buffering=0))
        try:
            if not _lock(file) or not _is_at(path, file):  # another daemon removed the empty file as a leftover
                raise FileExistsError(f"{path} is in use")
            journal = cls(path, file)
            journal.append(HEADER)
        except BaseException:
            file.close()
            raise
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal | None:
        """Opens the journal of a killed session; None while another process has it open. Raises ``OSError``, ``JournalError``."""
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        file = cast(BinaryIO, path.open("rb+", buffering=0))
        try:
            if _lock(file) and _is_at(path, file):
                if not HEADER.startswith(file.read(len(HEADER))):
                    raise JournalError(f"{path}: not a journal of this version")
                return cls(path, file)
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    @staticmethod
    def look(path: Path) -> tuple[list[Entry], int]:
        """Reads a journal that another process may have open and locked. Returns what ``read`` returns. Raises ``OSError``,
        ``JournalError``.
        """
        with path.open("rb", buffering=0) as file:
            if file.read(len(HEADER)) != HEADER:
                raise JournalError(f"{path}: not a journal of this version")
            return Journal(path, cast(BinaryIO, file)).read()

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._end

    def append(self, records: bytes) -> None:
        """Appends records. Raises ``OSError`` if not all were written; appending the same records again is then safe."""
        self._file.seek(self._end)
        written = 0
        while written < len(records):
            written += self._file.write(records[written:])
        self._end += written

    def sync(self) -> None:
        """Flushes the file to the disk (fsync). Raises ``OSError``."""
        os.fsync(self._file.fileno())

    def read(self) -> tuple[list[Entry], int]:
        """Returns the entries and the number of damaged records. An incomplete last record is ignored. Raises ``OSError``, and
        ``JournalError`` for a file over ``MAX_BYTES``.
        """
        if self._end > MAX_BYTES:
            raise JournalError(f"{self.path}: larger than {MAX_BYTES >> 20} MB, not read")
        entries: list[Entry] = []
        damaged = 0
        self._file.seek(len(HEADER))
        rest = b""
        while block := self._file.read(_READ_AT_ONCE):
            block = rest + block
            whole = len(block) - len(block) % RECORD_BYTES
            rest = block[whole:]
            for start in range(0, whole, RECORD_BYTES):
                entry = decoded(block[start : start + RECORD_BYTES])
                if entry is None:
                    damaged += 1
                else:
                    entries.append(entry)
        return entries, damaged

    def remove(self) -> None:
        """Closes and deletes the journal. Truncates it first, so that another process that opens it finds no data."""
        with contextlib.suppress(OSError):
            self._file.truncate(0)
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether ``path`` still refers to this open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> bool:
        """Locks the file until it is closed or the process ends; False if it is locked already."""
        file.seek(1 << 30)  # far behind the end, since Windows prevents others from reading locked bytes
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            file.seek(0)
        return True

else:
    import fcntl

    def _lock(file: BinaryIO) -> bool:
        """Locks the file until it is closed or the process ends; False if it is locked already."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True
