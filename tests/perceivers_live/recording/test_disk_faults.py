"""Full disks and unusable folders: one warning, and what could be written is kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.events import NOTE_OFF
from engine.midi_file import read_file
from perceivers_live.recording.journal import HEADER, RECORD_BYTES
from perceivers_live.recording.recorder import Recorder, recover
from tests.perceivers_live.recording.recordings import (
    PATIENCE,
    START,
    in_ms,
    music,
    names,
    record,
    recorded,
    run_script,
    warnings,
)
from tests.perceivers_live.virtual_session import note


def test_unwritable_folder_logs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    assert record(tmp_path / "file" / "sessions", music(50), []) is None
    assert len(warnings(caplog)) == 1
    assert "\n" not in warnings(caplog)[0]


def test_recording_starts_when_its_folder_becomes_writable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, played = tmp_path / "sessions", music(50)
    folder.write_text("no folder")
    recorder = Recorder(folder)
    assert not recorder.is_recording
    for one in played[:60]:
        recorder.human(one)
    folder.unlink()
    for one in played[60:]:
        recorder.human(one)
    path = recorder.close()
    assert path is not None
    assert in_ms(recorded(path)["human"]) == in_ms(played, played[0].time)
    assert len(warnings(caplog)) == 1


def test_folder_that_cannot_be_read_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert recover(tmp_path / ("x" * 300)) == []  # the name is too long for the file system
    assert len(warnings(caplog)) == 1


def test_disk_error_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder, reported = Recorder(tmp_path), list[str]()
    recorder.on_fault = lambda error: reported.append(str(error))
    (next(tmp_path.iterdir()).with_suffix(".mid.part")).mkdir()
    for one in note(START, 0.5, 60):
        recorder.human(one)
    recorder.close()
    assert len(reported) == 1
    assert reported[0].startswith("recording failed, at least in part (")
    assert warnings(caplog) == []


FULL_DISK = """
    import logging, resource, sys, time
    from pathlib import Path
    from engine.events import Timed
    from perceivers_live.recording.recorder import WRITE_EVERY, Recorder
    from tests.perceivers_live.virtual_session import note

    logging.basicConfig(format="%(levelname)s %(message)s")
    recorder = Recorder(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    for i in range(100):
        for one in note(i, 0.5, 60):
            recorder.human(one)
        time.sleep(0.01)
    time.sleep(3 * WRITE_EVERY)
    if sys.argv[2] == "until it is cleared":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(recorder.close())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on files")
@pytest.mark.parametrize("until_when", ["until it is cleared", "to the end"])
def test_full_disk_logs_one_warning_and_loses_only_what_did_not_fit(tmp_path: Path, until_when: str) -> None:
    out, log = run_script(FULL_DISK, tmp_path, until_when).communicate(timeout=PATIENCE)
    assert len(log.splitlines()) == 1
    assert log.startswith("WARNING")
    played = in_ms([one for i in range(100) for one in note(float(i), 0.5, 60)])
    path = Path(out.strip())
    if until_when == "to the end":
        if out.strip() == "None":  # not even the MIDI file fitted
            [path] = recover(tmp_path)
        kept = in_ms(recorded(path)["human"])
        assert 0 < len(kept) <= 2 + (1000 - len(HEADER)) // RECORD_BYTES
        assert kept[:-1] == played[: len(kept) - 1]
    else:
        assert in_ms(recorded(path)["human"]) == played
    assert names(tmp_path) == [path.name]


def test_unfinished_recording_keeps_its_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(tmp_path)
    obstacle = next(tmp_path.iterdir()).with_suffix(".mid.part")
    obstacle.mkdir()
    for one in note(START, 0.5, 60):
        recorder.human(one)
    assert recorder.close() is None
    assert len(warnings(caplog)) == 1
    assert recover(tmp_path) == []
    obstacle.rmdir()
    [path] = recover(tmp_path)
    assert [one.action for one in read_file(path)] == [60, NOTE_OFF + 60]
