"""Failover to the standby at once; recovery of the lost runtime; failback in a pause, with the exact state."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest

from engine.checkpoint import bundled
from engine.engine import RECENT, Engine
from engine.remote import standby
from engine.remote.address import Address, this_computer
from engine.remote.runtime import RemoteRuntime
from engine.remote.server_process import RuntimeLost
from engine.remote.standby import StandbyRuntime, open_runtime_at
from engine.runtimes.choose import open_runtime
from engine.sampling import SamplingControls, sampling_bias
from engine.states import StateError
from tests.music import improvise

MUSIC = improvise(700, seed=3)
HERE = this_computer("onnx", bundled(), 1)
PATIENCE = 60.0  # seconds


def reach() -> RemoteRuntime:
    return RemoteRuntime(HERE, timeout=2.0, restart=False)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandbyRuntime]:
    monkeypatch.setattr(standby, "MIN_DELAY", 0.05)
    runtime = StandbyRuntime(reach(), RemoteRuntime(HERE, timeout=20.0), reach)
    yield runtime
    runtime.close()


@pytest.fixture
def engine(runtime: StandbyRuntime) -> Engine:
    return Engine(runtime)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() < 1e-4 * np.abs(b).max())


def hidden_after(count: int, begin: int = 1) -> np.ndarray:
    """The hidden state after events ``begin`` up to ``count``, preceded by the start event if ``begin`` is 1."""
    here = Engine(open_runtime("onnx", bundled(), threads=1))
    here.absorb(MUSIC[begin:count])
    return here.hidden()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.01)


def failed_back(runtime: StandbyRuntime) -> bool:
    runtime.keep_warm()
    return not runtime.standby


def next_event(engine: Engine) -> object:
    return engine.decide(sampling_bias(engine.sounding, SamplingControls(), np.random.default_rng(7), own=set(), own_pedal=False))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])  # the process dies, or hangs
def test_a_lost_runtime_fails_over_and_back(runtime: StandbyRuntime, engine: Engine, number: signal.Signals) -> None:
    engine.absorb(MUSIC[1:100])
    expected = next_event(engine)
    os.kill(runtime._first._server.pid, number)
    assert next_event(engine) == expected, "a short history is complete on the standby"
    assert runtime.standby
    for event in MUSIC[100:140]:
        engine.absorb([event])
    assert close(engine.hidden(), hidden_after(140))
    until(lambda: failed_back(runtime))
    assert close(engine.hidden(), hidden_after(140))
    engine.absorb(MUSIC[140:150])
    assert close(engine.hidden(), hidden_after(150))
    assert not runtime.standby


def test_failback_restores_the_whole_history(runtime: StandbyRuntime, engine: Engine) -> None:
    engine.absorb(MUSIC[1:650])
    os.kill(runtime._first._server.pid, signal.SIGKILL)
    engine.absorb(MUSIC[650:])
    engine.hidden()
    assert runtime.standby
    whole = hidden_after(len(MUSIC))
    assert not close(engine.hidden(), whole), f"the standby has absorbed only the newest {RECENT} events"
    until(lambda: failed_back(runtime))
    assert close(engine.hidden(), whole)


def test_events_rewound_during_recovery_are_not_in_the_history_after_failback(runtime: StandbyRuntime, engine: Engine) -> None:
    engine.absorb(MUSIC[1:100])
    os.kill(runtime._first._server.pid, signal.SIGKILL)
    next_event(engine)
    assert runtime.standby
    chance = np.random.default_rng(2)
    position = 100
    while not failed_back(runtime):
        engine.absorb(improvise(int(chance.integers(2, 12)), seed=position)[1:])  # a plan that is not played
        engine.rewind(position - 1)
        next_event(engine)
        if position < 300:
            engine.absorb(MUSIC[position : position + 1])
            position += 1
    assert position > 100
    assert close(engine.hidden(), hidden_after(position))


@pytest.mark.parametrize("code", ["import os; os.abort()", "raise SystemExit(3)"])
def test_a_process_that_dies_while_it_opens_is_replaced_if_that_is_allowed(code: str, caplog: pytest.LogCaptureFixture) -> None:
    address = Address((sys.executable, "-c", code), "the model's process", local=True)
    with pytest.raises(RuntimeLost):
        open_runtime_at(address, bundled())
    with closing(open_runtime_at(address, bundled(), fallback=True)) as runtime:
        assert runtime.name == "onnx"
        assert Engine(runtime).hidden().shape == (runtime.config.width,)
    assert "ONNX Runtime on the CPU is used" in caplog.text


def test_a_reset_on_the_standby_is_kept_after_failback(runtime: StandbyRuntime, engine: Engine) -> None:
    engine.absorb(MUSIC[1:100])
    os.kill(runtime._first._server.pid, signal.SIGKILL)
    engine.absorb(MUSIC[100:110])
    engine.forget()
    engine.absorb(MUSIC[1:50])
    until(lambda: failed_back(runtime))
    assert close(engine.hidden(), hidden_after(50))


def test_a_state_restored_before_the_loss_is_replayed_on_both(runtime: StandbyRuntime, engine: Engine) -> None:
    engine.absorb(MUSIC[1:600])
    snapshot = engine.snapshot()
    engine.forget()
    engine.restore(snapshot)
    engine.rewind(590)
    engine.absorb(MUSIC[591:610])
    os.kill(runtime._first._server.pid, signal.SIGKILL)
    engine.absorb(MUSIC[610:620])
    assert close(engine.hidden(), hidden_after(620))
    assert runtime.standby
    with pytest.raises(StateError, match="standby"):
        engine.snapshot()
    until(lambda: failed_back(runtime))
    assert close(engine.hidden(), hidden_after(620))


def test_repeated_losses_fail_over_and_back(runtime: StandbyRuntime, engine: Engine) -> None:
    position = 1
    for _ in range(3):
        engine.absorb(MUSIC[position : position + 40])
        position += 40
        os.kill(runtime._first._server.pid, signal.SIGKILL)
        next_event(engine)
        assert runtime.standby
        runtime._delay = 0.05
        until(lambda: failed_back(runtime))
    assert close(engine.hidden(), hidden_after(position))


def test_a_standby_that_has_died_is_restarted(runtime: StandbyRuntime, engine: Engine) -> None:
    engine.absorb(MUSIC[1:60])
    engine.hidden()
    for one in (runtime._second, runtime._first):
        os.kill(one._server.pid, signal.SIGKILL)
    assert close(engine.hidden(), hidden_after(60))
    assert runtime.standby
