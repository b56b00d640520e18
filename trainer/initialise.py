"""Weights to begin a run from: an earlier checkpoint, grown in depth where the new model has more layers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from engine.checkpoint import load_model
from engine.config import CheckpointError
from engine.model import Block, PerceiverS


def initialise(model: PerceiverS, checkpoint: Path) -> None:
    """Gives ``model`` the weights of ``checkpoint``. Raises ``CheckpointError`` unless the two differ at most in depth and in the
    latent window.

    Extra latent layers are spread evenly; each begins as a copy of the one below it whose outputs are zero, so the grown model
    computes what the checkpoint computed (progressive stacking, Gong et al. 2019, with the zeroed residuals of Net2Net).
    """
    source = load_model(checkpoint)
    have, want = source.config, model.config
    same = dataclasses.replace(have, layers=want.layers, slack=want.slack, window=want.window) == want
    if not same or want.layers < have.layers:
        raise CheckpointError(
            f"{checkpoint}: cannot begin a model of {want} from one of {have}: only layers can be added and the window changed"
        )
    with torch.no_grad():
        for part in ("embedding", "cross", "head"):
            getattr(model, part).load_state_dict(getattr(source, part).state_dict())
        before = -1
        for i, layer in enumerate(model.layers):
            origin = i * have.layers // want.layers
            layer.load_state_dict(source.layers[origin].state_dict())
            if origin == before:
                _silence(layer)
            before = origin


def _silence(block: nn.Module) -> None:
    """A block that adds nothing to the residual stream yet."""
    assert isinstance(block, Block)
    nn.init.zeros_(block.out.weight)
    nn.init.zeros_(block.down.weight)
