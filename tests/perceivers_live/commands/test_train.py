"""How a training is ended from the terminal."""

from __future__ import annotations

import signal
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
    assert said == ["stopping: this step is finished, then runs/mine is saved; once more: stop at once"]


def test_the_second_ends_it_at_once(said: list[str]) -> None:
    stop = threading.Event()
    _stop_on_signals(stop, said.append, Path("runs/mine"))
    ended: list[int] = []
    signal.raise_signal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(signal, "raise_signal", ended.append)
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)  # type: ignore[operator, misc]
    assert ended == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert said[-1] == "stopping at once; runs/mine has the last save"
