"""The step with int8 weights, for CPUs: kept only where it costs next to nothing.

Weights are quantised by the row, with one bit to spare: processors without VNNI add pairs of products in 16 bits, and full-range
weights overflow there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.checkpoint import load_model
from engine.engine import Engine
from engine.runtimes.onnx import DECIDE_FILE, PREFILL_CROSS_FILE, STEP_FILE, STEP_INT8_FILE, OnnxRuntime
from trainer.data import Corpus
from trainer.evaluate import evenly_spaced
from trainer.likelihood import streamed_likelihood

ACCEPTED = 0.01  # nats an event
PIECES = 6


def quantise(source: Path, target: Path) -> None:
    """An ONNX file with float32 weights -> one with int8 weights; activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


def add_int8(folder: Path, corpus: Corpus, *, pieces: int = PIECES, limit: float = ACCEPTED) -> str:
    """Adds ``step.int8.onnx`` to a bundle if it costs less than ``limit`` nats an event on validation pieces, and says what
    was measured. Raises ``CheckpointError``.
    """
    part = folder / "int8.part"
    part.mkdir(exist_ok=True)
    try:
        for file in ("config.json", DECIDE_FILE, PREFILL_CROSS_FILE):
            if (folder / file).exists():
                shutil.copy(folder / file, part / file)
        quantise(folder / STEP_FILE, part / STEP_INT8_FILE)
        model, chosen = load_model(folder), evenly_spaced(corpus.split("validation"), pieces)
        nats = []
        for one, int8 in ((folder, False), (part, True)):
            engine = Engine(OnnxRuntime(one, int8=int8))
            nats.append(streamed_likelihood(engine, model, corpus, chosen).rates()["nats_per_event"])
        cost = nats[1] - nats[0]
        accepted = cost < limit
        if accepted:
            (part / STEP_INT8_FILE).replace(folder / STEP_INT8_FILE)
        verdict = "accepted" if accepted else "refused"
        return f"int8 {verdict}: {nats[1]:.4f} nats an event, float32 {nats[0]:.4f}, on {len(chosen)} validation pieces streamed"
    finally:
        shutil.rmtree(part)
