"""``PerceiverS.step`` for ONNX Runtime on a CPU, where an event costs what is read for it and how many operators read it.

The same function of the same weights, up to rounding:

- The gains of the norms before queries, keys and values are folded into the weights behind them. All three then read one normed
  vector, and a latent layer makes them in one product.
- That product comes out by key/value head: its J queries, its key, its value. Queries and keys are normed and rotated together,
  and the factor of the scores is part of the queries' gains.
- Every query meets the rows of a window in a product of its own: for one row ONNX Runtime reads the other matrix where it lies,
  for two it would first rearrange it.
- A long window is read in parts, each by all the queries of a head in turn: as a whole it would not fit the processor's cache and
  come from memory once for each of them.
- Windows without the rings' slack, and their masks, come ready-made (see ``engine.runtimes.onnx``).

Shapes: T new events, D width, G key/value heads, J queries of each, C head size, W rows of a window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.model import Block, PerceiverS
from engine.sounding import AGES

PART = 2048  # rows of a long window that are read at once


class OnnxStep(nn.Module):
    """Inputs as in ``onnx_step_inputs``; outputs: hidden [T, D] and the new rows, k and v [G, 1, T, C] of every attention."""

    def __init__(self, model: PerceiverS) -> None:
        super().__init__()
        self.config, self.embedding = model.config, model.embedding
        self.blocks = nn.ModuleList(OnnxBlock(block) for block in model.blocks)

    def forward(self, events: Tensor, ages: Tensor, cos: Tensor, sin: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        stages = len(self.config.scales)
        masks, windows = rest[: stages + 1], rest[stages + 1 :]
        e = z = self.embedding(events, ages)[None]
        rows: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            crosses = i < stages
            side_by_side = crosses and self.config.combine == "sum"
            inputs = e if side_by_side else z, e if crosses else None
            out, k, v = block(*inputs, (cos, sin), windows[2 * i : 2 * i + 2], masks[min(i, stages)])
            z = z + out - e if side_by_side else out
            rows += [k, v]
        return z[0], *rows


class OnnxBlock(nn.Module):
    """A ``Block`` with its attention over a window."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block, self.shared = block, block.heads // block.kv_heads
        groups, size, shared = block.kv_heads, block.head_dim, self.shared
        query = (block.query.weight * block.query_norm.weight).view(groups, shared, size, -1)
        key, value = (block.key_value.weight * block.source_norm.weight).view(2, groups, 1, size, -1)
        self.query = _constant(query.flatten(0, 2))
        self.key_value = _constant(torch.cat((key, value), dim=1).flatten(0, 2))
        self.query_key_value = _constant(torch.cat((query, key, value), dim=1).flatten(0, 2))  # [G * (J + 2) * C, D]
        gains = (block.query_scale.weight * size**-0.5).expand(shared, size)
        self.gains = _constant(torch.cat((gains, block.key_scale.weight[None]))[:, None])  # [J + 1, 1, C]

    def forward(
        self, z: Tensor, source: Tensor | None, rotary: tuple[Tensor, Tensor], window: tuple[Tensor, Tensor], mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """z [1, T, D], and so ``source``, if keys and values come from elsewhere; cos and sin [G, T, C/2]; k and v of the window
        [G, 1, W, C]; additive mask [T, W + T]. Returns z after the block and the new rows.
        """
        count, rows = z.shape[1], window[0].shape[2]
        if source is None:
            made = self._by_head(z, self.query_key_value)
        else:
            made = torch.cat((self._by_head(z, self.query), self._by_head(source, self.key_value)), dim=1)
        qk, v = made.split([self.shared + 1, 1], dim=1)  # [G, J + 1, T, C], [G, 1, T, C]
        q, k = torch.onnx.ops.rotary_embedding(_normed(qk) * self.gains, *rotary).split([self.shared, 1], dim=1)
        scores = torch.cat((_times_keys(q, window[0]), q @ k.transpose(2, 3)), dim=-1) + mask  # [G, J, T, W + T]
        old, new = scores.softmax(-1).split([rows, count], dim=-1)
        attended = _times_values(old, window[1]) + new @ v
        z = z + self.block.out(attended.permute(2, 0, 1, 3).reshape(1, count, -1))
        return z + self.block.down(F.gelu(self.block.up(self.block.mlp_norm(z)))), k, v

    def _by_head(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [1, T, D] normed, times a weight for n heads of each group: [G, n, T, C]."""
        made = F.linear(_normed(x), weight).view(x.shape[1], self.block.kv_heads, -1, self.block.head_dim)
        return made.permute(1, 2, 0, 3)


def onnx_step_inputs(config: ModelConfig, count: int) -> dict[str, Tensor]:
    """Example inputs of ``OnnxStep`` by name, for ``count`` new events."""
    inputs = {"events": torch.zeros(count, 3, dtype=torch.int64), "ages": torch.zeros(count, AGES, dtype=torch.int64)}
    inputs |= {name: torch.zeros(config.kv_heads, count, config.head_dim // 2) for name in ("cos", "sin")}
    for i, window in enumerate((*config.scales, config.window)):
        inputs[f"mask{i}"] = torch.zeros(count, window + count)
    for i, window in enumerate(config.windows):
        inputs |= {f"{kind}{i}": torch.zeros(config.kv_heads, 1, window, config.head_dim) for kind in "kv"}
    return inputs


def _times_keys(q: Tensor, keys: Tensor) -> Tensor:
    """q [G, J, T, C], keys [G, 1, W, C] -> [G, J, T, W]."""
    parts = _parts(keys)
    if parts.shape[1] == 1:
        return q @ keys.transpose(2, 3)
    return (q[:, None] @ parts.transpose(3, 4)).permute(0, 2, 3, 1, 4).flatten(3)


def _times_values(weights: Tensor, values: Tensor) -> Tensor:
    """weights [G, J, T, W], values [G, 1, W, C] -> [G, J, T, C]."""
    parts = _parts(values)
    if parts.shape[1] == 1:
        return weights @ values
    return (weights.unflatten(3, (parts.shape[1], -1)).permute(0, 3, 1, 2, 4) @ parts).sum(1)


def _parts(window: Tensor) -> Tensor:
    """[G, 1, W, C] -> [G, parts, 1, W / parts, C], in one part if it is short or not so divisible."""
    groups, _, rows, size = window.shape
    parts = rows // PART if rows > PART and rows % PART == 0 else 1
    return window.view(groups, parts, 1, -1, size)


def _normed(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], torch.ones(x.shape[-1]), eps=1e-6)  # without gains, more operators would do it


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)
