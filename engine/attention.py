"""Attention over the past: whole examples in training, rings of keys and values in streaming.

Shapes: B batch, N queries, K keys, H heads, G key/value heads, C head size, T new events, R ring rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_BLOCK = 256  # queries that are scored together; memory is linear in the context


def past_attention(q: Tensor, k: Tensor, v: Tensor, q_pos: Tensor, k_pos: Tensor, window: int, *, block: bool = False) -> Tensor:
    """Each query sees the keys of its last ``window`` positions, itself included; with ``block`` it sees those that the newest
    query sees, up to itself (the paper's mask).

    q [B, H, N, C]; k, v [B, G, K, C]; the queries are the last N of the K keys; positions [B, N] and [B, K] rise, with -1
    for padding at the front and gaps where context was dropped. Returns [B, H, N, C].
    """
    oldest = (q_pos[:, -1:] if block else q_pos).expand_as(q_pos) - window + 1
    if q.is_cuda and torch.compiler.is_compiling():  # uncompiled, FlexAttention would store every score
        return flex_attention(q, k, v, q_pos, k_pos, oldest)
    return blockwise_attention(q, k, v, q_pos, k_pos, oldest, window, block=block)


def visible(q_pos: Tensor, k_pos: Tensor, oldest: Tensor) -> Tensor:
    """Whether a query at ``q_pos`` sees a key at ``k_pos``: itself always, so that no row is empty."""
    return ((k_pos <= q_pos) & (k_pos >= oldest) & (k_pos >= 0)) | (k_pos == q_pos)


def blockwise_attention(
    q: Tensor, k: Tensor, v: Tensor, q_pos: Tensor, k_pos: Tensor, oldest: Tensor, window: int, *, block: bool = False
) -> Tensor:
    """``past_attention`` by PyTorch's own kernels, a block of queries at a time over the keys that it can reach."""
    n, total = q.shape[2], k.shape[2]
    if q.is_cuda:  # its kernels that take a mask want as many heads of keys as of queries
        k, v = (one.repeat_interleave(q.shape[1] // one.shape[1], dim=1) for one in (k, v))
    out = []
    for i in range(0, n, QUERY_BLOCK):
        stop = min(i + QUERY_BLOCK, n)
        first = total - n + i  # the place of the block's first query among the keys
        low, high = max(0, min(first, total - window) if block else first + 1 - window), total - n + stop
        mask = visible(q_pos[:, i:stop, None], k_pos[:, None, low:high], oldest[:, i:stop, None])
        out.append(
            F.scaled_dot_product_attention(
                q[:, :, i:stop], k[:, :, low:high], v[:, :, low:high], attn_mask=mask[:, None], enable_gqa=True
            )
        )
    return torch.cat(out, dim=2)


def flex_attention(q: Tensor, k: Tensor, v: Tensor, q_pos: Tensor, k_pos: Tensor, oldest: Tensor) -> Tensor:
    """``past_attention`` by PyTorch's FlexAttention, which skips blocks of keys that no query sees and stores no scores."""
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as attend

    def mask(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return visible(q_pos[b, i], k_pos[b, j], oldest[b, i])

    blocks = create_block_mask(mask, q.shape[0], None, q.shape[2], k.shape[2], device=str(q.device))
    out = attend(q, k, v, block_mask=blocks, enable_gqa=True)
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
