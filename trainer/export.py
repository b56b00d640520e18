"""Exports a trained checkpoint as a bundle for the daemon: weights, config, and the model's functions as ONNX graphs."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from safetensors import SafetensorError

from engine.checkpoint import load_model, read_config, save_model
from engine.config import CheckpointError
from engine.graphs import Decide, decide_inputs
from engine.model import PerceiverS
from engine.runtimes.onnx import DECIDE_FILE, PREFILL_CROSS_FILE, STEP_FILE, STEP_INT8_FILE
from engine.runtimes.onnx_weights import Read, decide_weights, prefill_cross_weights, quantized, step_weights
from engine.text import one_line
from trainer.card import card
from trainer.onnx_graphs import OPSET, prefill_cross_graph, step_graph, without_weights


def write_onnx(model: PerceiverS, folder: Path, *, int8: bool = False) -> None:
    """Writes ``step.onnx`` and ``prefill_cross.onnx`` (any number of new events) and ``decide.onnx`` for a model on the CPU; with
    ``int8`` also ``step.int8.onnx``. The graphs contain no weights: the runtime reads them from ``model.safetensors``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, read = model.config, _reader(model)
    weights = step_weights(read, config)
    (folder / STEP_FILE).write_bytes(step_graph(config, weights).SerializeToString())
    if int8:
        (folder / STEP_INT8_FILE).write_bytes(step_graph(config, quantized(weights)).SerializeToString())
    if config.scales:
        prefill_cross = prefill_cross_graph(config, prefill_cross_weights(read, config))
        (folder / PREFILL_CROSS_FILE).write_bytes(prefill_cross.SerializeToString())
    decide = without_weights(_exported_decide(model), decide_weights(read, config))
    (folder / DECIDE_FILE).write_bytes(decide.SerializeToString())


def _reader(model: PerceiverS) -> Read:
    parameters = model.state_dict()
    return lambda name, *shape: parameters[name].detach().float().numpy().reshape(shape)


def _exported_decide(model: PerceiverS) -> onnx.ModelProto:
    module, inputs = copy.deepcopy(Decide(model)).eval(), decide_inputs(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():  # the exporter would merge parameters with equal values
        parameter.data = torch.rand(parameter.shape, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated parts
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=["event"],
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    for part in (program.model.graph, *program.model.functions.values()):
        for node in part:
            node.metadata_props.clear()  # contains paths of source files
    return program.model_proto


def export(run: Path, folder: Path, *, data: str = "", licence: str = "", figures: Sequence[Path] = ()) -> None:
    """Exports the checkpoint in ``run`` as a bundle in ``folder``. ``figures``: files of ``evaluate --json``, for the model card.
    If it fails, an earlier bundle there is unchanged.

    Raises ``CheckpointError``.
    """
    if folder.exists() and folder.samefile(run):
        raise CheckpointError(f"{folder}: is the checkpoint itself; its weights would be rounded to half precision")
    config, extra = read_config(run)
    if config.mask != "band":
        raise CheckpointError("a model with mask = block cannot stream, so it is not exported; it is for ablations only")
    if extra.get("pedal", "events") != "events":
        raise CheckpointError(
            "a model trained with --pedal extend does not know pedal events, so it is not exported; it is for comparisons only"
        )
    model = load_model(run)
    try:
        measured = [json.loads(path.read_text(encoding="utf-8")) for path in figures]
        text = card(config, sum(p.numel() for p in model.parameters()), extra, data, licence, measured)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the figures cannot be used ({type(error).__name__}: {error})") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
            made = Path(temporary)
            save_model(model.half(), made, **extra)  # half the size; the graphs below use the rounded weights
            (made / "MODEL_CARD.md").write_text(text, encoding="utf-8")
            write_onnx(load_model(made), made)
            (made / "model.safetensors").chmod(0o644)  # safetensors creates files that only their owner can read
            for name in (STEP_INT8_FILE, PREFILL_CROSS_FILE):  # files of an earlier export
                (folder / name).unlink(missing_ok=True)
            for path in made.iterdir():
                path.replace(folder / path.name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written ({one_line(error)})") from error
