"""Ending a training run from the terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perceivers_live.commands.train import _stop_on_signals


@pytest.fixture
def reported() -> Iterator[list[str]]:
    """Collects the reported lines; restores the signal handlers afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield []
    for number, handler in before.items():
        signal.signal(number, handler)


def test_first_signal_finishes_the_step_and_is_reported(reported: list[str]) -> None:
    stop = threading.Event()
    _stop_on_signals(stop, reported.append, Path("runs/mine"))
    assert not stop.is_set()
    signal.raise_signal(signal.SIGINT)
    assert stop.is_set()
    assert reported == ["stopping after this step and saving to runs/mine; once more: stop at once"]


def test_second_signal_ends_the_training_at_once() -> None:
    program = """
import signal, threading
from pathlib import Path
from perceivers_live.commands.train import _stop_on_signals, _tell
_stop_on_signals(threading.Event(), _tell, Path("runs/mine"))
for _ in range(2):
    signal.raise_signal(signal.SIGTERM)
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGTERM
    assert done.stderr.splitlines()[-1] == "stopping at once; the last save is in runs/mine"
    assert done.stdout == ""
