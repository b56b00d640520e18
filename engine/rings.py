"""Shapes of the rings, rotary angles and the mask value, shared by all runtimes. Does not import torch."""

from __future__ import annotations

import numpy as np

from engine.config import ModelConfig

MASKED = -1e9  # added to the logits of impossible choices and to the scores of invisible keys


def ring_shapes(config: ModelConfig) -> list[tuple[int, ...]]:
    """Shapes [G, R, C] of the key and value rings of every attention, in the order of ``config.windows``: k, v, k, v ..."""
    return [(config.kv_heads, config.ring(window), config.head_dim) for window in config.windows for _ in "kv"]


def hidden_shape(config: ModelConfig) -> tuple[int, int]:
    """Shape of the ring of hidden states: one for each position that a rewind can reach."""
    return config.slack + 1, config.width


def rotary_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians per position of each rotated pair: [C/2] float64."""
    half = config.head_dim // 2
    frequencies: np.ndarray = config.rotary_base ** (-np.arange(half, dtype=np.float64) / half)
    return frequencies


def rotary_angles(positions: np.ndarray, times: np.ndarray, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin for positions [T] and times [T], each [1 or G, T, C/2] float32, computed in float64."""
    by_head = positions[None]
    if config.rotary == "half-time":
        by_head = np.repeat(np.stack((positions, times)), config.kv_heads // 2, axis=0)
    angle = by_head[..., None].astype(np.float64) * rotary_frequencies(config)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
