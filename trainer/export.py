"""A trained checkpoint -> the bundle that a daemon plays: weights, config, and the two ONNX graphs ``step`` and ``decide``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.checkpoint import load_model, read_config, save_model
from engine.config import CheckpointError
from engine.events import ACTIONS, VELOCITY_BINS, WAITS
from engine.model import PerceiverS, Rotary, decide
from engine.runtimes.onnx import DECIDE_FILE, STEP_FILE
from engine.sounding import AGES
from trainer.card import card

OPSET = 23  # the first with RMSNormalization as one operator


class Step(nn.Module):
    """``PerceiverS.step`` with flat inputs and outputs."""

    def __init__(self, model: PerceiverS) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, events: Tensor, ages: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        held = len(self.model.config.scales) + 1
        hidden, rows = self.model.step(events, ages, positions, Rotary(cos, sin), rest[:held], rest[held:])
        return hidden, *rows


class Decide(nn.Module):
    """``decide`` with the heads inside."""

    def __init__(self, model: PerceiverS) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, *inputs: Tensor) -> Tensor:
        return decide(self.head, *inputs)


def step_inputs(model: PerceiverS, count: int) -> dict[str, Tensor]:
    """Example inputs of ``Step`` by name, for ``count`` new events."""
    config = model.config
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
    for i, window in enumerate(config.windows):
        for kind in "kv":
            inputs[f"{kind}{i}"] = torch.zeros(config.kv_heads, config.ring(window), config.head_dim)
    return inputs


def write_onnx(model: PerceiverS, folder: Path) -> None:
    """Writes ``step.onnx`` (any number of new events) and ``decide.onnx`` for a model on the CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = step_inputs(model, 3)
    count = torch.export.Dim("count", min=1, max=4096)
    dynamic = {"events", "ages", "positions", "cos", "sin"}
    shapes = [{int(name in ("cos", "sin")): count} if name in dynamic else {} for name in inputs]
    outputs = ["hidden", *(f"new_{name}" for name in inputs if name[0] in "kv" and name[1:].isdigit())]
    _export(Step(model), tuple(inputs.values()), (*shapes[:5], tuple(shapes[5:])), list(inputs), outputs, folder / STEP_FILE)
    names = {"hidden": model.config.width, "wait_bias": WAITS, "action_bias": ACTIONS, "velocity_bias": VELOCITY_BINS}
    sizes = names | {"temperature": 1, "min_p": 1, "noise": WAITS + ACTIONS + VELOCITY_BINS}
    _export(Decide(model), tuple(torch.ones(size) for size in sizes.values()), None, list(sizes), ["event"], folder / DECIDE_FILE)


def _export(module: nn.Module, args: tuple[Tensor, ...], shapes: Any, inputs: list[str], outputs: list[str], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter deprecates parts of itself
        program = torch.onnx.export(
            module.eval(),
            args,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)


def export(run: Path, folder: Path, *, data: str = "", licence: str = "", figures: Sequence[Path] = ()) -> None:
    """The checkpoint in ``run`` as a bundle in ``folder``; ``figures`` are files that ``evaluate --json`` wrote, for the card.

    Raises ``CheckpointError``.
    """
    model = load_model(run)
    config, extra = read_config(run)
    try:
        measured = [json.loads(path.read_text(encoding="utf-8")) for path in figures]
        text = card(config, sum(p.numel() for p in model.parameters()), extra, data, licence, measured)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the figures cannot be used ({type(error).__name__}: {error})") from error
    save_model(model.half(), folder, **extra)  # half the size; everything below is made from what was rounded
    model = load_model(folder)
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    write_onnx(model, folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors keeps its files to their owner
