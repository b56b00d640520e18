"""Which keys a query sees, by a loop over all of them; the GPU's kernel means the same as the CPU's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine import attention  # noqa: E402
from engine.attention import blockwise_attention, flex_attention, past_attention  # noqa: E402

HEADS, GROUPS, SIZE, LATENTS, KEYS = 4, 2, 8, 40, 90


def example(seed: int) -> tuple[torch.Tensor, ...]:
    """q, k, v and positions with padding in front and gaps where context was dropped, two examples."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    k_pos = []
    for padding in (0, 17):
        older = np.sort(rng.choice(200, KEYS - LATENTS - padding, replace=False))
        k_pos.append(np.concatenate((np.full(padding, -1), older, 200 + np.arange(LATENTS))))
    positions = torch.from_numpy(np.stack(k_pos))
    q, k, v = (torch.randn(2, h, n, SIZE) for h, n in ((HEADS, LATENTS), (GROUPS, KEYS), (GROUPS, KEYS)))
    return q, k, v, positions[:, -LATENTS:], positions


def by_hand(*inputs: torch.Tensor, window: int, block: bool) -> torch.Tensor:
    q, k, v, q_pos, k_pos = inputs
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for i in range(LATENTS):
            newest = int(q_pos[b, -1] if block else q_pos[b, i])
            seen = [
                j
                for j in range(KEYS)
                if (0 <= k_pos[b, j] <= q_pos[b, i] and k_pos[b, j] > newest - window) or k_pos[b, j] == q_pos[b, i]
            ]
            for h in range(HEADS):
                g = h * GROUPS // HEADS
                weights = (k[b, g, seen] @ q[b, h, i] / SIZE**0.5).softmax(0)
                out[b, h, i] = weights @ v[b, g, seen]
    return out


@pytest.mark.parametrize("block", [False, True], ids=["band", "block"])
@pytest.mark.parametrize("window", [1, 12, 30, 500])
def test_each_query_sees_its_window_and_nothing_else(monkeypatch: pytest.MonkeyPatch, window: int, block: bool) -> None:
    monkeypatch.setattr(attention, "QUERY_BLOCK", 16)  # several blocks
    q, k, v, q_pos, k_pos = example(window)
    found = past_attention(q, k, v, q_pos, k_pos, window, block=block)
    assert torch.allclose(found, by_hand(q, k, v, q_pos, k_pos, window=window, block=block), atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("block", [False, True], ids=["band", "block"])
def test_flex_attention_gives_the_same(block: bool) -> None:
    q, k, v, q_pos, k_pos = example(3)
    oldest = (q_pos[:, -1:] if block else q_pos).expand_as(q_pos) - 30 + 1
    found = flex_attention(q, k, v, q_pos, k_pos, oldest)
    assert torch.allclose(found, blockwise_attention(q, k, v, q_pos, k_pos, oldest, 30, block=block), atol=1e-5)
