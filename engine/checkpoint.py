"""Checkpoints on disk: a folder with ``config.json``, ``model.safetensors`` and, after an export, ONNX files.

Nothing is unpickled, and every size is checked before anything of that size is allocated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import CheckpointError, ModelConfig
from engine.replacing import replacing
from engine.text import one_line

if TYPE_CHECKING:
    from torch import Tensor

    from engine.model import PerceiverS

MAX_CONFIG_BYTES = 1 << 20


def bundled() -> Path:
    """Folder of the checkpoint that is part of the package."""
    return Path(__file__).with_name("weights") / "small"


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The model's config and the other entries of ``config.json``. Raises ``CheckpointError``."""
    path = folder / "config.json"
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path}: too large for a config")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder}: not a checkpoint ({error.strerror}: {path.name})") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({one_line(error) or type(error).__name__})") from error
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise CheckpointError(f"{path}: no 'model' table")
    return ModelConfig.from_dict(data["model"]), {k: v for k, v in data.items() if k != "model"}


def save_model(model: PerceiverS, folder: Path, **extra: Any) -> None:
    """Writes weights and config. Each file is replaced at once, so it is never incomplete."""
    save_weights({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, model.config, folder, **extra)


def save_weights(weights: dict[str, Tensor], config: ModelConfig, folder: Path, **extra: Any) -> None:
    """``save_model`` for a dictionary of weights."""
    from safetensors.torch import save_file

    with replacing(folder / "model.safetensors") as part:
        save_file(weights, part)
    with replacing(folder / "config.json") as part:
        part.write_text(json.dumps({"model": config.to_dict(), **extra}, indent=1))


def load_model(folder: Path) -> PerceiverS:
    """The PyTorch model of a checkpoint, in evaluation mode. Raises ``CheckpointError``."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from engine.model import PerceiverS

    config, _ = read_config(folder)
    path = folder / "model.safetensors"
    with torch.device("meta"):
        model = PerceiverS(config)
    need = sum(p.numel() for p in model.parameters()) * 8 + (1 << 20)
    try:
        if path.stat().st_size > need:
            raise CheckpointError(f"{path}: larger than a model of its config")
        tensors = load_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged ({one_line(error)})") from error
    if not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise CheckpointError(f"{path}: contains weights that are not floating point")
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: does not fit its config ({one_line(str(error).splitlines()[-1].strip())})") from error
    return model.float().eval()
