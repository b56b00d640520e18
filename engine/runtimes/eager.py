"""The reference runtime: PyTorch as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.runtimes import Odds, RuntimeUnavailable, rotary_angles, slot_positions

try:
    import torch
except ImportError as error:
    raise RuntimeUnavailable("PyTorch is not installed (pip install 'perceivers-live[train]')") from error

from torch import Tensor

from engine.checkpoint import load_model
from engine.model import PerceiverS, Rotary, decide


class EagerRuntime:
    name = "eager"

    def __init__(self, checkpoint: Path | PerceiverS, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._model = checkpoint.eval() if isinstance(checkpoint, PerceiverS) else load_model(checkpoint)
        self.config = self._model.config
        self.reset()

    def reset(self) -> None:
        config = self.config
        shapes = [(config.kv_heads, config.ring(window), config.head_dim) for window in config.windows for _ in "kv"]
        self._rings = [torch.zeros(shape) for shape in shapes]

    @torch.inference_mode()
    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> Sequence[Tensor]:
        config = self.config
        positions = torch.arange(first, first + len(events))
        rotary = Rotary(*(torch.from_numpy(part) for part in rotary_angles(positions.numpy(), times, config)))
        held = [torch.from_numpy(slot_positions(first - 1, config.ring(w))) for w in (*config.scales, config.window)]
        hidden, rows = self._model.step(torch.from_numpy(events), torch.from_numpy(ages), positions, rotary, held, self._rings)
        for ring, new in zip(self._rings, rows, strict=True):
            ring[:, positions % ring.shape[1]] = new
        return list(hidden)

    @torch.inference_mode()
    def decide(self, hidden: Tensor, odds: Odds) -> tuple[int, int, int]:
        wait, action, velocity, noise = (torch.from_numpy(part) for part in (odds.wait, odds.action, odds.velocity, odds.noise))
        temperature, min_p = torch.tensor([odds.temperature]), torch.tensor([odds.min_p])
        event = decide(self._model.head, hidden, wait, action, velocity, temperature, min_p, noise)
        chosen: list[int] = event.tolist()
        return chosen[0], chosen[1], chosen[2]

    def as_array(self, hidden: Tensor) -> np.ndarray:
        return hidden.numpy().copy()

    def from_array(self, hidden: np.ndarray) -> Tensor:
        return torch.from_numpy(hidden.copy())

    def rings(self) -> list[np.ndarray]:
        return [ring.numpy().copy() for ring in self._rings]

    def restore(self, rings: Sequence[np.ndarray]) -> None:
        self._rings = [torch.from_numpy(ring.copy()) for ring in rings]
