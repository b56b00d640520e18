"""A runtime in a separate process gives the same results; failures of the process become exceptions."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import bundled
from engine.config import CheckpointError
from engine.engine import Engine
from engine.remote.address import Address
from engine.remote.runtime import RemoteRuntime, local_process
from engine.remote.server_process import RuntimeLost
from engine.runtimes import RuntimeUnavailable
from engine.runtimes.choose import open_runtime
from engine.sampling import SamplingControls, sampling_bias
from tests.music import improvise

MUSIC = improvise(120, seed=3)
ANSWER_TIMEOUT = 2.0


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return bundled()


@pytest.fixture
def runtime(checkpoint: Path) -> Iterator[RemoteRuntime]:
    runtime = local_process("onnx", checkpoint, timeout=ANSWER_TIMEOUT)
    yield runtime
    runtime.close()
    assert not runtime.alive()


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal up to rounding, which depends on the chunk sizes."""
    return bool(np.abs(a - b).max() < 1e-4 * np.abs(b).max())


def next_event(engine: Engine) -> object:
    return engine.decide(sampling_bias(engine.sounding, SamplingControls(), np.random.default_rng(7), own=set(), own_pedal=False))


def test_a_remote_runtime_gives_the_results_of_a_local_one(runtime: RemoteRuntime, checkpoint: Path) -> None:
    there, here = Engine(runtime), Engine(open_runtime("onnx", checkpoint))
    assert (runtime.name, runtime.config) == ("onnx", here.config)
    for engine in (there, here):
        engine.absorb(MUSIC[1:])
    assert np.array_equal(there.hidden(), here.hidden())
    assert next_event(there) == next_event(here)
    snapshot = there.snapshot()
    there.absorb(MUSIC[1:20])
    there.restore(snapshot)
    assert np.array_equal(there.hidden(), here.hidden())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])  # the process dies, or hangs
def test_a_lost_process_is_replaced_and_keeps_the_history(
    runtime: RemoteRuntime, checkpoint: Path, number: signal.Signals
) -> None:
    engine, here = Engine(runtime), Engine(open_runtime("onnx", checkpoint))
    here.absorb(MUSIC[1:60])
    engine.absorb(MUSIC[1:40])
    engine.hidden()
    os.kill(runtime._server.pid, number)
    began = time.monotonic()

    def continue_absorbing() -> None:
        for event in MUSIC[40:60]:
            engine.absorb([event])

    with pytest.raises(RuntimeLost):
        continue_absorbing()
    assert time.monotonic() - began < 20 * ANSWER_TIMEOUT
    engine.absorb(MUSIC[engine.position + 1 : 60])
    assert engine.position == 59
    assert close(engine.hidden(), here.hidden())


def test_a_process_lost_between_absorbing_and_deciding_is_replaced(runtime: RemoteRuntime) -> None:
    engine = Engine(runtime)
    engine.absorb(MUSIC[1:40])
    expected = next_event(engine)
    os.kill(runtime._server.pid, signal.SIGKILL)
    with pytest.raises(RuntimeLost):
        next_event(engine)
    assert next_event(engine) == expected


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a signal")
def test_a_process_that_hangs_while_receiving_a_large_state_is_replaced(runtime: RemoteRuntime) -> None:
    rings = [np.zeros((64, 1 << 16), np.float32)]  # more than the pipes take
    os.kill(runtime._server.pid, signal.SIGSTOP)
    with pytest.raises(RuntimeLost):
        runtime.restore(rings)
    runtime.reset()
    assert Engine(runtime).hidden().shape == (runtime.config.width,)


def test_errors_on_opening_equal_those_of_a_local_runtime(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        local_process("onnx", tmp_path)
    with pytest.raises(RuntimeUnavailable, match="unknown runtime 'abacus'"):
        local_process("abacus", checkpoint)


STUBBORN = """
import sys
from pathlib import Path
from engine.checkpoint import bundled
from engine.remote.serve import serve, standard_streams
from engine.runtimes.onnx import OnnxRuntime

class Stubborn(OnnxRuntime):
    def reset(self, first=0):
        if Path(sys.argv[1]).exists():
            Path(sys.argv[1]).unlink()
            raise RuntimeError("the device has met a fault")
        super().reset(first)

serve(standard_streams(), lambda: Stubborn(bundled()), bundled())
"""


def test_a_process_that_fails_to_reset_is_replaced(tmp_path: Path) -> None:
    """For example after a GPU error, which persists in its process."""
    broken = tmp_path / "broken"
    runtime = RemoteRuntime(
        Address((sys.executable, "-c", STUBBORN, str(broken)), "stubborn", local=True), timeout=ANSWER_TIMEOUT
    )
    engine = Engine(runtime)
    engine.absorb(MUSIC[1:40])
    before, hidden = runtime._server.pid, engine.hidden()
    broken.touch()
    engine.invalidate()
    engine.absorb([])
    assert runtime._server.pid != before
    assert close(engine.hidden(), hidden)
    runtime.close()


def test_waiting_for_a_process_that_cannot_be_killed_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """For example a process that hangs in a driver; here the signal is not sent."""
    runtime = local_process("onnx", bundled(), timeout=ANSWER_TIMEOUT)
    process = runtime._server._process
    process.kill, kill = lambda: None, process.kill  # type: ignore[method-assign]
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(RuntimeLost, match="has not answered"):
        runtime.hidden(0)
    runtime.reset()
    assert "cannot be killed" in caplog.text
    assert runtime.hidden(0).shape == (runtime.config.width,)
    runtime.close()
    kill()
    process.wait()


def test_log_records_of_the_process_are_forwarded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "engine")
    code = "import sys; print('WARNING engine.runtimes: the device is hot', file=sys.stderr); sys.exit('out of memory')"
    with pytest.raises(RuntimeLost, match=r"ended with status 1: out of memory"):
        RemoteRuntime(Address((sys.executable, "-c", code), "a process", local=True))
    assert ("WARNING", "the device is hot") in [(one.levelname, one.getMessage()) for one in caplog.records]


@pytest.mark.parametrize("what", ["noise", "silence", "endless", "later"])
def test_a_process_with_another_protocol_is_refused_in_one_line(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "silence":
        monkeypatch.setattr("engine.remote.runtime.START_TIMEOUT", 1.0)
    code = {
        "noise": "print('Welcome to this computer!', flush=True); import time; time.sleep(60)",
        "silence": "import time; time.sleep(60)",
        "endless": "import sys, time; sys.stdout.buffer.write(b'PL' + bytes([1, 0]) + b'\\xff' * 100000); time.sleep(60)",
        "later": "import sys; from engine.remote.wire import encode; sys.stdout.buffer.write(encode(1, 99, '7.0', 'more'))",
    }[what]
    found = {
        "noise": "Welcome",
        "silence": "has not answered",
        "endless": "4294967295 bytes",
        "later": "install the same version on both",
    }
    with pytest.raises((RuntimeLost, RuntimeUnavailable), match=found[what]) as refused:
        RemoteRuntime(Address((sys.executable, "-c", code), "it", local=True))
    assert str(refused.value).isprintable()


SLOW_RESTORE = """
import time
from engine.checkpoint import bundled
from engine.remote.serve import serve, standard_streams
from engine.runtimes.choose import open_runtime

runtime = open_runtime("onnx", bundled())
restore = runtime.restore

def slowly(rings, first=0):
    time.sleep(4.5)  # as long as a line needs for what is still in transit
    restore(rings, first)

runtime.restore = slowly
serve(standard_streams(60), lambda: runtime, bundled())
"""


def test_restoring_a_state_may_take_as_long_as_its_bytes_need() -> None:
    command = ("env", f"PYTHONPATH={Path(__file__).parents[3]}", sys.executable, "-c", SLOW_RESTORE)
    with closing(RemoteRuntime(Address(command, "a far computer"), timeout=2.0)) as runtime:
        rings = runtime.rings()
        runtime.restore(rings)
        assert all(np.array_equal(one, other) for one, other in zip(runtime.rings(), rings, strict=True))
