"""Lists and returns recordings of earlier sessions. The page parses and draws them."""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import UserError
from engine.midi_file import MAX_FILE_BYTES

MAX_LISTED = 500  # newest recordings
NAME = re.compile(r"[0-9A-Za-z_-]{1,80}")


class RecordingsError(UserError):
    """The recording does not exist or cannot be read."""


class Recordings:
    """The MIDI files in ``folder``. Thread-safe; methods wait for the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recordings(self) -> list[dict[str, object]]:
        """Name and size in bytes of each recording, newest first. Raises ``RecordingsError``."""
        try:
            found = sorted((path for path in self._folder.glob("*.mid") if NAME.fullmatch(path.stem)), reverse=True)
            return [{"name": path.stem, "bytes": path.stat().st_size} for path in found[:MAX_LISTED]]
        except OSError as error:
            raise RecordingsError(f"{self._folder} cannot be read ({error.strerror})") from None

    def content(self, name: str) -> bytes:
        """The bytes of a recording's MIDI file. Raises ``RecordingsError``."""
        path = self._folder / f"{name}.mid"
        if not NAME.fullmatch(name) or not path.is_file():
            raise RecordingsError("no such recording")
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise RecordingsError(f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MB")
            return path.read_bytes()
        except OSError as error:
            raise RecordingsError(f"{path.name} cannot be read ({error.strerror})") from None
