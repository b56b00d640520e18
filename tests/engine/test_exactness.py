"""Streaming is the training forward, whatever the chunks, past every ring's wrap, with rewinds, on every runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.checkpoint import save_model  # noqa: E402
from engine.config import PRESETS  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.events import Event  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes import Runtime, open_runtime  # noqa: E402
from engine.sounding import ages_of  # noqa: E402
from tests.music import improvise  # noqa: E402
from trainer.export import write_onnx  # noqa: E402

LENGTH = 400  # the longest ring of the tiny preset has 72 rows


TINY = PRESETS["tiny"]
SHAPES = {
    "tiny": TINY,
    "one scale": dataclasses.replace(TINY, scales=(64,)),
    "long scale first": dataclasses.replace(TINY, scales=(64, 24)),
    "sum of scales": dataclasses.replace(TINY, combine="sum"),
    "rotary over time": dataclasses.replace(TINY, heads=4, kv_heads=2, rotary="half-time"),
    "sliding window only": dataclasses.replace(TINY, scales=()),
}


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = PerceiverS(SHAPES[request.param]).eval()
    for block in model.blocks:  # as initialised they add nothing
        torch.nn.init.normal_(block.out.weight, std=0.3)
        torch.nn.init.normal_(block.down.weight, std=0.3)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(model, folder)
    write_onnx(model, folder)
    return folder


@pytest.fixture(scope="module")
def music() -> list[Event]:
    return improvise(LENGTH, seed=3)


@pytest.fixture(scope="module")
def full_forward(checkpoint: Path, music: list[Event]) -> np.ndarray:
    runtime = open_runtime("eager", checkpoint)
    events = np.array(music)
    times = torch.from_numpy(np.cumsum(events[:, 0]))
    inputs = (torch.from_numpy(events).long(), torch.from_numpy(ages_of(events)), torch.arange(LENGTH), times)
    with torch.inference_mode():
        hidden = runtime._model.hidden(*(part[None] for part in inputs), LENGTH)
    return hidden[0].numpy()


@pytest.fixture(params=["eager", "onnx"])
def runtime(request: pytest.FixtureRequest, checkpoint: Path) -> Runtime:
    return open_runtime(request.param, checkpoint)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() < 1e-4 * max(1.0, np.abs(b).max()))


def test_one_at_a_time(runtime: Runtime, music: list[Event], full_forward: np.ndarray) -> None:
    engine = Engine(runtime)
    assert close(engine.hidden(), full_forward[0])
    for i, event in enumerate(music[1:], 1):
        engine.absorb([event])
        assert close(engine.hidden(), full_forward[i]), f"differs at position {i}"


def test_chunks_of_any_size(runtime: Runtime, music: list[Event], full_forward: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    engine, done = Engine(runtime), 1
    while done < LENGTH:
        size = min(int(rng.integers(1, 90)), LENGTH - done)
        engine.absorb(music[done : done + size])
        done += size
        assert close(engine.hidden(), full_forward[done - 1]), f"differs at position {done - 1}"


def test_rewind_is_never_having_played(runtime: Runtime, music: list[Event], full_forward: np.ndarray) -> None:
    rng = np.random.default_rng(7)
    engine, done = Engine(runtime), 1
    while done < LENGTH:
        size = min(int(rng.integers(1, 20)), LENGTH - done)
        engine.absorb(music[done : done + size])
        done += size
        there = engine.position
        engine.absorb(improvise(int(rng.integers(2, engine.config.slack + 2)), seed=done)[1:])  # a plan that is not played
        engine.rewind(int(rng.integers(there, engine.position + 1)))
        engine.rewind(there)
        assert close(engine.hidden(), full_forward[done - 1]), f"differs at position {done - 1}"


def test_rewind_beyond_the_slack_recomputes(runtime: Runtime, music: list[Event], full_forward: np.ndarray) -> None:
    engine = Engine(runtime)
    engine.absorb(music[1:30])
    engine.rewind(12)
    assert engine.position == 12
    assert close(engine.hidden(), full_forward[12])


def test_snapshot_is_exact(runtime: Runtime, music: list[Event]) -> None:
    engine = Engine(runtime)
    engine.absorb(music[1:150])
    snapshot = engine.snapshot()
    engine.absorb(music[150:200])
    expected = engine.hidden()
    engine.absorb(improvise(100, seed=9)[1:])
    engine.restore(snapshot)
    engine.absorb(music[150:200])
    assert np.array_equal(engine.hidden(), expected)
    engine.restore(snapshot)
    engine.rewind(145)
    assert engine.position == 145
