"""How a training is ended from the terminal."""

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
def said() -> Iterator[list[str]]:
    """What is told; the signals' handlers are put back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield []
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_ctrl_c_finishes_the_step_and_says_so(said: list[str]) -> None:
    stop = threading.Event()
    _stop_on_signals(stop, said.append, Path("runs/mine"))
    assert not stop.is_set()
    signal.raise_signal(signal.SIGINT)
    assert stop.is_set()
    assert said == ["stopping after this step and saving to runs/mine; once more: stop at once"]


def test_the_second_ends_it_at_once() -> None:
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
