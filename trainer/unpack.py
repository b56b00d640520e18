"""Archives of MIDI files -> folders. An archive is unpacked beside its place and moved there when it is whole."""

from __future__ import annotations

import contextlib
import errno
import logging
import stat
import tempfile
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path, PureWindowsPath
from tarfile import ReadError
from typing import IO

from tqdm import tqdm

from engine.hashing import sha256_of
from engine.midi_file import SUFFIXES
from trainer.data import DataError, is_music, summarised
from trainer.tars import open_tar

log = logging.getLogger(__name__)

LIMIT = 8 << 30  # bytes of an archive's music
MEMBER_LIMIT = 64 << 20  # bytes of one file: some carry a bank of sounds along
CHUNK = 1 << 18  # bytes
BAD_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.EILSEQ)

_Chunks = Generator[bytes, None, None]


class _MemberError(Exception):
    """A member that is not unpacked; the message is the reason."""


def unpack(archive: Path, cache: Path, *, limit: int = LIMIT) -> Path:
    """Unpacks the MIDI and csv files of a zip or tar archive (plain, gz, bz2, xz) into ``cache/<checksum>`` and returns that
    folder; an existing one is used again.

    Links and devices are skipped. Members with a path outside the folder, members that are too large, and members that cannot be
    read or named are skipped and counted in the log. A damaged or incomplete tar is read as far as possible. Raises ``DataError``
    for a zip without its directory, an archive without readable MIDI, or one over ``limit`` bytes unpacked; the incomplete folder
    is deleted.
    """
    try:
        folder = cache / sha256_of(archive)[:16]
        if folder.is_dir():
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=cache) as temporary:
            left_out = _extract(archive, Path(temporary) / "files", limit)
            if left_out:
                log.warning("%s: %d members left out: %s", archive, len(left_out), summarised(left_out))
            try:
                (Path(temporary) / "files").rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first
                    raise
    except DataError:
        raise
    except Exception as error:  # the reader of a damaged archive can raise anything
        raise DataError(f"{archive}: cannot be unpacked ({_line(error)}); give a whole zip or tar, or a folder") from error
    return folder


def _extract(archive: Path, folder: Path, limit: int) -> list[str]:
    """Writes the members and returns the reason for each that was left out. Bytes are counted while they are read, because the
    sizes in an archive's headers cannot be trusted.
    """
    with archive.open("rb") as file:
        members = _zip_members if file.read(2) == b"PK" else _tar_members
    count, room = 0, limit
    left_out: list[str] = []
    read_errors: list[Exception] = []

    def count_bytes(size: int) -> None:
        nonlocal room
        room -= size
        if room < 0:
            raise DataError(f"{archive}: grows over {limit:,} bytes; if you trust it, unpack it and give the folder")

    with contextlib.closing(members(archive, left_out, read_errors)) as found:
        for name, chunks in tqdm(found, desc=f"unpacking {archive.name}", unit="file", disable=None):
            path = PureWindowsPath(name)  # knows both kinds of slashes, and drives
            if not is_music(path.name) and path.suffix.lower() != ".csv":
                continue
            try:
                _write(chunks, _place(folder, path), count_bytes)
                count += is_music(path.name)
            except _MemberError as error:
                left_out.append(str(error))
    if read_errors and not count:
        raise read_errors[0]
    if read_errors:
        log.warning("%s: damaged or broken off (%s); what could be read of it is used", archive, _line(read_errors[0]))
    if not count:
        reasons = f"; left out: {summarised(left_out)}" if left_out else ""
        raise DataError(f"{archive}: no MIDI files in it ({', '.join(SUFFIXES)}){reasons}")
    return left_out


def _place(folder: Path, path: PureWindowsPath) -> Path:
    """Where a member of this name is written."""
    if path.anchor or any(not part.strip(". ") for part in path.parts):
        raise _MemberError("a name that leads out of the folder")
    target = folder.joinpath(*path.parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.open("wb").close()
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in BAD_NAMES:
            raise
        raise _MemberError("a name that no file can have here") from error
    return target


def _write(chunks: _Chunks, target: Path, count_bytes: Callable[[int], None]) -> None:
    """``count_bytes`` is called before each chunk is written. The file is removed if a ``_MemberError`` is raised."""
    total = 0
    try:
        with target.open("wb") as out, contextlib.closing(chunks):
            for chunk in chunks:
                count_bytes(len(chunk))
                total += len(chunk)
                if total > MEMBER_LIMIT:
                    raise _MemberError(f"larger than {MEMBER_LIMIT >> 20} MB")
                out.write(chunk)
    except _MemberError:
        target.unlink()
        raise


def _zip_members(archive: Path, left_out: list[str], read_errors: list[Exception]) -> Generator[tuple[str, _Chunks], None, None]:
    """``left_out`` and ``read_errors`` are used by tars only: the directory of a zip lists every member."""
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG):
                yield info.filename, _unzip(file, info)


def _unzip(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Chunks:
    """The members of a zip do not depend on one another: an error in one does not affect the others."""
    if info.flag_bits & 1:
        raise _MemberError("encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile gives others memory without bound
        raise _MemberError(f"compressed by a method that is not read ({info.compress_type})")
    if info.file_size > MEMBER_LIMIT:
        raise _MemberError(f"larger than {MEMBER_LIMIT >> 20} MB")
    try:
        with file.open(info) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except Exception as error:  # the reader of a damaged member can raise anything
        raise _MemberError("damaged") from error


def _tar_members(archive: Path, left_out: list[str], read_errors: list[Exception]) -> Generator[tuple[str, _Chunks], None, None]:
    with open_tar(archive) as file:
        try:
            for member in file:
                stream = file.extractfile(member) if member.isreg() else None
                if stream is not None:
                    with stream:
                        yield member.name, _untar(stream)
            if not file.ended:
                raise ReadError("the end is missing")
        except Exception as error:  # the reader of a damaged archive can raise anything
            read_errors.append(error)
        if file.empty and (read_errors or file.damaged):
            raise read_errors[0] if read_errors else ReadError("not a zip or tar archive")
        left_out += ["damaged"] * file.damaged


def _untar(stream: IO[bytes]) -> _Chunks:
    try:
        while chunk := stream.read(CHUNK):
            yield chunk
    except Exception as error:
        raise _MemberError("damaged") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__.lstrip('_')}: {str(error).partition(chr(10))[0]}".rstrip(": ")
