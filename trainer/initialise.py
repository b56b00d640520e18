"""Initial weights of a run from an earlier checkpoint. The new model may have more layers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from engine.checkpoint import load_model
from engine.config import CheckpointError
from engine.model import Block, PerceiverS


def initialise(model: PerceiverS, checkpoint: Path) -> None:
    """Copies the weights of ``checkpoint`` into ``model``. Raises ``CheckpointError`` if the two differ in more than depth and
    latent window.

    Additional latent layers are evenly spaced. Each is a copy of the layer below it with zero outputs, so that the new model
    computes the same function (progressive stacking, Gong et al. 2019, with the zeroed residuals of Net2Net).
    """
    source = load_model(checkpoint)
    have, want = source.config, model.config
    same = dataclasses.replace(have, layers=want.layers, slack=want.slack, window=want.window) == want
    if not same or want.layers < have.layers:
        raise CheckpointError(
            f"{checkpoint}: cannot initialise {want} from {have}: only layers can be added and the window changed"
        )
    with torch.no_grad():
        for part in ("embedding", "cross", "head"):
            getattr(model, part).load_state_dict(getattr(source, part).state_dict())
        before = -1
        for i, layer in enumerate(model.layers):
            origin = i * have.layers // want.layers
            layer.load_state_dict(source.layers[origin].state_dict())
            if origin == before:
                _zero_outputs(layer)
            before = origin


def _zero_outputs(block: nn.Module) -> None:
    """Sets the outputs of a block to zero: it adds nothing to the residual stream."""
    assert isinstance(block, Block)
    nn.init.zeros_(block.out.weight)
    nn.init.zeros_(block.down.weight)
