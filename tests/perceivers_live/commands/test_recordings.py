"""Recordings are listed, and the newest can be copied while its session runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.events import NOTE_OFF
from perceivers_live.cli import main
from perceivers_live.commands.recordings import NoRecordingError, copy_newest
from perceivers_live.recording.journal import HEADER, RECORD_BYTES
from perceivers_live.recording.recorder import Recorder
from tests.perceivers_live.recording.recordings import in_ms, music, recorded, until


def test_recording_of_a_running_session_is_copied_without_changing_it(tmp_path: Path) -> None:
    folder, played = tmp_path / "sessions", music(60)
    recorder = Recorder(folder)
    half = len(played) // 2
    for one in played[:half]:
        recorder.human(one)
    journal = next(folder.glob("*.journal"))
    until(lambda: journal.stat().st_size == len(HEADER) + half * RECORD_BYTES)
    assert copy_newest(folder, tmp_path / "take.mid") == journal
    first = in_ms(recorded(tmp_path / "take.mid")["human"])
    for one in played[half:]:
        recorder.human(one)
    finished = recorder.close()
    assert finished is not None
    whole = in_ms(recorded(finished)["human"])
    assert whole == in_ms(played, played[0].time)
    note_ons = [one for one in whole if one[1] < NOTE_OFF]
    assert [one for one in first if one[1] < NOTE_OFF] == note_ons[: sum(one.action < NOTE_OFF for one in played[:half])]
    assert copy_newest(folder, tmp_path / "take.mid") == finished
    assert (tmp_path / "take.mid").read_bytes() == finished.read_bytes()


@pytest.mark.parametrize(
    ("content", "word"), [(None, "there are no recordings"), (b"text", "not a journal"), (HEADER, "nothing")]
)
def test_copy_error_states_the_reason(tmp_path: Path, content: bytes | None, word: str) -> None:
    if content is not None:
        (tmp_path / "2026-01-01_00-00-00.journal").write_bytes(content)
    with pytest.raises(NoRecordingError, match=word):
        copy_newest(tmp_path, tmp_path / "take.mid")


def test_copy_in_the_folder_does_not_count_as_a_recording(tmp_path: Path) -> None:
    for name in ("2026-01-01_00-00-00_9", "2026-01-01_00-00-00_10"):
        (tmp_path / f"{name}.mid").write_bytes(name.encode())
    take = tmp_path / "take.mid"
    for _ in range(2):
        assert copy_newest(tmp_path, take).stem == "2026-01-01_00-00-00_10"
        assert take.read_bytes() == b"2026-01-01_00-00-00_10"


def test_recordings_are_listed_oldest_first(tmp_path: Path) -> None:
    for name in ("2026-02-02_00-00-00.journal", "2026-01-01_00-00-00.mid", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    settings = tmp_path / "mine.toml"
    settings.write_text(f"[recording]\nfolder = '{tmp_path}'\n")
    lines = CliRunner().invoke(main, ["recordings", "--config", str(settings)]).output.splitlines()
    assert [line.partition("  (")[0] for line in lines] == [
        str(tmp_path / "2026-01-01_00-00-00.mid"),
        str(tmp_path / "2026-02-02_00-00-00.journal"),
    ]
    assert "not ended" in lines[1]
