"""``perceivers-live recordings``: lists recordings, and copies the newest, even of a running session.

A running session writes a journal, which is converted to a MIDI file when the session ends. The journal is read here without
locking it.
"""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import UserError
from engine.folders import data_folder, expanded
from engine.midi_file import write_file
from perceivers_live.controls.settings import Settings
from perceivers_live.recording.journal import Journal, JournalError
from perceivers_live.recording.recorder import tracks

NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?")  # as the recorder names them
JOURNAL, MIDI = ".journal", ".mid"


class NoRecordingError(UserError):
    """A recording is not available; the message is one line."""


def sessions_folder(settings: Settings) -> Path:
    """The folder of the recordings. Raises ``PathError``."""
    return expanded(settings.recording.folder) if settings.recording.folder else data_folder() / "sessions"


def recordings(folder: Path) -> list[Path]:
    """MIDI files of ended sessions and journals of running or killed ones, oldest first; not other files in the folder, such as
    copies.
    """
    found = [path for path in folder.glob("*") if path.suffix in (JOURNAL, MIDI) and NAME.fullmatch(path.stem)]
    return sorted(found, key=_order)


def _order(path: Path) -> tuple[str, int]:
    """Date and time, and the number among the recordings of the same second."""
    started, number = path.stem[:19], path.stem[20:]
    return started, int(number or 1)


def copy_newest(folder: Path, output: Path) -> Path:
    """Writes the newest recording as a MIDI file; of a running session, what has been played so far. Returns the path of its
    source. Raises ``NoRecordingError``.
    """
    found = recordings(folder)
    if not found:
        raise NoRecordingError(f"{folder}: there are no recordings")
    source = found[-1]
    try:
        if source.suffix == MIDI:
            output.write_bytes(source.read_bytes())
            return source
        entries, _ = Journal.look(source)
        if not entries:
            raise NoRecordingError(f"{source}: nothing has been played yet")
        write_file(output, tracks(entries))
    except JournalError as error:
        raise NoRecordingError(str(error)) from error
    except OSError as error:
        raise NoRecordingError(f"{error.filename or output}: {error.strerror}") from error
    return source
