"""Training data as the user named it -> a folder of MIDI files on disk.

    resolve("maestro", cache)       the MAESTRO dataset, from its publisher
    resolve("songs.tar.gz", cache)  an archive, unpacked into the cache
    resolve("./maestro", cache)     a folder, used where it is

A download goes to ``<name>.part`` and is picked up there after any interruption; only a whole file of the right checksum gets
its name.
"""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import httpx
from tqdm import tqdm

from trainer.data import DataError
from trainer.unpack import checksum, unpack

log = logging.getLogger(__name__)

# MAESTRO v3.0.0, MIDI only: 58,416,533 bytes, CC BY-NC-SA 4.0; the checksum is on https://magenta.withgoogle.com/datasets/maestro
MAESTRO_URL = "https://storage.googleapis.com/magentadata/datasets/maestro/v3.0.0/maestro-v3.0.0-midi.zip"
MAESTRO_SHA256 = "70470ee253295c8d2c71e6d9d4a815189e35c89624b76d22fce5a019d5dde12c"
DOWNLOAD_LIMIT = 4 << 30  # bytes
LONGEST_WAIT = 30.0  # seconds between two attempts
BY_HAND = "or get it by hand and give the archive"


class _Busy(Exception):
    """A server that may give a better answer later."""


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


def download(
    url: str,
    target: Path,
    *,
    sha256: str,
    limit: int = DOWNLOAD_LIMIT,
    attempts: int = 5,
    backoff: float = 1.0,
    timeout: float = 30.0,
) -> Path:
    """``url`` as the file ``target``, which is returned; without any request where it lies there already.

    ``limit``: bytes. ``attempts``: failures in a row, without a new byte between them, before it gives up. ``backoff``: seconds
    after the first failure, doubled after each. ``timeout``: seconds of silence. Raises ``DataError``; what has come stays in
    ``<target>.part`` for the next call, unless the whole has another checksum.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        if target.is_file() and checksum(target) == sha256:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (part.is_file() and checksum(part) == sha256):
            with httpx.Client(follow_redirects=True, timeout=timeout) as client:
                _fetch(client, url, part, sha256=sha256, limit=limit, attempts=attempts, backoff=backoff)
        part.replace(target)
        _discard(part)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error}); make room or choose another folder") from error
    return target


def _fetch(client: httpx.Client, url: str, part: Path, *, sha256: str, limit: int, attempts: int, backoff: float) -> None:
    """Fills ``part`` until its checksum is right."""
    failures, furthest, reason = 0, _size(part), ""
    while failures < attempts:
        if failures:
            time.sleep(min(backoff * 2 ** (failures - 1), LONGEST_WAIT))
        try:
            resumed = _receive(client, url, part, limit)
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise DataError(f"{url}: cannot be downloaded ({_line(error)}); check the address, {BY_HAND}") from error
        except (httpx.TransportError, _Busy) as error:
            failures = 1 if _size(part) > furthest else failures + 1
            furthest, reason = max(furthest, _size(part)), _line(error)
            log.warning("%s: %s", url, reason)
            continue
        found = checksum(part)
        if found == sha256:
            return
        _discard(part)
        if not resumed:
            raise DataError(f"{url}: expected SHA-256 {sha256}, found {found}; nothing was kept, try again later, {BY_HAND}")
        failures, reason = failures + 1, "what was resumed does not fit together"
    kept = f"{_size(part):,} bytes are kept in {part}, " if _size(part) else ""
    raise DataError(f"{url}: cannot be downloaded ({reason}); {kept}run it again once the network is back, {BY_HAND}")


def _receive(client: httpx.Client, url: str, part: Path, limit: int) -> bool:
    """One request, for what ``part`` lacks. True if it went on from what was there. RFC 9110, sections 13.1.5 and 14."""
    have, tag = _size(part), _strong(_tag(part).read_text(errors="replace")) if _tag(part).exists() else ""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    headers |= {"If-Range": tag} if have and tag else {}
    with client.stream("GET", url, headers=headers) as response:
        status, new = response.status_code, _strong(response.headers.get("ETag", ""))
        covers = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        goes_on = have > 0 and status == 206 and covers and (not tag or new in ("", tag))
        if goes_on or status == 200:
            start = have if goes_on else 0
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() else None
            if (total or 0) <= limit and _append(response, part, start, total, limit, tag=tag if goes_on else new):
                return goes_on
            _discard(part)
            raise DataError(f"{url}: more than the {limit:,} bytes that are allowed; check the address, {BY_HAND}")
        if status >= 500 or status in (408, 429):
            raise _Busy(f"HTTP {status} {response.reason_phrase}")
        if not (have and status in (206, 416)):
            raise DataError(f"{url}: the server answers HTTP {status} {response.reason_phrase}; check the address, {BY_HAND}")
    _discard(part)  # it is of another version, or longer than the file
    return _receive(client, url, part, limit)


def _append(response: httpx.Response, part: Path, start: int, total: int | None, limit: int, *, tag: str) -> bool:
    """The body, behind the first ``start`` bytes of ``part``. False as soon as that would be more than ``limit``."""
    bar = tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None)
    with part.open("ab" if start else "wb") as file, bar:
        _tag(part).write_text(tag)  # before the bytes it tells of
        for chunk in response.iter_raw():
            start += len(chunk)
            if start > limit:
                return False
            file.write(chunk)
            bar.update(len(chunk))
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tag(part: Path) -> Path:
    """Where the version of an unfinished download is written down, so that a later run can ask for the rest of the same one."""
    return part.with_name(f"{part.name}.etag")


def _strong(tag: str) -> str:
    """An ETag that If-Range may name, or nothing."""
    return tag if re.fullmatch('"[!#-~]*"', tag) else ""


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def _line(error: Exception) -> str:
    return f"{type(error).__name__.lstrip('_')}: {str(error).partition(chr(10))[0]}".rstrip(": ")
