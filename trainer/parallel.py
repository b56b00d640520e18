"""Training in one process or in several started by ``torchrun``, and distributing the model over them.

    torchrun --nproc-per-node 8 -m perceivers_live.cli train DATA --parallel fsdp

``ddp``: each process has a copy of the model and the optimizer state. ``fsdp``: each process has a shard of weights, gradients
and optimizer state (FSDP2; the model is one unit, gathered for forward and backward). The processes must share one file system.
"""

from __future__ import annotations

import math
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

from engine.errors import UserError

PREPARE_TIMEOUT = timedelta(hours=6)  # the other processes wait this long for the first one to prepare the data
T = TypeVar("T")


class World(NamedTuple):
    """This process: its rank among ``size`` processes, and its device. Rank 0 writes files and prints."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def first_then_others(self, work: Callable[[], T]) -> T:
        """Calls ``work`` in the first process, and afterwards, when its results are on disk, in the others."""
        if self.size == 1:
            return work()
        group = dist.new_group(backend="gloo", timeout=PREPARE_TIMEOUT)
        result = work() if self.first else None
        dist.barrier(group)
        return result if result is not None else work()


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Joins the process group of ``torchrun``, if there is one. ``auto``: a GPU for each process if there are GPUs. Raises
    ``UserError`` if there are too few.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    where = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if where.type == "cuda" and local >= gpus:
        needed = "a GPU is needed" if local == 0 else f"each process needs a GPU, and this is number {local + 1}"
        raise UserError(f"--device cuda: {needed}, but PyTorch finds {gpus or 'none'}")
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
    """``module`` wrapped for ``ddp`` or ``fsdp``; unchanged in a single process."""
    if here.size == 1:
        return module
    if kind == "fsdp":
        fully_shard(module, mesh=dist.device_mesh.init_device_mesh(here.device.type, (here.size,)))
        return module
    return DistributedDataParallel(module)


def last_of_step(module: nn.Module, last: bool) -> None:
    """Sets whether the next backward is the last of its step. Gradients are exchanged only then."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    elif isinstance(module, DistributedDataParallel):
        module.require_backward_grad_sync = last


def summed(values: Tensor, here: World) -> Tensor:
    """The sum of ``values`` over all processes."""
    if here.size > 1:
        dist.all_reduce(values)
    return values


def divided(work: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """``work(batch)``, of which each process computes an equal part. ``work`` treats the rows of the batch separately and keeps
    their shape; ``batch`` is equal in all processes. Collective: all processes must call it.
    """
    size = dist.get_world_size() if dist.is_initialized() else 1
    if size == 1:
        return work(batch)
    count, rank = len(batch), dist.get_rank()
    share = math.ceil(count / size)
    padded = torch.cat((batch, batch.new_zeros(share * size - count, *batch.shape[1:])))
    mine = work(padded[rank * share : (rank + 1) * share]).contiguous()
    parts = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(parts, mine)
    return torch.cat(parts)[:count]


def gather(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded. Collective: all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(full: Tensor, pattern: Tensor) -> Tensor:
    """``full``, which is equal in all processes, sharded like ``pattern``."""
    if not isinstance(pattern, DTensor):
        return full
    return distribute_tensor(full, pattern.device_mesh, pattern.placements, src_data_rank=None)
