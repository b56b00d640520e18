"""A runtime in a process of its own gives the same, and what becomes of that process is no more than an error."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.checkpoint import save_model  # noqa: E402
from engine.config import PRESETS, CheckpointError  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes import RuntimeUnavailable  # noqa: E402
from engine.runtimes.choose import open_runtime  # noqa: E402
from engine.runtimes.process import ProcessRuntime, RuntimeLost  # noqa: E402
from engine.sampling import Steering, sampling_bias  # noqa: E402
from tests.music import improvise  # noqa: E402
from trainer.export import write_onnx  # noqa: E402

MUSIC = improvise(120, seed=3)
HANG = 2.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("checkpoint")
    model = PerceiverS(PRESETS["tiny"]).eval()
    save_model(model, folder)
    write_onnx(model, folder)
    return folder


@pytest.fixture
def runtime(checkpoint: Path) -> Iterator[ProcessRuntime]:
    runtime = ProcessRuntime("onnx", checkpoint, hang=HANG)
    yield runtime
    runtime.close()
    assert not runtime._process.is_alive()


def next_event(engine: Engine) -> object:
    return engine.decide(sampling_bias(engine.sounding, Steering(), np.random.default_rng(7), own=set(), own_pedal=False))


def test_it_is_the_same_as_here(runtime: ProcessRuntime, checkpoint: Path) -> None:
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])  # it dies; it hangs
def test_a_lost_process_is_replaced_and_nothing_is_forgotten(
    runtime: ProcessRuntime, checkpoint: Path, number: signal.Signals
) -> None:
    engine, here = Engine(runtime), Engine(open_runtime("onnx", checkpoint))
    here.absorb(MUSIC[1:60])
    engine.absorb(MUSIC[1:40])
    engine.hidden()
    os.kill(runtime._process.pid or 0, number)
    began = time.monotonic()

    def go_on() -> None:
        for event in MUSIC[40:60]:
            engine.absorb([event])

    with pytest.raises(RuntimeLost):
        go_on()
    assert time.monotonic() - began < 20 * HANG
    engine.absorb(MUSIC[engine.position + 1 : 60])
    assert engine.position == 59
    assert np.array_equal(engine.hidden(), here.hidden())


def test_a_process_lost_between_absorbing_and_deciding(runtime: ProcessRuntime) -> None:
    engine = Engine(runtime)
    engine.absorb(MUSIC[1:40])
    expected = next_event(engine)
    os.kill(runtime._process.pid or 0, signal.SIGKILL)
    with pytest.raises(RuntimeLost):
        next_event(engine)
    assert next_event(engine) == expected


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a signal")
def test_a_process_that_hangs_while_it_is_given_a_large_state(runtime: ProcessRuntime) -> None:
    rings = [np.zeros((64, 1 << 16), np.float32)]  # more than a pipe takes
    os.kill(runtime._process.pid, signal.SIGSTOP)
    with pytest.raises(RuntimeLost):
        runtime.restore(rings)
    runtime.reset()
    assert Engine(runtime).hidden().shape == (runtime.config.width,)


def test_what_cannot_be_opened_is_said_as_here(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        ProcessRuntime("onnx", tmp_path)
    with pytest.raises(RuntimeUnavailable, match="no runtime 'abacus'"):
        ProcessRuntime("abacus", checkpoint)


def test_a_process_that_cannot_even_begin_anew_is_replaced(runtime: ProcessRuntime, checkpoint: Path) -> None:
    """As after a GPU's fault, which stays with the process that met it. Here it runs on rings that cannot be emptied."""
    engine = Engine(runtime)
    engine.absorb(MUSIC[1:40])
    before, hidden = runtime._process.pid, engine.hidden()
    runtime._tell("__setattr__", "_memory", None)
    engine.invalidate()
    engine.absorb(MUSIC[40:41])
    assert runtime._process.pid != before
    engine.rewind(39)
    assert np.array_equal(engine.hidden(), hidden)
