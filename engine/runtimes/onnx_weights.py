"""The weights that the ONNX graphs are given when they are opened, made from a checkpoint's ``model.safetensors``.

The graphs (``trainer.onnx_graphs``) hold no weights, only their names. Constant products are folded in: the gains of the norms
before a matrix are part of it, the scale of the scores is part of the queries' gains, and matrices are stored transposed. Shapes:
D width, G key/value heads, J queries of each, C head size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from engine.config import CheckpointError, ModelConfig
from engine.events import ACTIONS, VELOCITIES, VELOCITY_BINS, WAITS
from engine.sounding import AGES
from engine.text import one_line

Read = Callable[..., np.ndarray]  # (name, *shape) -> a parameter of the model in float32
Weights = dict[str, np.ndarray]
FIELDS = np.array([0, WAITS, WAITS + ACTIONS])  # first row of each field of an event in the joint embedding table
INT8_LIMIT = 64  # 7 bits: processors without VNNI add pairs of products in 16 bits, and full-range weights would overflow


class Checkpoint:
    """Reads parameters from a folder and checks their shapes. Raises ``CheckpointError``."""

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._path = folder / "model.safetensors"
        try:
            self._file = safe_open(self._path, framework="numpy")
        except OSError as error:
            raise CheckpointError(f"{self._path}: {error.strerror or one_line(error)}") from error
        except SafetensorError as error:
            raise CheckpointError(f"{self._path}: damaged ({one_line(error)})") from error

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        if name not in self._file.keys():  # noqa: SIM118 -- not a dictionary
            raise CheckpointError(f"{self._path}: does not fit its config ({name} is missing)")
        part = self._file.get_slice(name)
        if tuple(part.get_shape()) != shape or part.get_dtype() not in ("F16", "F32", "F64"):
            found = f"{part.get_dtype()} {part.get_shape()}"
            raise CheckpointError(f"{self._path}: does not fit its config ({name} is {found}, expected {list(shape)})")
        return np.asarray(self._file.get_tensor(name), np.float32)


def step_weights(read: Read, config: ModelConfig) -> Weights:
    """Weights of the step, in float32."""
    weights = _embedding(read, config)
    for i, name in enumerate(block_names(config)):
        query, key, value = _attention(read, config, name)
        if shares_source(config, i):
            weights[f"{name}.query_key_value"] = _columns(query, key, value)
        else:
            weights[f"{name}.query"], weights[f"{name}.key_value"] = _columns(query), _columns(key, value)
        width, inner = config.width, config.mlp * config.width
        query_gains = read(f"{name}.query_scale.weight", config.head_dim) * config.head_dim**-0.5
        key_gains = read(f"{name}.key_scale.weight", config.head_dim)
        weights[f"{name}.gains"] = np.stack([query_gains] * shared(config) + [key_gains])[:, None]  # [J + 1, 1, C]
        weights[f"{name}.out"] = _transposed(read(f"{name}.out.weight", width, width))
        weights[f"{name}.up"] = _transposed(read(f"{name}.up.weight", inner, width) * read(f"{name}.mlp_norm.weight", width))
        weights[f"{name}.down"] = _transposed(read(f"{name}.down.weight", width, inner))
    return {name: np.ascontiguousarray(array, np.float32) for name, array in weights.items()}


def prefill_cross_weights(read: Read, config: ModelConfig) -> Weights:
    """Weights of ``prefill_cross``: keys and values of the cross-attention stages."""
    weights = _embedding(read, config)
    for name in block_names(config)[: len(config.scales)]:
        _, key, value = _attention(read, config, name)
        weights[f"{name}.key_value"] = _columns(key, value)
        weights[f"{name}.key_gains"] = read(f"{name}.key_scale.weight", config.head_dim)
    return {name: np.ascontiguousarray(array, np.float32) for name, array in weights.items()}


def decide_weights(read: Read, config: ModelConfig) -> Weights:
    """Weights of ``decide``: the parameters of the chain of heads, unchanged."""
    width = config.width
    shapes: dict[str, tuple[int, ...]] = {"norm.weight": (width,), "wait.weight": (WAITS, width)}
    shapes |= {"action.weight": (ACTIONS, width)}
    for name, inner in (("action", 2 * width), ("velocity", width)):
        shapes |= {f"{name}_mlp.0.weight": (width,), f"{name}_mlp.1.weight": (inner, width), f"{name}_mlp.1.bias": (inner,)}
        shapes |= {f"{name}_mlp.3.weight": (width, inner), f"{name}_mlp.3.bias": (width,)}
    for name, size in (("wait", WAITS), ("action", ACTIONS), ("velocity", VELOCITY_BINS)):
        shapes |= {f"{name}_out.weight": (size, width), f"{name}_out.bias": (size,)}
    return {f"head.{name}": read(f"head.{name}", *shape) for name, shape in shapes.items()}


def quantized(weights: Mapping[str, np.ndarray]) -> Weights:
    """The step's weights with the blocks' matrices in int8. Each column of a matrix has its own scale, in ``NAME.scale``."""
    result: Weights = {}
    for name, array in weights.items():
        if array.ndim == 2 and "." in name:
            largest = np.abs(array).max(0)
            scale = np.where(largest > 0, largest / np.float32(INT8_LIMIT), np.float32(1))
            result[name] = np.rint(array / scale).astype(np.int8)
            result[f"{name}.scale"] = scale
        else:
            result[name] = array
    return result


def block_names(config: ModelConfig) -> list[str]:
    """Parameter prefixes of the blocks in the order of execution."""
    return [f"cross.{i}" for i in range(len(config.scales))] + [f"layers.{i}" for i in range(config.layers)]


def shares_source(config: ModelConfig, block: int) -> bool:
    """Whether a block's queries, keys and values have the same input. For the first stage that is the embedding."""
    return block == 0 or block >= len(config.scales) or config.combine == "sum"


def shared(config: ModelConfig) -> int:
    """Query heads of a key/value head."""
    return config.heads // config.kv_heads


def _embedding(read: Read, config: ModelConfig) -> Weights:
    sizes = {"wait": WAITS, "action": ACTIONS, "velocity": VELOCITIES}
    table = np.concatenate([read(f"embedding.{name}.weight", size, config.width) for name, size in sizes.items()])
    return {"fields": table, "ages": _transposed(read("embedding.sounding.weight", config.width, 2 * AGES))}


def _attention(read: Read, config: ModelConfig, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices of queries [G, J, C, D], keys and values [G, 1, C, D], with the norms' gains."""
    width, groups, size = config.width, config.kv_heads, config.head_dim
    query = read(f"{name}.query.weight", width, width) * read(f"{name}.query_norm.weight", width)
    key_value = read(f"{name}.key_value.weight", 2 * groups * size, width) * read(f"{name}.source_norm.weight", width)
    key, value = key_value.reshape(2, groups, 1, size, width)
    return query.reshape(groups, -1, size, width), key, value


def _columns(*parts: np.ndarray) -> np.ndarray:
    """Matrices [G, n, C, D] side by side in each group -> [D, G * (sum of n) * C]."""
    joined = np.concatenate(parts, axis=1)
    return _transposed(joined.reshape(-1, joined.shape[-1]))


def _transposed(matrix: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(matrix.T)
