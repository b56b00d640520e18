"""Musical states on disk: an exact snapshot, for the same model only.

One file: a magic number, the length of a JSON header, the header (positions, counts, extra values of the caller), the arrays
below in little-endian order, and the SHA-256 of all that. The file's length follows from the model's config and the header's
counts; it is checked before the arrays are read. Nothing is compressed or unpickled.

    int64 [1 + AGES]    keys and pedal before the history: the step, and the step at which each went down
    int16 [history, 3]  the events
    float32             the rings, as ``Runtime.rings`` returns them
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import stat
import struct
import threading
from collections import deque
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from engine.checkpoint import read_config
from engine.config import CheckpointError, ModelConfig
from engine.engine import Moment, Snapshot
from engine.errors import UserError
from engine.events import ACTIONS, MAX_WAIT, NO_VELOCITY, NOTE_OFF, START, VELOCITY_BINS, Event
from engine.rings import hidden_shape, ring_shapes
from engine.sounding import AGES, Sounding

MAGIC = b"perceivers-state"
FORMAT = 1
SUFFIX = ".state"
MAX_HEADER_BYTES = 1 << 16
MAX_POSITION = 1 << 40
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = hashlib.sha256().digest_size
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
        text = json.dumps(header, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise StateError(f"{path}: the extra values are not JSON ({error})") from error
    if len(text) > MAX_HEADER_BYTES:
        raise StateError(f"{path}: the header would take {len(text)} bytes, allowed are {MAX_HEADER_BYTES}")
    arrays = [
        np.array([snapshot.before.step, *snapshot.before.since], "<i8"),
        np.array(snapshot.history, "<i2"),
        *(np.ascontiguousarray(ring, "<f4") for ring in snapshot.rings),
    ]
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            _write(file, [MAGIC, _LENGTH.pack(len(text)), text, *(_bytes(array) for array in arrays)])
        part.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise StateError(f"{path}: cannot be written ({_reason(error)})") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            part.unlink(missing_ok=True)


def load_state(path: Path, config: ModelConfig, *, model: str) -> tuple[Snapshot, dict[str, Any]]:
    """The snapshot and the extra values of a file, for the model with this config and fingerprint.

    Raises ``StateError`` for a file that is damaged, of another model, or that holds an impossible state. The extra values are
    an unchecked JSON object: the caller must check them.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StateError("not a file")
        with path.open("rb") as file:
            header, before, history, rings = _read(file, config, model)
        return _snapshot(header, before, history, rings), header.extra
    except StateError as error:
        raise StateError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: cannot be read ({_reason(error)})") from error


def _write(file: BinaryIO, parts: list[bytes | memoryview]) -> None:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        file.write(part)
    file.write(digest.digest())
    file.flush()
    os.fsync(file.fileno())


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _read(file: BufferedReader, config: ModelConfig, model: str) -> tuple[_Header, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Header, keys and pedal before the history, history and rings of an undamaged file."""
    lead = file.read(len(MAGIC) + _LENGTH.size)
    if len(lead) < len(MAGIC) + _LENGTH.size or not lead.startswith(MAGIC):
        raise StateError("not a saved state")
    length = _LENGTH.unpack_from(lead, len(MAGIC))[0]
    text = file.read(min(length, MAX_HEADER_BYTES + 1))
    header = _header(text, config, model)
    kinds = [((1 + AGES,), "<i8"), ((header.history, 3), "<i2")]
    kinds += [(shape, "<f4") for shape in (*ring_shapes(config), hidden_shape(config))]
    sizes = [math.prod(shape) * np.dtype(kind).itemsize for shape, kind in kinds]
    if os.fstat(file.fileno()).st_size != len(lead) + length + sum(sizes) + _DIGEST_BYTES:
        raise StateError("damaged: the length is wrong")
    digest = hashlib.sha256(lead + text)
    arrays = []
    for (shape, kind), size in zip(kinds, sizes, strict=True):
        content = np.empty(size, np.uint8)
        if file.readinto(content.data) != size:
            raise StateError("damaged: truncated")
        digest.update(content.data)
        arrays.append(content.view(kind).reshape(shape))
    if file.read() != digest.digest():
        raise StateError("damaged: the checksum does not match")
    before, history, *rings = arrays
    return header, before, history, rings


def _header(text: bytes, config: ModelConfig, model: str) -> _Header:
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
    depends = config.reach + config.window * config.layers + config.slack + 1  # events that a state can depend on
    history = number("history", 1, min(position + 1, depends))
    return _Header(position, high_water, history, number("moments", 1, min(history, config.slack + 1)), data["extra"])


def _snapshot(header: _Header, before: np.ndarray, history: np.ndarray, rings: list[np.ndarray]) -> Snapshot:
    """The snapshot. Raises ``StateError`` for a state that no engine can have been in."""
    earlier = header.position + 1 - header.history  # events before the history
    sounding = Sounding()
    sounding.step, sounding.since = int(before[0]), before[1:].astype(np.int64)
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
    floats = tuple(np.asarray(ring, np.float32) for ring in rings)
    return Snapshot(header.position, header.high_water, tuple(moments), floats, tuple(events), sounding)
