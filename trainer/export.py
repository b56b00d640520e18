"""A trained checkpoint -> the bundle that a daemon plays: weights, config, and the model's functions as ONNX graphs."""

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
from engine.graphs import Decide, PrefillCross, decide_inputs, ring_names
from engine.model import PerceiverS
from engine.runtimes.onnx import DECIDE_FILE, PREFILL_CROSS_FILE, STEP_FILE, STEP_INT8_FILE
from trainer.card import card
from trainer.onnx_step import OnnxStep, onnx_step_inputs

OPSET = 23  # the first with RMSNormalization as one operator


def write_onnx(model: PerceiverS, folder: Path) -> None:
    """Writes ``step.onnx`` and ``remember.onnx`` (any number of new events) and ``decide.onnx`` for a model on the CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    inputs = onnx_step_inputs(config, 3)
    count = torch.export.Dim("count", min=1, max=4096)
    shapes = {"events": {0: count}, "ages": {0: count}, "cos": {1: count}, "sin": {1: count}}
    for i, window in enumerate((*config.scales, config.window)):
        shapes[f"mask{i}"] = {0: count, 1: window + count}
    flat = [shapes.get(name, {}) for name in inputs]
    rows = [f"new_{name}" for name in ring_names(config)]
    _export(OnnxStep(model), inputs, (*flat[:4], tuple(flat[4:])), ["hidden", *rows], folder / STEP_FILE)
    if model.cross:
        events = {name: inputs[name] for name in ("events", "ages", "cos", "sin")}
        crossed = rows[: 2 * len(model.cross)]
        _export(PrefillCross(model), events, tuple(shapes[name] for name in events), crossed, folder / PREFILL_CROSS_FILE)
    _export(Decide(model), decide_inputs(model), None, ["event"], folder / DECIDE_FILE)


def _export(module: nn.Module, inputs: dict[str, Tensor], shapes: Any, outputs: list[str], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter deprecates parts of itself
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    for part in (program.model.graph, *program.model.functions.values()):
        for node in part:
            node.metadata_props.clear()  # where in whose files each operator came from: no business of a bundle's
    program.save(str(path), external_data=False)


def export(run: Path, folder: Path, *, data: str = "", licence: str = "", figures: Sequence[Path] = ()) -> None:
    """The checkpoint in ``run`` as a bundle in ``folder``; ``figures`` are files that ``evaluate --json`` wrote, for the card.

    Raises ``CheckpointError``.
    """
    config, extra = read_config(run)
    if config.mask != "band":
        raise CheckpointError("a model with a block mask was trained to compare with; it cannot stream, so it is not exported")
    model = load_model(run)
    try:
        measured = [json.loads(path.read_text(encoding="utf-8")) for path in figures]
        text = card(config, sum(p.numel() for p in model.parameters()), extra, data, licence, measured)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the figures cannot be used ({type(error).__name__}: {error})") from error
    for name in (STEP_INT8_FILE, PREFILL_CROSS_FILE):  # of another model that was here before
        (folder / name).unlink(missing_ok=True)
    save_model(model.half(), folder, **extra)  # half the size; everything below is made from what was rounded
    model = load_model(folder)
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    write_onnx(model, folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors keeps its files to their owner
