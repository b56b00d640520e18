"""The step for ONNX Runtime is the model's own step, however a window is read and wherever the events stand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.config import PRESETS, ModelConfig  # noqa: E402
from engine.model import PerceiverS, Rotary  # noqa: E402
from engine.rings import rotary_angles  # noqa: E402
from engine.runtimes.onnx import fill_mask  # noqa: E402
from engine.sounding import ages_of  # noqa: E402
from tests.engine.slots import slot_positions  # noqa: E402
from tests.music import improvise  # noqa: E402
from trainer import onnx_step  # noqa: E402
from trainer.onnx_step import OnnxStep, onnx_step_inputs  # noqa: E402

TINY = PRESETS["tiny"]
SHAPES = {
    "tiny": TINY,
    "many queries on a key": dataclasses.replace(TINY, heads=8, kv_heads=2),
    "a key for each query": dataclasses.replace(TINY, heads=4, kv_heads=4),
    "sum of three scales, rotary over time": dataclasses.replace(
        TINY, heads=4, kv_heads=2, scales=(8, 64, 24), combine="sum", rotary="half-time"
    ),
    "sliding window only": dataclasses.replace(TINY, scales=()),
}


def trained(config: ModelConfig) -> PerceiverS:
    """A model in which nothing is zero or one, as it is at first."""
    torch.manual_seed(1)
    model = PerceiverS(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1 or not parameter.any():
            torch.nn.init.uniform_(parameter, 0.3, 1.3) if parameter.dim() == 1 else torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("part", [8, onnx_step.PART])
@pytest.mark.parametrize(("first", "count"), [(1, 1), (5, 8), (200, 1), (200, 8), (200, 64)])
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_it_is_the_models_step(monkeypatch: pytest.MonkeyPatch, shape: str, first: int, count: int, part: int) -> None:
    monkeypatch.setattr(onnx_step, "PART", part)
    config = SHAPES[shape]
    model = trained(config)
    music = np.array(improvise(first + count, seed=2))
    inputs = onnx_step_inputs(config, count)
    ages = ages_of(music, np.arange(first, len(music)))
    inputs["events"], inputs["ages"] = torch.from_numpy(music[first:]), torch.from_numpy(ages).long()
    angles = rotary_angles(np.arange(first, first + count), music[:, 0].cumsum()[first:], config)
    rotary = Rotary(*map(torch.from_numpy, angles))
    inputs["cos"], inputs["sin"] = (angle.expand(config.kv_heads, -1, -1) for angle in rotary)
    windows = [torch.randn_like(window) for name, window in inputs.items() if name[0] in "kv"]
    inputs |= dict(zip([name for name in inputs if name[0] in "kv"], windows, strict=True))
    for name, mask in inputs.items():
        if name.startswith("mask"):
            fill_mask(mask.numpy(), first)

    hidden, *rows = OnnxStep(model)(*inputs.values())

    slots = [torch.from_numpy(slot_positions(first - 1, size)) for size in (*config.scales, config.window)]
    rings = [window[:, 0] for window in windows]
    positions = torch.arange(first, first + count)
    same, same_rows = model.step(inputs["events"], inputs["ages"], positions, rotary, slots, rings)
    assert torch.allclose(hidden, same, rtol=1e-4, atol=1e-4)
    for row, its in zip(rows, same_rows, strict=True):
        assert torch.allclose(row[:, 0], its, rtol=1e-4, atol=1e-4)
