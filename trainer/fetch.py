"""Training data as the user named it -> a folder of MIDI files on disk.

    resolve("maestro", cache)       the MAESTRO dataset, from its publisher
    resolve("songs.tar.gz", cache)  an archive, unpacked into the cache
    resolve("./maestro", cache)     a folder, used where it is

Only a whole download of the right checksum gets its name.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pooch

from trainer.data import DataError
from trainer.unpack import unpack

# MAESTRO v3.0.0, MIDI only: 58,416,533 bytes, CC BY-NC-SA 4.0; the checksum is on https://magenta.withgoogle.com/datasets/maestro
MAESTRO_URL = "https://storage.googleapis.com/magentadata/datasets/maestro/v3.0.0/maestro-v3.0.0-midi.zip"
MAESTRO_SHA256 = "70470ee253295c8d2c71e6d9d4a815189e35c89624b76d22fce5a019d5dde12c"
ATTEMPTS = 5
TIMEOUT = 30.0  # seconds without a byte


def resolve(data: str, cache: Path) -> Path:
    """The folder to read for DATA: the word ``maestro``, an archive or a folder. The word always means the dataset, also where a
    folder of that name lies; ``./maestro`` means the folder. Raises ``DataError``.
    """
    if data == "maestro":
        return maestro(cache)
    path = Path(data)
    try:
        if data and path.is_dir():
            return path
        if path.is_file():
            return unpack(path, cache)
    except OSError as error:  # a name too long, a folder that may not be entered
        raise DataError(f"{data}: cannot be read ({error.strerror})") from error
    raise DataError(f"{data or 'DATA'}: nothing is there; give a folder of MIDI files, a zip or tar archive, or the word maestro")


def maestro(cache: Path) -> Path:
    """MAESTRO v3.0.0's MIDI files and its table of splits, downloaded and unpacked unless they are in the cache."""
    folder = cache / MAESTRO_SHA256[:16]  # as unpack names it
    if folder.is_dir():
        return folder
    return unpack(download(MAESTRO_URL, cache / MAESTRO_URL.rpartition("/")[2], sha256=MAESTRO_SHA256), cache)


def download(url: str, target: Path, *, sha256: str, attempts: int = ATTEMPTS, timeout: float = TIMEOUT) -> Path:
    """Downloads ``url`` to the file ``target``, unless a file with this checksum is there. Returns ``target``.

    ``timeout``: seconds without a byte. Raises ``DataError`` after ``attempts`` failed attempts; incomplete files are deleted.
    """
    registry = {target.name: f"sha256:{sha256}"}
    try:
        store = pooch.create(target.parent, "", registry=registry, urls={target.name: url}, retry_if_failed=attempts - 1)
        store.fetch(target.name, downloader=pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=timeout))
    except (OSError, ValueError) as error:  # of the network or the disk; a wrong checksum
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{url}: not downloaded to {target} ({reason}); try again, or download it by hand and name it") from error
    return target
