"""Attention equals a loop over all keys, sampled keys approximate all keys, FlexAttention equals blockwise attention."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine import attention  # noqa: E402
from engine.attention import PastAttention  # noqa: E402
from engine.config import PRESETS  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.sounding import ages_of  # noqa: E402
from tests.music import improvise  # noqa: E402

HEADS, GROUPS, SIZE, LATENTS, KEYS = 4, 2, 8, 40, 90


def example(seed: int) -> tuple[torch.Tensor, ...]:
    """q, k, v, positions with padding in front and gaps where context was dropped, and multiplicities; two examples."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    k_pos = []
    for padding in (0, 17):
        older = np.sort(rng.choice(200, KEYS - LATENTS - padding, replace=False))
        k_pos.append(np.concatenate((np.full(padding, -1), older, 200 + np.arange(LATENTS))))
    positions = torch.from_numpy(np.stack(k_pos))
    q, k, v = (torch.randn(2, h, n, SIZE) for h, n in ((HEADS, LATENTS), (GROUPS, KEYS), (GROUPS, KEYS)))
    multiplicity = torch.ones(2, KEYS)
    multiplicity[:, : KEYS - LATENTS] = 4.0
    return q, k, v, positions[:, -LATENTS:], positions, multiplicity


def reference_attention(*inputs: torch.Tensor, window: int, block: bool) -> torch.Tensor:
    q, k, v, q_pos, k_pos, multiplicity = inputs
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
                weights = (k[b, g, seen] @ q[b, h, i] / SIZE**0.5).exp() * multiplicity[b, seen]
                out[b, h, i] = weights / weights.sum() @ v[b, g, seen]
    return out


@pytest.mark.parametrize("block", [False, True], ids=["band", "block"])
@pytest.mark.parametrize("window", [1, 12, 30, 500])
def test_each_query_sees_its_window_and_each_key_is_weighted_by_its_multiplicity(
    monkeypatch: pytest.MonkeyPatch, window: int, block: bool
) -> None:
    monkeypatch.setattr(attention, "QUERY_BLOCK", 16)  # several blocks
    q, k, v, q_pos, k_pos, multiplicity = example(window)
    found = PastAttention(q_pos, k_pos, window, multiplicity=multiplicity, block=block)(q, k, v)
    assert torch.allclose(found, reference_attention(q, k, v, q_pos, k_pos, multiplicity, window=window, block=block), atol=1e-5)


@pytest.mark.parametrize("window", [12, 500])
def test_without_multiplicity_each_key_counts_once(window: int) -> None:
    q, k, v, q_pos, k_pos, multiplicity = example(window)
    found = PastAttention(q_pos, k_pos, window)(q, k, v)
    assert torch.allclose(
        found, reference_attention(q, k, v, q_pos, k_pos, torch.ones_like(multiplicity), window=window, block=False), atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("sampled", [False, True], ids=["all", "sampled"])
@pytest.mark.parametrize("block", [False, True], ids=["band", "block"])
def test_flex_attention_equals_blockwise_attention(block: bool, sampled: bool) -> None:
    q, k, v, q_pos, k_pos, multiplicity = example(3)
    past = PastAttention(q_pos, k_pos, 30, multiplicity=multiplicity if sampled else None, block=block)
    assert torch.allclose(past.flex(q, k, v), past.blockwise(q, k, v), atol=1e-5)


@torch.no_grad()
def test_a_sampled_context_equals_the_whole_context_in_expectation() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = PRESETS["tiny"]
    model = PerceiverS(config).double()
    for block in model.blocks:  # untrained blocks add nothing to the residual stream
        torch.nn.init.normal_(block.out.weight, std=0.1)
        torch.nn.init.normal_(block.down.weight, std=0.1)
    events = np.array(improvise(64, seed=1))
    latents, near, sampled = 4, 20, 20
    older = np.arange(len(events) - latents - near)
    times = np.cumsum(events[:, 0])

    def hidden(kept: np.ndarray, multiplicity: float) -> torch.Tensor:
        rows = np.concatenate((kept, np.arange(len(older), len(events))))
        counts = np.ones(len(rows))
        counts[: len(kept)] = multiplicity
        columns = (events[rows].astype(np.int64), ages_of(events, rows), rows, times[rows])
        inputs = [torch.from_numpy(column)[None] for column in columns]
        return model.hidden(*inputs, latents, torch.from_numpy(counts)[None])[0]

    complete = hidden(older, 1.0)
    samples = [np.sort(rng.choice(older, sampled, replace=False)) for _ in range(300)]
    corrected = torch.stack([hidden(kept, len(older) / sampled) for kept in samples]).mean(0)
    uncorrected = torch.stack([hidden(kept, 1.0) for kept in samples]).mean(0)
    assert (corrected - complete).norm() < 0.5 * (uncorrected - complete).norm()
