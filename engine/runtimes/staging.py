"""Buffers between host and device: inputs are sent and a result is fetched, each by one transfer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 16  # bytes
COPIES = 3  # host buffers: filling one need not wait for the transfers before


class Staging:
    """Named arrays on the host and their copies on the device. Each side is one block of memory, so that one transfer copies all.

    On the CPU, both are the same memory. For CUDA, the host has ``COPIES`` page-locked blocks, which are used in turn.
    """

    def __init__(self, fields: Mapping[str, tuple[tuple[int, ...], torch.dtype]], device: torch.device) -> None:
        blocks, pinned = (COPIES, True) if device.type == "cuda" else (1, False)
        self._fields, total, begins = fields, 0, []
        for shape, dtype in fields.values():
            begins.append(total)
            total += -(-int(np.prod(shape)) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        self._begins = begins
        self._host = [torch.zeros(total, dtype=torch.uint8, pin_memory=pinned) for _ in range(blocks)]
        self._arrays = [{name: part.numpy() for name, part in self._parts(block).items()} for block in self._host]
        self._device = self._host[0] if device.type == "cpu" else self._host[0].to(device)
        self._sent = [torch.cuda.Event() for _ in self._host] if device.type == "cuda" else []
        self._turn = 0
        self.device: dict[str, Tensor] = self._parts(self._device)

    def send(self, **arrays: np.ndarray | float) -> None:
        """Fills the host's arrays and starts the transfer to the device. ``arrays``: one for every field."""
        self._turn = (self._turn + 1) % len(self._host)
        if self._sent:
            self._sent[self._turn].synchronize()  # an earlier transfer may still read this block
        host = self._arrays[self._turn]
        for name in self._fields:
            host[name][...] = arrays[name]
        if self._device is not self._host[0]:
            self._device.copy_(self._host[self._turn], non_blocking=bool(self._sent))
        if self._sent:
            self._sent[self._turn].record()

    def _parts(self, block: Tensor) -> dict[str, Tensor]:
        """The fields' views of a block."""
        return {
            name: block[begin : begin + int(np.prod(shape)) * dtype.itemsize].view(dtype).view(shape)
            for (name, (shape, dtype)), begin in zip(self._fields.items(), self._begins, strict=True)
        }


class Result:
    """A tensor that is computed on the device and read on the host. ``device``: where to write it; then call ``fetch``, which a
    CUDA graph can capture, and ``read``.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.device = torch.zeros(size, dtype=torch.int64, device=device)
        self._host = (
            self.device if device.type == "cpu" else torch.zeros(size, dtype=torch.int64, pin_memory=device.type == "cuda")
        )

    def fetch(self) -> None:
        """Starts the transfer to the host."""
        if self._host is not self.device:
            self._host.copy_(self.device, non_blocking=self.device.is_cuda)

    def read(self) -> list[int]:
        """Waits for the device and returns the values."""
        if self.device.is_cuda:
            torch.cuda.current_stream(self.device.device).synchronize()
        values: list[int] = self._host.tolist()
        return values
