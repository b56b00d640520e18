"""Tar archives, read as far as they can be: a damaged header costs one member."""

from __future__ import annotations

from pathlib import Path
from tarfile import BLOCKSIZE, EOFHeaderError, InvalidHeaderError, ReadError, SubsequentHeaderError, TarFile, TarInfo  # type: ignore[attr-defined]  # not in typeshed
from typing import Any, Literal

LONGEST_SEARCH = 64 << 20  # bytes, in which a header has to be found after a damaged one
COMPRESSIONS: dict[bytes, Literal["r:gz", "r:bz2", "r:xz"]] = {b"\x1f\x8b": "r:gz", b"BZh": "r:bz2", b"\xfd7zXZ\0": "r:xz"}


class _Header(TarInfo):
    """The header of a member. Reports to the archive whether one was found."""

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Any:
        assert isinstance(tarfile, TolerantTar)
        try:
            header = super().fromtarfile(tarfile)
        except EOFHeaderError:
            tarfile.ended = True
            raise
        except (InvalidHeaderError, SubsequentHeaderError, ValueError) as error:
            tarfile.skip()
            raise InvalidHeaderError(str(error)) from None  # tarfile tries the next block
        tarfile.found()
        return header


class TolerantTar(TarFile):
    """Iterates over the members that can be read; an exception of the reader does not affect members read before.

    ``damaged``: number of damaged places, each the header of one member or more. ``empty``: no member was found. ``ended``: the
    zeros that end an archive were the last that was read.
    """

    tarinfo = _Header
    damaged, empty, ended = 0, True, False
    _skipped = 0  # blocks since the last header

    def found(self) -> None:
        """A header was read."""
        self._skipped, self.empty, self.ended = 0, False, False

    def skip(self) -> None:
        """A block is no header. Raises ``ReadError`` if there were too many of them."""
        self.damaged += not self._skipped and not self.ended
        self._skipped += 1
        if self._skipped * BLOCKSIZE > LONGEST_SEARCH:
            raise ReadError("no header is found any more")


def open_tar(path: Path) -> TolerantTar:
    """Opens a tar archive: plain, gz, bz2 or xz, detected by its first bytes. Raises what tarfile raises."""
    with path.open("rb") as file:
        begin = file.read(8)
    for magic, mode in COMPRESSIONS.items():
        if begin.startswith(magic):
            return TolerantTar.open(path, mode, ignore_zeros=True)
    return TolerantTar.open(path, "r:", ignore_zeros=True)
