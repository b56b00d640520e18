"""One process or many: what ``torchrun`` started, and how a model is spread over it.

    torchrun --nproc-per-node 8 -m perceivers_live.cli train DATA --parallel fsdp

``ddp`` keeps a whole copy of everything in each process; ``fsdp`` keeps a share of the weights, gradients and optimizer state
(FSDP2; the model is one unit, gathered for a step's forward and backward). The processes share one file system.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

PREPARING = timedelta(hours=6)  # that the first process may take for the data, while the others wait
T = TypeVar("T")


class World(NamedTuple):
    """This process among ``size``; ``rank`` 0 writes the files and talks."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def first_then_others(self, work: Callable[[], T]) -> T:
        """``work`` done by the first process, and then, with its results on disk, by the others."""
        if self.size == 1:
            return work()
        group = dist.new_group(backend="gloo", timeout=PREPARING)
        result = work() if self.first else None
        dist.barrier(group)
        return result if result is not None else work()


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Joins the processes that ``torchrun`` started, or is alone. ``auto``: a GPU for each process if there are any."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    where = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if "RANK" not in os.environ:
        yield World(0, 1, where)
        return
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), where)
    finally:
        dist.destroy_process_group()


def distribute(module: nn.Module, kind: str, here: World) -> nn.Module:
    """``module`` as one of many processes runs it; alone, it is left as it is."""
    if here.size == 1:
        return module
    if kind == "fsdp":
        fully_shard(module, mesh=dist.device_mesh.init_device_mesh(here.device.type, (here.size,)))
        return module
    return DistributedDataParallel(module)


def last_of_step(module: nn.Module, last: bool) -> None:
    """Whether the next backward is the last of its step: only then are gradients exchanged."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    elif isinstance(module, DistributedDataParallel):
        module.require_backward_grad_sync = last


def summed(values: Tensor, here: World) -> Tensor:
    """The sum over all processes."""
    if here.size > 1:
        dist.all_reduce(values)
    return values


def gather(tensor: Tensor) -> Tensor:
    """A tensor that may be spread, in one piece. All processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(full: Tensor, pattern: Tensor) -> Tensor:
    """``full``, the same in all processes, spread as ``pattern`` is."""
    if not isinstance(pattern, DTensor):
        return full
    return distribute_tensor(full, pattern.device_mesh, pattern.placements, src_data_rank=None)
