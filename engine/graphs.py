"""The model's functions with flat tensor inputs and outputs, as CUDA graphs and TensorRT need them. ``Decide`` is also exported
to ONNX; the other ONNX graphs are written in ``trainer.onnx_graphs``.

All are pure: they read rings and return new rows. The runtime that owns the rings writes the rows into them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.events import ACTIONS, VELOCITY_BINS, WAITS
from engine.model import PerceiverS, Rotary, decide
from engine.rings import ring_shapes
from engine.sounding import AGES


class Step(nn.Module):
    """``PerceiverS.step``. Inputs as in ``step_inputs``; outputs: hidden, then the new rows, k and v of every attention."""

    def __init__(self, model: PerceiverS) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, events: Tensor, ages: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        held = len(self.model.config.scales) + 1
        hidden, rows = self.model.step(events, ages, positions, Rotary(cos, sin), rest[:held], rest[held:])
        return hidden, *rows


class PrefillCross(nn.Module):
    """``PerceiverS.prefill_cross``; inputs: events, ages, cos, sin."""

    def __init__(self, model: PerceiverS) -> None:
        super().__init__()
        self.model = model

    def forward(self, events: Tensor, ages: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.prefill_cross(events, ages, Rotary(cos, sin)))


class Decide(nn.Module):
    """``decide`` with the model's heads. Inputs as in ``decide_inputs``."""

    def __init__(self, model: PerceiverS) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, *inputs: Tensor) -> Tensor:
        return decide(self.head, *inputs)


def step_inputs(model: PerceiverS, count: int) -> dict[str, Tensor]:
    """Example inputs of ``Step`` by name, for ``count`` new events. Rings have the model's precision."""
    config, dtype = model.config, model.dtype
    angles = config.kv_heads if config.rotary == "half-time" else 1
    inputs = {
        "events": torch.zeros(count, 3, dtype=torch.int64),
        "ages": torch.zeros(count, AGES, dtype=torch.int64),
        "positions": torch.arange(count),
        "cos": torch.ones(angles, count, config.head_dim // 2),
        "sin": torch.zeros(angles, count, config.head_dim // 2),
    }
    for i, window in enumerate((*config.scales, config.window)):
        inputs[f"held{i}"] = torch.full((config.ring(window),), -1)
    for name, shape in zip(ring_names(config), ring_shapes(config), strict=True):
        inputs[name] = torch.zeros(shape, dtype=dtype)
    return inputs


def decide_inputs(model: PerceiverS) -> dict[str, Tensor]:
    """Example inputs of ``Decide`` by name."""
    sizes = {"wait_bias": WAITS, "action_bias": ACTIONS, "velocity_bias": VELOCITY_BINS, "temperature": 1, "min_p": 1}
    sizes["noise"] = WAITS + ACTIONS + VELOCITY_BINS
    return {"hidden": torch.ones(model.config.width), **{name: torch.ones(size) for name, size in sizes.items()}}


def ring_names(config: ModelConfig) -> list[str]:
    """k0, v0, k1, v1 ...: the rings of every attention, in the order of ``config.windows``."""
    return [f"{kind}{i}" for i in range(len(config.windows)) for kind in "kv"]
