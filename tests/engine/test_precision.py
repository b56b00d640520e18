"""Half precision against float32, on the bundled model: products, keys and values are rounded, residuals are not."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from engine.checkpoint import bundled, load_model  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.runtimes.pytorch import TorchRuntime  # noqa: E402
from tests.music import improvise  # noqa: E402

MUSIC = improvise(240, seed=3)


def hidden_states(precision: torch.dtype) -> Tensor:
    """Hidden states at the newest positions, after the music: float32 [n, D]."""
    engine = Engine(TorchRuntime(bundled(), precision=precision))
    engine.absorb(MUSIC[1:])
    return torch.from_numpy(engine.recent_hidden(200))


@pytest.fixture(scope="module")
def exact() -> Tensor:
    return hidden_states(torch.float32)


@torch.inference_mode()
def divergence(exact: Tensor, rounded: Tensor) -> float:
    """Mean Kullback-Leibler divergence of the next event's wait and action, nats an event."""
    head, following = load_model(bundled()).head, torch.tensor(np.array(MUSIC[-199:])).long()
    p, q = (head(one[:-1], following[:, 0], following[:, 1]) for one in (exact, rounded))
    nats = [
        (a.softmax(-1) * (a.log_softmax(-1) - b.log_softmax(-1))).sum(-1).mean()
        for a, b in ((p.wait, q.wait), (p.action, q.action))
    ]
    return float(sum(nats))


@pytest.mark.parametrize(("precision", "nats", "error"), [(torch.float16, 1e-5, 2e-3), (torch.bfloat16, 5e-4, 1.5e-2)])
def test_half_precision_is_close_to_float32(exact: Tensor, precision: torch.dtype, nats: float, error: float) -> None:
    rounded = hidden_states(precision)
    assert 0 < float((rounded - exact).norm() / exact.norm()) < error
    assert divergence(exact, rounded) < nats


def test_only_products_keys_and_values_are_rounded() -> None:
    model = load_model(bundled()).to_precision(torch.float16)
    rounded = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float16}
    assert {name.split(".")[-2] for name in rounded} == {"query", "key_value", "out", "up", "down"}
    runtime = TorchRuntime(bundled(), precision=torch.float16)
    assert {ring.dtype for ring in runtime._rings.windows} == {torch.float16}
    assert runtime._rings.hidden.dtype == torch.float32
