"""Causal attention: over whole examples in training, over rings of keys and values in streaming.

Shapes: B batch, N queries, K keys, H heads, G key/value heads, C head size, T new events, R ring rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.rings import MASKED

QUERY_BLOCK = 128  # queries scored together: memory stays linear in the context; small blocks waste less on masked keys


def visible(q_pos: Tensor, k_pos: Tensor, oldest: Tensor) -> Tensor:
    """Whether a query at ``q_pos`` sees a key at ``k_pos``. A query always sees itself, so that no row is empty."""
    return ((k_pos <= q_pos) & (k_pos >= oldest) & (k_pos >= 0)) | (k_pos == q_pos)


class PastAttention:
    """Attention of a training example's queries over their past. Every layer with the same window shares one object, so the masks
    are computed once.

    Each query sees the keys of its last ``window`` positions, itself included; with ``block`` it sees the keys that the newest
    query sees, up to itself (the paper's mask).

    q_pos [B, N] and k_pos [B, K] are ascending, with -1 for padding at the front and gaps where context was dropped; the queries
    are the last N of the K keys. ``multiplicity`` [B, K]: how many events a key stands for (1, or more where only a sample of the
    older events was kept). Its logarithm is added to the key's scores: sums over the sample then estimate sums over all events.
    """

    def __init__(
        self, q_pos: Tensor, k_pos: Tensor, window: int, *, multiplicity: Tensor | None = None, block: bool = False
    ) -> None:
        self._q_pos, self._k_pos, self._window, self._block = q_pos, k_pos, window, block
        self._oldest = (q_pos[:, -1:] if block else q_pos).expand_as(q_pos) - window + 1
        self._log_multiplicity = None if multiplicity is None else multiplicity.log()
        self._parts: list[tuple[slice, slice, Tensor]] = []
        self._flex_mask: Any = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, N, C]; k, v [B, G, K, C] -> [B, H, N, C]."""
        if q.is_cuda and torch.compiler.is_compiling():  # without compilation, FlexAttention stores every score
            return self.flex(q, k, v)
        return self.blockwise(q, k, v)

    def blockwise(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """PyTorch's ``scaled_dot_product_attention``, one block of queries at a time over the keys that it can reach."""
        if q.is_cuda:  # CUDA kernels that take a mask need as many key heads as query heads
            k, v = (one.repeat_interleave(q.shape[1] // one.shape[1], dim=1) for one in (k, v))
        self._parts = self._parts or list(self._blocks())
        out = [
            F.scaled_dot_product_attention(q[:, :, i], k[:, :, j], v[:, :, j], attn_mask=mask.to(q.dtype), enable_gqa=True)
            for i, j, mask in self._parts
        ]
        return torch.cat(out, dim=2)

    def _blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Each block's queries, its keys, and its mask [B, 1, queries, keys], to be added to the scores."""
        n, total = self._q_pos.shape[1], self._k_pos.shape[1]
        for i in range(0, n, QUERY_BLOCK):
            stop = min(i + QUERY_BLOCK, n)
            first = total - n + i  # index of the block's first query among the keys
            low = max(0, min(first, total - self._window) if self._block else first + 1 - self._window)
            queries, keys = slice(i, stop), slice(low, total - n + stop)
            seen = visible(self._q_pos[:, queries, None], self._k_pos[:, None, keys], self._oldest[:, queries, None])
            mask = torch.where(seen, 0.0, MASKED)
            if self._log_multiplicity is not None:
                mask = mask + self._log_multiplicity[:, None, keys]
            yield queries, keys, mask[:, None]

    def flex(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """PyTorch's FlexAttention: it skips blocks of keys that no query sees, and stores no scores."""
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        q_pos, k_pos, oldest, log_multiplicity = self._q_pos, self._k_pos, self._oldest, self._log_multiplicity

        def mask(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return visible(q_pos[b, i], k_pos[b, j], oldest[b, i])

        def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return s if log_multiplicity is None else s + log_multiplicity[b, j]

        if self._flex_mask is None:
            self._flex_mask = create_block_mask(mask, q.shape[0], None, q.shape[2], k.shape[2], device=str(q.device))
        out = flex_attention(q, k, v, score_mod=score, block_mask=self._flex_mask, enable_gqa=True)
        assert isinstance(out, Tensor)
        return out


def ring_attention(q: Tensor, ring: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], masks: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over a ring's old rows and the chunk's new ones, without copying the ring.

    q [1, H, T, C]; ring k, v [G, R, C]; new k, v [1, G, T, C]; additive masks [T, R] and [T, T]. Returns [1, H, T, C].
    """
    heads, t, size = q.shape[1:]
    groups = ring[0].shape[0]
    q = q.reshape(groups, heads // groups * t, size) * size**-0.5
    old = (q @ ring[0].transpose(1, 2)).view(groups, heads // groups, t, -1) + masks[0]
    now = (q @ new[0][0].transpose(1, 2)).view(groups, heads // groups, t, -1) + masks[1]
    weights = torch.cat((old, now), dim=-1).softmax(dim=-1).view(groups, heads // groups * t, -1)
    rows = ring[0].shape[1]
    attended = weights[..., :rows].to(q.dtype) @ ring[1] + weights[..., rows:].to(q.dtype) @ new[1][0]
    return attended.reshape(1, heads, t, size)
