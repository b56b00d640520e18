"""Muon: the update of a matrix is nearly orthogonal, and does not depend on which matrices are updated with it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from trainer.optimizer import Muon, orthogonalise  # noqa: E402

SHAPES = [(24, 24), (24, 24), (96, 24), (24, 96), (96, 24), (24, 24)]


@pytest.mark.parametrize("shape", [(24, 24), (24, 96), (96, 24)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrices = torch.randn(5, *shape) * torch.tensor([1e-4, 0.1, 1.0, 10.0, 1e4])[:, None, None]
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert ((values > 0.3) & (values < 1.25)).all()
    assert ((values > 0.65) & (values < 1.25)).float().mean() > 0.95  # the smallest of a random square matrix may be near zero


def test_the_update_of_a_matrix_does_not_depend_on_other_matrices() -> None:
    torch.manual_seed(2)
    together = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    alone = [nn.Parameter(one.detach().clone()) for one in together]
    optimizers = [Muon(together, weight_decay=0.1), *(Muon([one], weight_decay=0.1) for one in alone)]
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = 0.05
    for _ in range(3):
        for one, other in zip(together, alone, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
