"""Muon for the matrices of the blocks, AdamW for embeddings, heads and norms; one learning-rate schedule for both.

Muon (Jordan et al., 2024) orthogonalises the momentum of each matrix. Its updates are scaled like AdamW's, so that one
learning rate fits both. PyTorch's ``torch.optim.Muon`` computes in bfloat16 only, which takes seconds a step on a CPU without it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine.model import PerceiverS
from trainer.parallel import divided, gather, shard_like


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by five Newton-Schulz iterations, in the dtype of the parameters (bfloat16 on a GPU).

    Matrices of one shape are orthogonalised together, as a batch: a few large products instead of many small ones. Each process
    orthogonalises a part of the batch.
    """

    def __init__(self, params: list[nn.Parameter], *, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for parameters in by_shape.values():
                self._step(parameters, group)

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One update of matrices of one shape."""
        for p in parameters:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients = [p.grad for p in parameters if p.grad is not None]
        averages = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        torch._foreach_lerp_(gradients, averages, group["momentum"])  # in place: PyTorch 2.11 and 2.12 shard only this variant
        updates = divided(orthogonalise, torch.stack([gather(one) for one in gradients]))
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        scale = -0.2 * group["lr"] * max(parameters[0].shape) ** 0.5
        torch._foreach_add_(parameters, [shard_like(u, p) for u, p in zip(updates, parameters, strict=True)], alpha=scale)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Approximately the nearest semi-orthogonal matrix of each matrix of a batch [n, rows, columns], by quintic Newton-Schulz
    iterations. Its singular values come between 0.7 and 1.2, but for the smallest ones.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.mT if tall else x).to(matrices.dtype)


def split_parameters(model: PerceiverS) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Two lists: the matrices of the blocks, and all other parameters."""
    inside = {id(p) for block in model.blocks for p in block.parameters() if p.ndim == 2}
    parameters = list(model.parameters())
    return [p for p in parameters if id(p) in inside], [p for p in parameters if id(p) not in inside]


def build(model: PerceiverS, *, weight_decay: float) -> list[torch.optim.Optimizer]:
    """The two optimizers. Set their learning rate with ``set_rate`` before every step."""
    matrices, others = split_parameters(model)
    return [
        Muon(matrices, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True),
    ]


def rate(step: int, *, peak: float, warmup: int, steps: int, cooldown: float) -> float:
    """Learning rate at a step: warm-up, plateau, and a linear cool-down to 0 over the last share of the steps. A run can be
    extended from any checkpoint of the plateau.
    """
    begin = steps - max(1, round(cooldown * steps))
    return peak * min((step + 1) / max(1, warmup), 1.0, max(0.0, (steps - step) / (steps - begin)))


def set_rate(optimizers: list[torch.optim.Optimizer], value: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = value


def state_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimizers' state as whole tensors by name, to be saved without pickle. Collective: all processes must call it."""
    return {
        f"{i}.{index}.{name}": gather(value).cpu().contiguous()
        for i, optimizer in enumerate(optimizers)
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def load_state_tensors(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Restores tensors returned by ``state_tensors``, sharded and on the devices of their parameters."""
    for i, optimizer in enumerate(optimizers):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            which, index, name = key.split(".", 2)
            if int(which) == i:
                p = parameters[int(index)]
                state.setdefault(int(index), {})[name] = shard_like(value.to(p.device), p) if value.shape == p.shape else value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
