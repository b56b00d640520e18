"""Records a session as a MIDI file of two tracks: what the human played and what the machine sent. A session whose journal
exceeds ``MAX_JOURNAL_BYTES`` or ``MAX_JOURNAL_SECONDS`` continues in another file.

Callers only put entries into a queue. The recorder's thread writes them to a journal (see ``journal``). The journal is converted
to a MIDI file when the session ends, or by ``recover`` at the next start if the session was killed. ``perceivers-live train``
accepts the folder of recordings.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import count
from pathlib import Path

from engine.errors import UserError
from engine.events import NOTE_OFF, Timed
from engine.midi import MessageReader, message_of
from engine.midi_file import write_file
from engine.replacing import replacing
from perceivers_live.recording.journal import Entry, Journal, JournalError

log = logging.getLogger(__name__)
PARTS = ("human", "machine")
HUMAN, MACHINE = range(len(PARTS))
WRITE_EVERY = 0.2  # seconds; the most that ``kill -9`` can lose
SYNC_EVERY = 5.0  # seconds; the most that a power cut can lose
MAX_WAITING = 100_000  # queued actions (some hours of music) while the disk is slow; further ones are dropped
MAX_JOURNAL_BYTES = 4 << 20  # bytes of a journal: 250,000 actions, three hours of dense playing
MAX_JOURNAL_SECONDS = 12 * 3600.0  # between the first and the last action of a journal; MIDI files over 24 hours are not read
DISK_TIMEOUT = 10.0  # seconds to wait at the end for the disk
MAX_PAUSE = 3600.0  # seconds; longer silences are shortened, since a MIDI file cannot hold days
LAST = 0.5  # seconds after which keys still held at the end are released


class RecordingError(UserError):
    """A session is not recorded; the message is one line."""


class Recorder:
    """Records one session in ``folder``. ``human`` and ``machine`` may be called from any thread, take microseconds and never
    wait for the disk. A disk error does not interrupt playing; it is reported once, to ``on_fault`` or else to the log, and
    writing is tried again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._rotated = folder, False
        self._waiting: deque[Entry] = deque()  # queued for the thread
        self._unwritten = bytearray()  # encoded, not written yet
        self._first, self._latest = math.inf, -math.inf  # times of the journal's first and last action
        self._left_out = 0
        self._unsynced, self._next_sync = False, 0.0
        self._warned = False
        self.on_fault: Callable[[RecordingError], None] = lambda error: log.warning("%s", error)
        self._closing = threading.Event()
        self._journal: Journal | None = None  # None: it could not be created yet
        try:
            self._journal = _new_journal(folder)
        except OSError as error:
            self._warn(error)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def is_recording(self) -> bool:
        """Whether the journal has been created."""
        return self._journal is not None

    def human(self, timed: Timed) -> None:
        """Records an action of the human at the time it sounded (monotonic seconds)."""
        self._note(Entry(HUMAN, timed))

    def machine(self, timed: Timed) -> None:
        """Records an action of the machine at the time it sounded (monotonic seconds)."""
        self._note(Entry(MACHINE, timed))

    def close(self) -> Path | None:
        """Ends the recording and returns its MIDI file (the last, if there are several); None if no note was played or the disk
        failed. Never raises.
        """
        if self._closing.is_set():
            return None
        self._closing.set()
        self._thread.join(DISK_TIMEOUT)
        if self._thread.is_alive():
            self._warn(TimeoutError("the disk does not answer"))
            return None
        self._write()
        if self._journal is None:
            return None
        if self._left_out or self._unwritten:
            self._warn(TimeoutError("the disk was too slow"))
        earlier = recover(self._folder) if self._rotated else []
        try:
            return _finish(self._journal) or next(reversed(earlier), None)
        except Exception as error:
            self._warn(error)
            self._journal.close()  # the file remains for ``recover``
            return None

    def _note(self, entry: Entry) -> None:
        if self._closing.is_set():
            return
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(entry)
        else:
            self._left_out += 1

    def _run(self) -> None:
        while not self._closing.wait(WRITE_EVERY):
            self._write()

    def _write(self) -> None:
        """Writes queued entries to the journal. Entries that cannot be written are kept for the next call."""
        try:
            while self._unwritten or self._waiting:
                if self._journal is None:
                    self._journal = _new_journal(self._folder)
                if not self._unwritten:
                    for _ in range(len(self._waiting)):
                        entry = self._waiting.popleft()
                        self._unwritten += entry.encoded()
                        self._first, self._latest = min(self._first, entry.timed.time), max(self._latest, entry.timed.time)
                self._journal.append(bytes(self._unwritten))
                self._unwritten.clear()
                self._unsynced = True
                if self._journal.size > MAX_JOURNAL_BYTES or self._latest - self._first > MAX_JOURNAL_SECONDS:
                    self._rotate(self._journal)
            if self._journal is not None and self._unsynced and time.monotonic() >= self._next_sync:
                self._next_sync = time.monotonic() + SYNC_EVERY
                self._journal.sync()
                self._unsynced = False
        except Exception as error:
            self._warn(error)

    def _rotate(self, full: Journal) -> None:
        """Starts another journal; the full one is converted to a MIDI file later. Raises ``OSError``."""
        self._journal = _new_journal(self._folder)
        self._first, self._latest = math.inf, -math.inf
        self._rotated = True
        full.sync()
        full.close()

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self.on_fault(RecordingError(f"recording failed, at least in part ({_reason(error)}); playing continues"))


def recover(folder: Path) -> list[Path]:
    """Converts the journals of killed sessions in ``folder`` to MIDI files; returns these files. Never raises.

    Journals of running sessions are skipped. Files that are not journals are renamed to ``.damaged``.
    """
    made: list[Path] = []
    try:
        journals = sorted(folder.glob("*.journal"))
    except OSError as error:
        log.warning("%s: cannot be read (%s)", folder, _reason(error))
        return []
    for path in journals:
        journal = None
        try:
            journal = Journal.open(path)
            file = _finish(journal) if journal is not None else None
        except JournalError as error:
            if journal is not None:
                journal.close()
            _set_aside(path, error)
        except Exception as error:
            log.warning("%s: cannot be recovered (%s)", path, _reason(error))
            if journal is not None:
                journal.close()
        else:
            if file is not None:
                log.info("%s: recovered from a session that was killed", file)
                made.append(file)
    return made


def _new_journal(folder: Path) -> Journal:
    """Creates a journal named by date and time, with a number appended if the name exists. Raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in count(1):
        name = now if number == 1 else f"{now}_{number}"
        try:
            journal = Journal.create(folder / f"{name}.journal")
        except FileExistsError:
            continue
        if not journal.path.with_suffix(".mid").exists():
            return journal
        journal.remove()
    raise AssertionError("unreachable")


def _finish(journal: Journal) -> Path | None:
    """Converts a journal to a MIDI file and removes the journal; returns None, without a file, if it has no note-on. Raises
    ``OSError``, and ``JournalError`` if no record can be read.

    The file is written atomically. It is named after the journal, so that converting twice has the same result.
    """
    entries, damaged = journal.read()
    if damaged:
        if not entries:
            raise JournalError(f"{journal.path}: no record can be read")
        log.warning("%s: left out %d damaged of %d records", journal.path, damaged, damaged + len(entries))
    if not any(entry.timed.action < NOTE_OFF for entry in entries):
        journal.remove()
        return None
    target = journal.path.with_suffix(".mid")
    with replacing(target) as part:
        write_file(part, tracks(entries))
    journal.remove()
    return target


def tracks(entries: list[Entry]) -> list[tuple[str, list[Timed]]]:
    """The tracks of the parts, starting with the first action. Keys still held at the end are released there."""
    entries = sorted(entries, key=lambda entry: entry.timed.time)  # stable
    played: list[tuple[str, list[Timed]]] = [(name, []) for name in PARTS]
    readers = [MessageReader() for _ in PARTS]
    now, last = 0.0, entries[0].timed.time if entries else 0.0
    for part, timed in entries:
        now += min(timed.time - last, MAX_PAUSE)
        last = timed.time
        if part < len(PARTS):
            played[part][1].extend(readers[part].feed(now, message_of(timed.action, timed.velocity)))
    for (_, track), reader in zip(played, readers, strict=True):
        track += reader.close(now + LAST)
    return played


def _set_aside(path: Path, error: JournalError) -> None:
    aside = path.with_name(path.name + ".damaged")
    log.warning("%s; kept as %s", error, aside.name)
    try:
        path.replace(aside)
    except OSError as error:
        log.warning("%s: cannot be renamed (%s)", path, _reason(error))


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
