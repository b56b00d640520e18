"""The key/value cache of the ONNX runtime: masks, and windows that agree with the rings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from engine.checkpoint import load_model, save_model  # noqa: E402
from engine.config import PRESETS, CheckpointError  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.rings import MASKED, hidden_shape, ring_shapes  # noqa: E402
from engine.runtimes.choose import open_runtime  # noqa: E402
from engine.runtimes.onnx import OnnxRuntime  # noqa: E402
from engine.runtimes.onnx_windows import fill_mask  # noqa: E402
from tests.engine.slots import slot_positions  # noqa: E402
from tests.music import improvise  # noqa: E402
from trainer.export import write_onnx  # noqa: E402

sizes = st.integers(1, 40)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    model = PerceiverS(PRESETS["tiny"]).eval()
    for block in model.blocks:  # untrained blocks add nothing
        torch.nn.init.normal_(block.out.weight, std=0.3)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(model, folder)
    write_onnx(model, folder)
    return folder


@given(begin=st.integers(0, 100), past=st.integers(0, 100), count=sizes, window=sizes, spare=st.integers(0, 20))
def test_a_mask_selects_the_window_of_each_event(begin: int, past: int, count: int, window: int, spare: int) -> None:
    """The masked window has additional rows for the new events."""
    rows, first = window + count - 1 + spare, begin + past
    mask = np.full((count, rows), np.nan, np.float32)
    fill_mask(mask, window, first, begin)
    held = slot_positions(first + count - 1, rows, begin)
    age = np.arange(first, first + count)[:, None] - held
    seen = (held >= 0) & (age >= 0) & (age < window)
    assert np.array_equal(mask, np.where(seen, np.float32(0), np.float32(MASKED)))


def test_a_state_of_another_runtime_is_restored_and_rewound(checkpoint: Path) -> None:
    """The step graph reads separate windows, which must stay equal to the rings after a restore and a rewind."""
    music = improvise(300, seed=5)
    engines = [Engine(open_runtime(name, checkpoint)) for name in ("eager", "onnx")]
    reference, onnx = engines
    reference.absorb(music[1:200])
    onnx.absorb(improvise(90, seed=6)[1:])  # must be overwritten by the restore
    onnx.restore(reference.snapshot())
    for engine in engines:
        engine.rewind(195)
    for i in range(196, 250):
        for engine in engines:
            engine.absorb([music[i]])
        assert np.allclose(onnx.hidden(), reference.hidden(), rtol=1e-4, atol=1e-4), f"differs at position {i}"
    back = onnx.snapshot()
    assert [ring.shape for ring in back.rings] == [*ring_shapes(onnx.config), hidden_shape(onnx.config)]
    for mine, its in zip(back.rings, reference.snapshot().rings, strict=True):
        assert np.allclose(mine, its, rtol=1e-4, atol=1e-4)


def test_a_reset_clears_values_that_are_not_finite(checkpoint: Path) -> None:
    music = improvise(60, seed=7)
    engine = Engine(open_runtime("onnx", checkpoint))
    engine.absorb(music[1:])
    hidden, rings = engine.hidden(), engine.runtime.rings()
    engine.runtime.restore([np.full_like(ring, np.nan) for ring in rings])
    engine.absorb([music[1]])
    assert np.isnan(engine.hidden()).all()
    engine.forget()
    engine.absorb(music[1:])
    assert np.array_equal(engine.hidden(), hidden)


@pytest.mark.parametrize("change", [{"window": 32}, {"scales": (24,)}, {"layers": 3}, {"kv_heads": 2}])
def test_files_of_another_config_are_refused(checkpoint: Path, tmp_path: Path, change: dict[str, object]) -> None:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_model(PerceiverS(dataclasses.replace(load_model(checkpoint).config, **change)), tmp_path)
    with pytest.raises(CheckpointError, match="perceivers-live export") as caught:
        OnnxRuntime(tmp_path)
    assert "\n" not in str(caught.value)
