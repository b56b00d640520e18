"""Writing and reading recordings, in this process and in subprocesses."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import mido
import pytest
from hypothesis import HealthCheck, settings

from engine.events import Timed
from engine.midi import MessageReader, message_of
from perceivers_live.recording.journal import HEADER, Entry
from perceivers_live.recording.recorder import Recorder
from tests.music import improvise_timed

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0  # seconds; only failures take so long
START = 54321.0  # an arbitrary time of a monotonic clock
quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def music(count: int, *, seed: int = 0) -> list[Timed]:
    """Random piano playing, at whole milliseconds, with everything released at the end."""
    timed = [Timed(START + round(one.time, 3), one.action, one.velocity) for one in improvise_timed(count, seed=seed)]
    reader = MessageReader()
    for one in timed:
        reader.feed(one.time, message_of(one.action, one.velocity))
    return timed + reader.close(timed[-1].time + 0.5)


def in_ms(timed: list[Timed], origin: float = 0.0) -> list[tuple[int, int, int]]:
    return [(round((one.time - origin) * 1000), one.action, one.velocity) for one in timed]


def recorded(path: Path) -> dict[str, list[Timed]]:
    """The tracks of a file, by name."""
    found: dict[str, list[Timed]] = {}
    for track in mido.MidiFile(path).tracks:
        reader, now = MessageReader(), 0.0
        timed = found.setdefault(track.name, [])
        for message in track:
            now += message.time / 1000
            timed += [] if message.is_meta else reader.feed(now, message.bytes())
        assert not reader.held, "left hanging"
    return found


def record(folder: Path, human: list[Timed], machine: list[Timed]) -> Path | None:
    recorder = Recorder(folder)
    for one in human:
        recorder.human(one)
    for one in machine:
        recorder.machine(one)
    return recorder.close()


def left_over(folder: Path, entries: list[Entry], name: str = "2026-08-01_20-15-00") -> Path:
    """The journal of a session that was killed."""
    path = folder / f"{name}.journal"
    path.write_bytes(HEADER + b"".join(entry.encoded() for entry in entries))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def run_script(script: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
