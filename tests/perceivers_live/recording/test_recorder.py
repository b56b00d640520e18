"""Each session becomes a MIDI file; playing never waits for the disk. ``test_disk_faults.py`` has disks that fail."""

from __future__ import annotations

import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from engine.engine import Engine
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.folders import data_folder
from engine.midi import MessageReader, message_of
from engine.midi_file import read_file
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import OscSettings, PhraseSettings, Settings
from perceivers_live.recording import journal
from perceivers_live.recording import recorder as recorder_module
from perceivers_live.recording.journal import HEADER, RECORD_BYTES, Entry
from perceivers_live.recording.recorder import HUMAN, LAST, MAX_PAUSE, Recorder, recover
from perceivers_live.session.observers import Observer
from perceivers_live.session.session import Session
from tests.perceivers_live.receiver import Synthesizer
from tests.perceivers_live.recording.recordings import (
    PATIENCE,
    START,
    in_ms,
    left_over,
    music,
    names,
    record,
    recorded,
    until,
    warnings,
)
from tests.perceivers_live.toys import ToyRuntime, steady
from tests.perceivers_live.virtual_session import note

# --- what is recorded ------------------------------------------------------------------------------------------------


def test_both_parts_are_recorded_as_played(tmp_path: Path) -> None:
    human, machine = music(300, seed=1), [one._replace(time=one.time + 7.25) for one in music(300, seed=2)]
    path = record(tmp_path / "new" / "folder", human, machine)
    assert path is not None
    origin = human[0].time
    tracks = recorded(path)
    assert list(tracks) == ["human", "machine"]
    assert in_ms(tracks["human"]) == in_ms(human, origin)
    assert in_ms(tracks["machine"]) == in_ms(machine, origin)
    assert names(path.parent) == [path.name]


def test_actions_are_sorted_by_time(tmp_path: Path) -> None:
    """The input offset can change while the human plays, and two threads record in any order."""
    timed = music(100)
    path = record(tmp_path, [*timed[40:], *timed[:40]], [])
    assert path is not None
    assert in_ms(recorded(path)["human"]) == in_ms(timed, timed[0].time)


def test_a_recording_is_named_by_date_and_time(tmp_path: Path) -> None:
    before = datetime.now().replace(microsecond=0)
    path = record(tmp_path, note(START, 0.5, 60), [])
    assert path is not None
    assert before <= datetime.strptime(path.name, "%Y-%m-%d_%H-%M-%S.mid") <= datetime.now()


def test_sessions_of_the_same_second_do_not_collide(tmp_path: Path) -> None:
    recorders = [Recorder(tmp_path) for _ in range(5)]
    for pitch, recorder in enumerate(recorders, 60):
        for one in note(START, 0.5, pitch):
            recorder.human(one)
    paths = [recorder.close() for recorder in recorders]
    paths += [record(tmp_path, note(START, 0.5, pitch), []) for pitch in range(65, 70)]
    assert len(set(paths)) == 10
    assert [read_file(path)[0].action for path in paths if path is not None] == list(range(60, 70))


@pytest.mark.parametrize("timed", [[], [Timed(START, SUSTAIN_DOWN), Timed(START + 9, SUSTAIN_UP), Timed(START, NOTE_OFF + 60)]])
def test_a_session_without_a_note_leaves_no_file(tmp_path: Path, timed: list[Timed]) -> None:
    assert record(tmp_path, timed, []) is None
    assert names(tmp_path) == []


def test_hanging_notes_are_released_at_the_end(tmp_path: Path) -> None:
    human = [Timed(START, SUSTAIN_DOWN), *note(START + 1, 0.5, 60), Timed(START + 3, NOTE_ON + 62, 80)]
    path = record(tmp_path, human, [Timed(START + 2, NOTE_ON + 40, 50)])
    assert path is not None
    tracks = recorded(path)
    assert tracks["human"][-2:] == [Timed(3 + LAST, NOTE_OFF + 62), Timed(3 + LAST, SUSTAIN_UP)]
    assert tracks["machine"][-1] == Timed(3 + LAST, NOTE_OFF + 40)


def test_pause_of_days_is_shortened(tmp_path: Path) -> None:
    path = record(tmp_path, [*note(START, 0.5, 60), *note(START + 5 * 86400, 0.5, 62)], [])
    assert path is not None
    onsets = [one.time for one in read_file(path) if one.action < NOTE_OFF]
    assert onsets == pytest.approx([0.0, 0.5 + MAX_PAUSE])


def test_a_session_is_recorded_with_its_interruptions(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    session = Session(
        Engine(ToyRuntime(steady(40, (72, 76, 79), chord=3))),
        Settings(osc=OscSettings(enabled=False), phrase=PhraseSettings(min_silence_ms=60, max_silence_ms=120)),
        Controls(),
        (port := Synthesizer()).send,
        observers=[Observer(human=recorder.human, machine=recorder.machine)],
    )
    thread = threading.Thread(target=session.run)
    thread.start()
    for message in [(0x90, 60, 80), (0x80, 60, 64)]:
        session.receive(time.perf_counter(), message)
    until(lambda: len(port.sounding) > 1)
    for message in [(0x90, 30, 80), (0x80, 30, 64)]:
        session.receive(time.perf_counter(), message)
    session.stop()
    thread.join()
    path = recorder.close()
    assert path is not None
    tracks = recorded(path)
    assert [one.action for one in tracks["human"]] == [60, NOTE_OFF + 60, 30, NOTE_OFF + 30]
    cut = tracks["human"][2].time
    last = [one for one in tracks["machine"] if cut - 0.002 < one.time < cut + 0.05]  # the next reply cannot begin so soon
    releases = [one for one in last if one.action >= NOTE_OFF]
    assert len(releases) > 1
    assert all(abs(one.time - cut) < 0.002 for one in releases), "the machine ends where it was cut off"
    assert all(one.time < cut + 0.001 for one in last if one.action < NOTE_OFF), "and plays nothing after that"


def test_folder_of_recordings_can_be_used_as_training_data(tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    from trainer.data import Corpus, prepare

    human, machine = music(200, seed=3), [one._replace(time=one.time + 1.5) for one in music(200, seed=4)]
    path = record(tmp_path / "sessions", human, machine)
    assert path is not None
    left_over(tmp_path / "sessions", [Entry(HUMAN, one) for one in human])  # e.g. of a session that still runs
    corpus = Corpus(prepare(tmp_path / "sessions", tmp_path / "cache", workers=1))
    assert [piece["name"] for piece in corpus.pieces] == [path.name]
    reader, together = MessageReader(), []
    for channel, one in sorted([*((0, one) for one in human), *((1, one) for one in machine)], key=lambda pair: pair[1].time):
        together += reader.feed(one.time, message_of(one.action, one.velocity, channel))
    actions = corpus.actions(0)
    assert actions.times == pytest.approx(np.array([one.time for one in together]) - together[0].time, abs=1e-4)
    got = list(zip(np.round(actions.times, 3), actions.actions, actions.velocities, strict=True))
    wanted = [(round(one.time - together[0].time, 3), one.action, one.velocity) for one in together]
    assert sorted(got) == sorted(wanted)


# --- playing does not wait for the disk ------------------------------------------------------------------------------


def test_concurrent_threads_lose_no_actions(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)

    def play(pitch: int, add: Callable[[Timed], None]) -> None:
        for i in range(500):
            for one in note(START + i, 0.5, pitch):
                add(one)

    parts = [recorder.human, recorder.machine, recorder.human, recorder.machine]
    threads = [threading.Thread(target=play, args=(60 + i, one)) for i, one in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    path = recorder.close()
    assert path is not None
    assert {name: len(timed) for name, timed in recorded(path).items()} == {"human": 2000, "machine": 2000}


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A disk that writes no records until this event is set."""
    answers = threading.Event()
    write = journal.Journal.append

    def append(self: journal.Journal, records: bytes) -> None:
        assert records == HEADER or answers.wait(PATIENCE)
        write(self, records)

    monkeypatch.setattr(journal.Journal, "append", append)
    return answers


def test_stuck_disk_does_not_block_playing(tmp_path: Path, stuck: threading.Event) -> None:
    timed = music(1000)
    recorder = Recorder(tmp_path)
    for one in timed:
        recorder.human(one)  # with the disk stuck for as long as this takes
    time.sleep(3 * recorder_module.WRITE_EVERY)
    recorder.machine(timed[0])
    stuck.set()
    path = recorder.close()
    assert path is not None
    assert len(recorded(path)["human"]) == len(timed)


def test_backlog_for_the_disk_is_bounded_and_keeps_the_earlier_actions(
    tmp_path: Path, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder_module, "MAX_WAITING", 100)
    monkeypatch.setattr(recorder_module, "WRITE_EVERY", 60.0)
    recorder = Recorder(tmp_path)
    for i in range(400):
        for one in note(START + i, 0.5, 60):
            recorder.human(one)
    stuck.set()
    path = recorder.close()
    assert path is not None
    kept = recorded(path)["human"]
    assert 100 <= len(kept) <= 200
    assert in_ms(kept) == in_ms([one for i in range(400) for one in note(float(i), 0.5, 60)][: len(kept)])
    assert len(warnings(caplog)) == 1


def test_stuck_disk_does_not_block_close(
    tmp_path: Path, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder_module, "DISK_TIMEOUT", 0.05)
    recorder = Recorder(tmp_path)
    recorder.human(Timed(START, 60, 80))
    time.sleep(3 * recorder_module.WRITE_EVERY)
    assert recorder.close() is None
    assert len(warnings(caplog)) == 1
    stuck.set()
    recorder._thread.join()
    assert recorder._journal is not None
    recorder._journal.close()


def test_long_session_does_not_increase_memory_use(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    path = next(tmp_path.iterdir())
    files = [tracemalloc.Filter(True, str(one)) for one in (__file__, recorder_module.__file__, journal.__file__)]

    def traced() -> int:
        return sum(one.size for one in tracemalloc.take_snapshot().filter_traces(files).traces)

    tracemalloc.start()
    before = traced()
    for batch in range(1, 21):
        for i in range(1000):
            recorder.human(Timed(START + i, 60 + i % 2 * NOTE_OFF, 80))
        until(lambda batch=batch: path.stat().st_size == len(HEADER) + batch * 1000 * RECORD_BYTES)  # type: ignore[misc]
    grown = traced() - before
    tracemalloc.stop()
    recorder.close()
    assert grown < 200_000, "at least the size of 20 000 records"


# --- long sessions ----------------------------------------------------------------------------------------------------


def test_long_session_is_split_into_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a flood, or weeks of playing, would have to fit into memory when the session ends."""
    monkeypatch.setattr(recorder_module, "MAX_JOURNAL_BYTES", 100 * RECORD_BYTES)
    recorder, played = Recorder(tmp_path), [one for i in range(300) for one in note(START + i, 0.5, 60)]
    for start in range(0, len(played), 50):
        for one in played[start : start + 50]:
            recorder.human(one)
        until(lambda: not recorder._waiting)
    path = recorder.close()
    files = sorted(tmp_path.iterdir(), key=lambda file: file.stem)
    assert path in files
    assert len(files) >= 4
    parts = [recorded(file)["human"] for file in files]
    assert sum(map(len, parts)) == len(played)
    assert all(len(part) <= 200 for part in parts)


def test_session_of_days_is_recorded_in_readable_files(tmp_path: Path) -> None:
    recorder, played = Recorder(tmp_path), [one for hour in range(60) for one in note(START + 3000 * hour, 0.5, 60)]
    for i in range(0, len(played), 2):
        recorder.human(played[i])
        recorder.human(played[i + 1])
        until(lambda: not recorder._waiting)
    assert recorder.close() is not None
    files = list(tmp_path.iterdir())
    assert sum(one.action < NOTE_OFF for file in files for one in read_file(file)) == 60
    assert len(files) == 4


def test_too_large_journal_is_set_aside_unread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = left_over(tmp_path, [Entry(HUMAN, Timed(1.0, 60, 80))])
    os.truncate(path, journal.MAX_BYTES + 1)
    tracemalloc.start()
    assert recover(tmp_path) == []
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert names(tmp_path) == [path.name + ".damaged"]
    assert "larger than" in warnings(caplog)[0]


# --- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="tests the XDG folders")
def test_recordings_are_in_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert data_folder() == tmp_path / ".local" / "share" / "perceivers-live"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert data_folder() == tmp_path / "data" / "perceivers-live"
