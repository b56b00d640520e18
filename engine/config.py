"""The hyperparameters of a PerceiverS, as stored in a checkpoint's ``config.json``. Does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from engine.errors import UserError
from engine.text import one_line

MAX_RING_BYTES = 1 << 30
CHOICES = {"combine": ("cascade", "sum"), "rotary": ("index", "half-time"), "mask": ("band", "block")}


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network. ``width``: of embeddings and hidden states. ``heads``: of queries. ``kv_heads``: of keys and values.
    ``layers``: latent layers. ``mlp``: width of a feed-forward layer, as a multiple of ``width``. ``scales``: the windows, in
    events, of the cross-attention stages, in order (none: a plain sliding-window Transformer). ``window``: the sliding window of
    every latent layer. ``slack``: how many events can be rewound without recomputing.

    ``combine``: each cross-attention stage reads the output of the one before (``cascade``), or all read the embeddings and their
    outputs are summed (``sum``). ``rotary``: angles of the event index on all heads (``index``), or of musical time on the upper
    half of the heads (``half-time``). ``mask``: a window for each query (``band``), or one window for all queries of an example
    (``block``, as in the paper). A ``block`` model is for ablations only: its window moves with the example, so it cannot stream.
    """

    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    layers: int = 4
    scales: tuple[int, ...] = (1024, 8192)
    window: int = 512
    mlp: int = 4
    slack: int = 256
    rotary_base: float = 10000.0
    combine: str = "cascade"
    rotary: str = "index"
    mask: str = "band"

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def windows(self) -> tuple[int, ...]:
        """The window of every attention in the order of execution: cross-attention stages, then latent layers."""
        return self.scales + (self.window,) * self.layers

    @property
    def reach(self) -> int:
        """The longest cross-attention window in events. The latents' windows add to it."""
        return max(self.scales, default=1)

    @property
    def latent_reach(self) -> int:
        """Newest events whose latents are needed: the layers' windows add up, and up to ``slack`` events may be rewound."""
        return self.layers * (self.window - 1) + self.slack + 1

    @property
    def history(self) -> int:
        """Newest events from which the state can be computed, even after ``slack`` of them are rewound."""
        return self.reach + self.latent_reach + self.slack

    def ring(self, window: int) -> int:
        """Rows of the key/value ring of a window: the window plus the slack for rewinds."""
        return window + self.slack

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Raises ``CheckpointError`` for unknown fields, wrong types and values out of range."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in data:
            if name not in fields:
                raise CheckpointError(f"model config: unknown field {one_line(name)}")
        values = dict(data)
        scales = values.get("scales", cls.scales)
        if not isinstance(scales, (list, tuple)) or not len(scales) <= 8:
            raise CheckpointError(f"model config: scales must be a list of up to 8 windows, found {one_line(scales)}")
        values["scales"] = tuple(scales)
        for name, value in [*((n, v) for n, v in values.items() if n != "scales"), *(("scales", s) for s in scales)]:
            if name in CHOICES:
                good = value in CHOICES[name]
            elif name == "rotary_base":
                good = isinstance(value, (int, float)) and not isinstance(value, bool) and 1 < value <= 1e9
            else:
                good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 20
            if not good:
                raise CheckpointError(f"model config: {name} = {one_line(value)} is out of range")
        config = cls(**values)
        if config.width > 8192 or config.layers > 128 or config.width % config.heads or config.heads % config.kv_heads:
            raise CheckpointError(f"model config: sizes do not fit together: {config}")
        rings = sum(config.ring(window) for window in config.windows) * config.kv_heads * config.head_dim * 8
        rings += (config.slack + 1) * config.width * 4  # hidden states
        if rings > MAX_RING_BYTES:
            raise CheckpointError(f"model config: the rings would take {rings >> 20} MB, allowed are {MAX_RING_BYTES >> 20} MB")
        if config.rotary == "half-time" and config.kv_heads % 2:
            raise CheckpointError(f"model config: half-time rotary needs an even number of kv_heads, found {config.kv_heads}")
        if config.head_dim % 2:
            raise CheckpointError(f"model config: the head size must be even, found {config.head_dim}")
        return config


PRESETS = {
    "tiny": ModelConfig(width=64, heads=2, kv_heads=1, layers=2, scales=(24, 64), window=16, slack=8),
    "small": ModelConfig(layers=8),
    "base": ModelConfig(width=512, heads=8, kv_heads=2, layers=10, scales=(1024, 32768), window=1024),
    "large": ModelConfig(width=768, heads=12, kv_heads=2, layers=16, scales=(1024, 32768), window=1024),
}
