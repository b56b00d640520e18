"""Musical states on disk: an exact snapshot, for the same model only.

A safetensors file. Its metadata holds a JSON header (``state``: positions, counts, extra values of the caller) and the SHA-256 of
header and tensors (``sha256``). The tensors' shapes follow from the model's config and the header; they are checked before the
tensors are read.

    before   int64 [1 + AGES]    keys and pedal before the history: the step, and the step at which each went down
    history  int16 [events, 3]
    ring.N   float32             the rings, as ``Runtime.rings`` returns them
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from engine.checkpoint import read_config
from engine.config import CheckpointError, ModelConfig
from engine.engine import Moment, Snapshot
from engine.errors import UserError
from engine.events import ACTIONS, MAX_WAIT, NO_VELOCITY, NOTE_OFF, START, VELOCITY_BINS, Event
from engine.replacing import replacing
from engine.rings import hidden_shape, ring_shapes
from engine.sounding import AGES, Sounding

FORMAT = 2
SUFFIX = ".state"
MAX_HEADER_BYTES = 1 << 16
MAX_POSITION = 1 << 40
_TENSOR_ENTRY_BYTES = 256  # what a tensor takes of the file's header at most
_NAME = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9]) *(?:\..*)?", re.IGNORECASE)  # reserved on Windows, with any suffix


class StateError(UserError, ValueError):
    """A state that cannot be saved or loaded; the message is one line for the user."""


class _Header(NamedTuple):
    position: int
    high_water: int
    history: int  # events
    moments: int  # newest events that a rewind can reach
    extra: dict[str, Any]


def is_state_name(name: object) -> bool:
    """Whether ``state_path`` takes it."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and not _DEVICE.fullmatch(name)


def state_path(folder: Path, name: object) -> Path:
    """The file of a named state, always directly in ``folder``. Raises ``StateError`` for a name that is not a plain file name on
    every system.
    """
    if not is_state_name(name):
        shown = ascii(name)[:40]
        raise StateError(f"{shown} cannot be a state's name: allowed are 1 to 64 of A-Z, a-z, 0-9, space, dot, dash, underscore")
    return folder / f"{name}{SUFFIX}"


def fingerprint(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint's config and weights, in hex: identifies the model on any runtime. Raises ``CheckpointError``."""
    config, _ = read_config(checkpoint)
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    path = checkpoint / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{checkpoint}: model.safetensors is missing")
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    return digest.hexdigest()


def save_state(snapshot: Snapshot, path: Path, /, *, model: str, **extra: Any) -> None:
    """Writes a snapshot of the model with the fingerprint ``model``, and ``extra``, which must be JSON. If writing fails, an
    existing file stays unchanged. Raises ``StateError``.
    """
    header = {"format": FORMAT, "model": model, "position": snapshot.position, "high_water": snapshot.high_water}
    header |= {"history": len(snapshot.history), "moments": len(snapshot.moments), "extra": extra}
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise StateError(f"{path}: the extra values are not JSON ({error})") from error
    if len(text) > MAX_HEADER_BYTES:
        raise StateError(f"{path}: the header would take {len(text)} bytes, allowed are {MAX_HEADER_BYTES}")
    tensors: dict[str, np.ndarray] = {
        "before": np.array([snapshot.before.step, *snapshot.before.since], np.int64),
        "history": np.array(snapshot.history, np.int16),
        **{f"ring.{index}": np.ascontiguousarray(ring, np.float32) for index, ring in enumerate(snapshot.rings)},
    }
    try:
        with replacing(path, shared=True) as part:
            save_file(tensors, part, {"state": text, "sha256": checksum(text, tensors)})
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: a NUL in the path
        raise StateError(f"{path}: cannot be written ({_reason(error)})") from error


def load_state(path: Path, config: ModelConfig, *, model: str) -> tuple[Snapshot, dict[str, Any]]:
    """The snapshot and the extra values of a file, for the model with this config and fingerprint.

    Raises ``StateError`` for a file that is damaged, of another model, or that holds an impossible state. The extra values are
    an unchecked JSON object: the caller must check them.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StateError("not a file")
        header, before, history, rings = _read(path, config, model)
        return _snapshot(header, before, history, rings), header.extra
    except StateError as error:
        raise StateError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: cannot be read ({_reason(error)})") from error


def checksum(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a header and its tensors, in hex."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]


def _read(path: Path, config: ModelConfig, model: str) -> tuple[_Header, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Header, keys and pedal before the history, history and rings of an undamaged file."""
    if path.stat().st_size > _largest(config):
        raise StateError("damaged: larger than any state of this model")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            text = metadata.get("state", "")
            header = _header(text, config, model)
            expected = _tensors(config, header.history)
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            if {name: (tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()} != expected:
                raise StateError("damaged: tensors are missing or of another shape")
            tensors = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise StateError(f"not a saved state, or damaged ({_reason(error)})") from error
    if metadata.get("sha256") != checksum(text, tensors):
        raise StateError("damaged: the checksum does not match")
    before, history, *rings = tensors.values()
    return header, before, history, rings


def _tensors(config: ModelConfig, history: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each tensor, in order."""
    rings = (*ring_shapes(config), hidden_shape(config))
    return {
        "before": ((1 + AGES,), "I64"),
        "history": ((history, 3), "I16"),
        **{f"ring.{index}": (tuple(shape), "F32") for index, shape in enumerate(rings)},
    }


def _largest(config: ModelConfig) -> int:
    """Size in bytes that no state of this model exceeds."""
    tensors = _tensors(config, config.history).values()
    content = sum(math.prod(shape) * int(kind[1:]) // 8 for shape, kind in tensors)
    return content + len(tensors) * _TENSOR_ENTRY_BYTES + 6 * MAX_HEADER_BYTES  # JSON in JSON: escapes take up to six bytes


def _header(text: str, config: ModelConfig, model: str) -> _Header:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateError("damaged: the header is not JSON") from error
    if not isinstance(data, dict) or not isinstance(data.get("extra"), dict):
        raise StateError("damaged: the header is incomplete")
    if data.get("format") != FORMAT:
        raise StateError("saved by another version of this program")
    if data.get("model") != model:
        raise StateError("saved with another model")

    def number(name: str, low: int, high: int) -> int:
        value = data.get(name)
        if type(value) is not int or not low <= value <= high:
            raise StateError(f"damaged: {name} is out of range")
        return value

    position = number("position", 0, MAX_POSITION)
    high_water = number("high_water", position, position + config.slack)
    history = number("history", 1, min(position + 1, config.history))
    return _Header(position, high_water, history, number("moments", 1, min(history, config.slack + 1)), data["extra"])


def _snapshot(header: _Header, before: np.ndarray, history: np.ndarray, rings: list[np.ndarray]) -> Snapshot:
    """The snapshot. Raises ``StateError`` for a state that no engine can have been in."""
    earlier = header.position + 1 - header.history  # events before the history
    sounding = Sounding()
    sounding.step, sounding.since = int(before[0]), before[1:].copy()
    latest = sounding.step if earlier else -1
    if not 0 <= sounding.step <= earlier * MAX_WAIT or not ((sounding.since >= -1) & (sounding.since <= latest)).all():
        raise StateError("damaged: impossible keys or pedal")
    wait, action, velocity = history.T
    struck = action < NOTE_OFF
    possible = (wait >= 0) & (wait <= MAX_WAIT) & (action >= 0) & (action < ACTIONS) & (velocity >= 0)
    possible &= np.where(struck, velocity < VELOCITY_BINS, velocity == NO_VELOCITY)
    starts = np.flatnonzero(action == START).tolist()
    if not possible.all() or starts != ([] if earlier else [0]):
        raise StateError("damaged: impossible events")
    if not all(np.isfinite(ring).all() for ring in rings):
        raise StateError("damaged: values that are not finite")
    events = [Event(*row) for row in history.tolist()]
    moments: deque[Moment] = deque(maxlen=header.moments)
    now = sounding
    for event in events:
        now = now.copy()
        now.apply(event)
        moments.append(Moment(event, now))
    return Snapshot(header.position, header.high_water, tuple(moments), tuple(rings), tuple(events), sounding)
