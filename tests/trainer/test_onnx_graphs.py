"""The graph of the step computes ``PerceiverS.step`` for any config and any positions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from engine.checkpoint import save_model  # noqa: E402
from engine.config import PRESETS, ModelConfig  # noqa: E402
from engine.model import PerceiverS, Rotary  # noqa: E402
from engine.rings import rotary_angles  # noqa: E402
from engine.runtimes import onnx_windows  # noqa: E402
from engine.runtimes.onnx import PREFILL_CROSS_FILE, STEP_FILE, STEP_INT8_FILE, OnnxRuntime  # noqa: E402
from engine.sounding import ages_of  # noqa: E402
from tests.engine.slots import slot_positions  # noqa: E402
from tests.music import improvise  # noqa: E402
from trainer.export import write_onnx  # noqa: E402

TINY = PRESETS["tiny"]
Exported = tuple[PerceiverS, OnnxRuntime]
SHAPES = {
    "tiny": TINY,
    "many queries on a key": dataclasses.replace(TINY, heads=8, kv_heads=2),
    "a key for each query": dataclasses.replace(TINY, heads=4, kv_heads=4),
    "sum of three scales, rotary over time": dataclasses.replace(
        TINY, heads=4, kv_heads=2, scales=(8, 64, 24), combine="sum", rotary="half-time"
    ),
    "sliding window only": dataclasses.replace(TINY, scales=()),
    "a window of one event": dataclasses.replace(TINY, window=1),
}


def trained(config: ModelConfig) -> PerceiverS:
    """A model without weights that are exactly zero or one, as untrained ones are."""
    torch.manual_seed(1)
    model = PerceiverS(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1 or not parameter.any():
            torch.nn.init.uniform_(parameter, 0.3, 1.3) if parameter.dim() == 1 else torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module", params=[(shape, long) for shape in SHAPES for long in (30, onnx_windows.LONG)], ids=str)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PerceiverS, OnnxRuntime]]:
    """A model and its graph. Windows of at least ``LONG`` events have transposed keys; with 30, some of the tiny model do."""
    shape, long = request.param
    model, folder = trained(SHAPES[shape]), tmp_path_factory.mktemp("graph")
    save_model(model, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_windows, "LONG", long)
        write_onnx(model, folder)
        yield model, OnnxRuntime(folder)


@pytest.mark.parametrize(("first", "count"), [(1, 1), (5, 8), (200, 1), (200, 8), (200, 64)])
@torch.inference_mode()
def test_the_graph_computes_the_models_step(exported: Exported, first: int, count: int) -> None:
    model, runtime = exported
    config = model.config
    rng = np.random.default_rng(3)
    *past, hidden = (rng.standard_normal(ring.shape).astype(np.float32) for ring in runtime.rings())
    runtime.restore([*past, hidden])
    music = np.array(improvise(first + count, seed=2))
    events, ages, times = music[first:], ages_of(music, np.arange(first, len(music))), music[:, 0].cumsum()[first:]

    runtime.step(events, ages, times, first)

    rings = [torch.from_numpy(ring) for ring in past]
    windows = (*config.scales, config.window)
    slots = [torch.from_numpy(slot_positions(first - 1, config.ring(window))) for window in windows]
    positions = torch.arange(first, first + count)
    rotary = Rotary(*map(torch.from_numpy, rotary_angles(positions.numpy(), times, config)))
    same, rows = model.step(torch.from_numpy(events), torch.from_numpy(ages).long(), positions, rotary, slots, rings)
    for position, expected in list(zip(range(first, first + count), same, strict=True))[-config.slack :]:
        assert np.allclose(runtime.hidden(position), expected, rtol=1e-4, atol=1e-4)
    for ring, new in zip(runtime.rings(), rows, strict=False):
        kept = np.arange(first, first + count)[-ring.shape[1] :]
        assert np.allclose(ring[:, kept % ring.shape[1]], new[:, -len(kept) :], rtol=1e-4, atol=1e-4)


def test_the_graphs_contain_no_weights(tmp_path: Path) -> None:
    """The graphs are equal for different weights."""
    written = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        write_onnx(PerceiverS(TINY), tmp_path, int8=True)
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert written[0] == written[1]
    assert {STEP_FILE, STEP_INT8_FILE, PREFILL_CROSS_FILE} < written[0].keys()
    assert sum(map(len, written[0].values())) < 100_000
