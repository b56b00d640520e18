"""Adds the step with int8 weights to a bundle, if the loss of likelihood is negligible."""

from __future__ import annotations

from pathlib import Path

from engine.checkpoint import load_model
from engine.engine import Engine
from engine.runtimes.onnx import STEP_INT8_FILE, OnnxRuntime
from trainer.data import Corpus, DataError
from trainer.evaluate import evenly_spaced
from trainer.export import write_onnx
from trainer.likelihood import streamed_likelihood

ACCEPTED = 0.01  # nats an event: largest loss of likelihood
PIECES = 6


def add_int8(folder: Path, corpus: Corpus, *, pieces: int = PIECES, limit: float = ACCEPTED) -> str:
    """Adds ``step.int8.onnx`` to a bundle if it loses less than ``limit`` nats an event on validation pieces. Returns the result
    as one line. Raises ``CheckpointError``, and ``DataError`` without validation pieces.
    """
    if not corpus.split("validation"):
        raise DataError("the data has no validation pieces, on which int8 weights are tested; the bundle has none")
    model, chosen = load_model(folder), evenly_spaced(corpus.split("validation"), pieces)
    write_onnx(model, folder, int8=True)
    accepted = False
    try:
        float32 = streamed_likelihood(Engine(OnnxRuntime(folder)), model, corpus, chosen)
        # The events of a chunk share the scale of their activations, so int8 is measured as it plays: one event at a time.
        int8 = streamed_likelihood(Engine(OnnxRuntime(folder, int8=True)), model, corpus, chosen, chunk=1)
        nats = [sums.rates()["nats_per_event"] for sums in (float32, int8)]
        accepted = nats[1] - nats[0] < limit
    finally:
        if not accepted:
            (folder / STEP_INT8_FILE).unlink(missing_ok=True)
    verdict = "accepted" if accepted else "refused"
    return f"int8 {verdict}: {nats[1]:.4f} nats an event, float32 {nats[0]:.4f}, on {len(chosen)} validation pieces, streamed"
