"""Killed sessions: the contents of their journals become recordings."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import NOTE_OFF
from perceivers_live.recording import journal
from perceivers_live.recording.journal import HEADER, RECORD_BYTES, Entry
from perceivers_live.recording.recorder import HUMAN, MACHINE, Recorder, recover
from tests.perceivers_live.recording.recordings import (
    START,
    left_over,
    music,
    names,
    quickly,
    record,
    recorded,
    run_script,
    until,
    warnings,
)
from tests.perceivers_live.virtual_session import note

PLAYING = """
    import itertools, sys, time
    from pathlib import Path
    from engine.events import NOTE_OFF, Timed
    from perceivers_live.recording.recorder import Recorder

    recorder = Recorder(Path(sys.argv[1]))
    for i in itertools.count():
        record = recorder.human if i % 4 < 2 else recorder.machine
        record(Timed(time.perf_counter(), 60 + i // 2 % 7 + i % 2 * NOTE_OFF, 80))
        print(i, flush=True)
        time.sleep(0.001)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_sigkill_loses_only_the_last_moments(tmp_path: Path) -> None:
    process = run_script(PLAYING, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 300:
            break
    path = next(tmp_path.glob("*.journal"))
    until(lambda: path.stat().st_size > len(HEADER) + 301 * RECORD_BYTES)
    assert recover(tmp_path) == [], "it still records"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    on_disk = (path.stat().st_size - len(HEADER)) // RECORD_BYTES
    [file] = recover(tmp_path)
    assert file == path.with_suffix(".mid")
    assert names(tmp_path) == [file.name]
    tracks = recorded(file)
    pitches = [one.action for one in sorted([*tracks["human"], *tracks["machine"]]) if one.action < NOTE_OFF]
    assert pitches == [60 + i % 7 for i in range((on_disk + 1) // 2)]
    assert on_disk > 300
    assert recover(tmp_path) == []


entries_of_music = [Entry((HUMAN, MACHINE)[i % 2], one) for i, one in enumerate(music(40))]
WHOLE = HEADER + b"".join(entry.encoded() for entry in entries_of_music)


def read_back(folder: Path, content: bytes) -> tuple[list[Entry], int]:
    path = folder / "some.journal"
    path.write_bytes(content)
    opened = journal.Journal.open(path)
    assert opened is not None
    try:
        return opened.read()
    finally:
        opened.close()


@quickly
@given(st.integers(0, len(WHOLE)))
def test_truncated_journal_keeps_the_records_before_the_cut(tmp_path: Path, length: int) -> None:
    entries, damaged = read_back(tmp_path, WHOLE[:length])
    assert damaged == 0
    assert entries == entries_of_music[: max(0, length - len(HEADER)) // RECORD_BYTES]


@quickly
@given(st.sets(st.integers(len(HEADER) * 8, len(WHOLE) * 8 - 1), min_size=1, max_size=20))
def test_flipped_bit_loses_only_its_own_record(tmp_path: Path, bits: set[int]) -> None:
    content = bytearray(WHOLE)
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
    entries, damaged = read_back(tmp_path, bytes(content))
    hit = {(bit // 8 - len(HEADER)) // RECORD_BYTES for bit in bits}
    assert entries == [entry for i, entry in enumerate(entries_of_music) if i not in hit]
    assert damaged == len(hit)


@quickly
@given(st.binary(max_size=200), st.booleans(), st.integers(0, 40))
def test_recovery_never_raises_and_leaves_no_journal(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, headed: bool, whole: int
) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    good = b"".join(entry.encoded() for entry in entries_of_music[:whole]) if headed else b""
    (folder / "a.journal").write_bytes((HEADER if headed else b"") + good + garbage)
    left_over(folder, [Entry(HUMAN, one) for one in note(START, 0.5, 60)])
    made = recover(folder)
    assert any(path.name.startswith("2026") for path in made)
    assert not list(folder.glob("*.journal"))
    if any(entry.timed.action < NOTE_OFF for entry in entries_of_music[:whole]) and headed:
        assert folder / "a.mid" in made


def test_invalid_journals_are_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "picture.journal").write_bytes(os.urandom(1000))
    (tmp_path / "zeros.journal").write_bytes(HEADER + bytes(16 * 100_000))
    (tmp_path / "folder.journal").mkdir()
    (tmp_path / "link.journal").symlink_to(tmp_path / "picture.journal")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.journal")
    (tmp_path / "empty.journal").touch()
    assert recover(tmp_path) == []
    assert {"picture.journal.damaged", "zeros.journal.damaged"} < set(names(tmp_path))
    assert not {"picture.journal", "zeros.journal", "empty.journal"} & set(names(tmp_path))
    assert len(warnings(caplog)) == 2
    assert all("\n" not in line and re.search("picture|zeros", line) for line in warnings(caplog))


def test_recovery_after_a_partial_recovery_makes_one_file(tmp_path: Path) -> None:
    """The recovery was killed between writing the MIDI file and removing the journal, or while it wrote the file."""
    path = left_over(tmp_path, entries_of_music)
    content = path.read_bytes()
    [file] = recover(tmp_path)
    first = file.read_bytes()
    path.write_bytes(content)
    file.with_suffix(".mid.part").write_bytes(first[:50])
    assert recover(tmp_path) == [file]
    assert file.read_bytes() == first
    assert names(tmp_path) == [file.name]


def test_recovery_accepts_a_missing_folder(tmp_path: Path) -> None:
    assert recover(tmp_path / "nowhere") == []
    (tmp_path / "file").touch()
    assert recover(tmp_path / "file") == []


def before_the_next_lock(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Calls ``happens`` between the opening of a journal and its locking, as if by another daemon."""
    lock, waiting = journal._lock, [happens]

    def locking(file: BinaryIO) -> bool:
        if waiting:
            waiting.pop()()
        return lock(file)

    monkeypatch.setattr(journal, "_lock", locking)


def test_new_journal_is_not_taken_by_a_daemon_that_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_the_next_lock(monkeypatch, lambda: recover(tmp_path))
    path = record(tmp_path, note(START, 0.5, 60), [])
    assert path is not None
    assert names(tmp_path) == [path.name]


def test_session_that_ends_during_a_recovery_is_not_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(tmp_path)
    for one in note(START, 0.5, 60):
        recorder.human(one)
    until(lambda: next(tmp_path.iterdir()).stat().st_size > len(HEADER))
    made: list[Path | None] = []
    before_the_next_lock(monkeypatch, lambda: made.append(recorder.close()))
    assert recover(tmp_path) == []
    assert [path.name for path in made if path is not None] == names(tmp_path)
    assert warnings(caplog) == []


def test_concurrent_recoveries_do_not_take_the_journals_of_running_sessions(tmp_path: Path) -> None:
    over = threading.Event()
    made: list[Path] = []

    def recovering() -> None:
        while not over.is_set():
            made.extend(recover(tmp_path))

    thread = threading.Thread(target=recovering)
    thread.start()
    try:
        paths = [record(tmp_path, note(START, 0.5, 60), []) for _ in range(30)]
    finally:
        over.set()
        thread.join()
    assert len(set(paths)) == 30
    assert {path.name for path in paths if path is not None} == set(names(tmp_path))
    assert made == []
