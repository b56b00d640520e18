"""The protocol between client and server. The server runs the model; it sends READY, then answers every call in order.

    server  READY      protocol, version, runtime's name, model config as JSON, bytes a step reads, idle seconds or None
            ANSWER     the call's return values
            FAULT      name of an exception, its text
    client  PING       no values; measures the round trip
            FINGERPRINT, RESET, STEP, ... KEEP_WARM     the checkpoint's fingerprint; the methods of ``Runtime``
            DECIDE_AHEAD                                several decisions: see ``decided_ahead``

The client ends the connection by closing its side. The server writes only its log to standard error.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from engine.config import CheckpointError, ModelConfig
from engine.events import ACTIONS, VELOCITY_BINS, WAITS
from engine.remote.wire import Value, WireError
from engine.rings import hidden_shape, ring_shapes
from engine.text import one_line

PROTOCOL = 4  # raise it with every change of the format in this module or in ``wire``
SMALL = 1 << 16  # largest body in bytes without rings: 64 events, or the widest model's hidden state
LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"  # of the server's log


class Kind(IntEnum):
    READY = 1
    ANSWER = 2
    FAULT = 3
    PING = 16
    FINGERPRINT = 17
    RESET = 18
    STEP = 19
    PREFILL_CROSS = 20
    DECIDE = 21
    HIDDEN = 22
    RINGS = 23
    RESTORE = 24
    KEEP_WARM = 25
    DECIDE_AHEAD = 26


CALLS = frozenset(kind for kind in Kind if kind >= Kind.PING)


class ServerInfo(NamedTuple):
    """The values of READY. ``warm_for``: see ``Runtime``."""

    name: str
    config: ModelConfig
    step_bytes: int
    warm_for: float | None
    version: str


def version() -> str:
    """This program's version; "unknown" if it is not installed."""
    try:
        return importlib.metadata.version("perceivers-live")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def ready_values(info: ServerInfo) -> tuple[Value, ...]:
    """The message READY as values of a frame."""
    config = json.dumps(info.config.to_dict())
    return PROTOCOL, info.version, info.name, config, info.step_bytes, info.warm_for


def parse_ready(values: Sequence[Value]) -> ServerInfo:
    """Reads the values of READY. Raises ``WireError``, also for another version of the protocol."""
    match values:
        case (int(protocol), str(theirs), *_) if protocol != PROTOCOL:
            ours = f"{version()} with protocol {PROTOCOL}"
            raise WireError(
                f"its version is {one_line(theirs)} with protocol {protocol}, ours is {ours}: install the same version on both"
            )
        case (int(), str(theirs), str(name), str(config), int(step_bytes), (None | float()) as warm_for):
            try:
                model = ModelConfig.from_dict(json.loads(config))
            except (CheckpointError, ValueError, TypeError, AttributeError, RecursionError) as error:
                raise WireError(f"its model's config is damaged ({one_line(error)})") from error
            return ServerInfo(one_line(name), model, step_bytes, warm_for, one_line(theirs))
    raise WireError("its READY message is damaged")


def state_bytes(config: ModelConfig) -> int:
    """Largest body in bytes of a message with all rings."""
    shapes = [*ring_shapes(config), hidden_shape(config)]
    return 4 * sum(math.prod(shape) for shape in shapes) + 64 * len(shapes) + SMALL


def call_limit(kind: int, config: ModelConfig) -> int:
    """Largest body in bytes of a call of this kind; -1: not a call."""
    if kind == Kind.RESTORE:
        return state_bytes(config)
    return SMALL if kind in CALLS else -1


def answer_limit(kind: int, call: Kind, config: ModelConfig) -> int:
    """Largest body in bytes of an answer of this kind to ``call``; -1: not an answer."""
    if kind == Kind.ANSWER:
        return state_bytes(config) if call == Kind.RINGS else SMALL
    return SMALL if kind == Kind.FAULT else -1


def ready_limit(kind: int) -> int:
    """Largest body in bytes of the server's first message; -1: not allowed as the first."""
    return SMALL if kind in (Kind.READY, Kind.FAULT) else -1


def parse_event(values: Sequence[Value]) -> tuple[int, int, int] | None:
    """Reads the answer to DECIDE: wait, action and velocity bin, or None. Raises ``WireError``."""
    match values:
        case ():
            return None
        case (int(wait), int(action), int(velocity)):
            if 0 <= wait < WAITS and 0 <= action < ACTIONS and 0 <= velocity < VELOCITY_BINS:
                return wait, action, velocity
    raise WireError("its decision is not an event")


def parse_arrays(values: Sequence[Value], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Reads an answer of float32 arrays of these shapes. Raises ``WireError``."""
    arrays = [one for one in values if isinstance(one, np.ndarray) and one.dtype == np.float32]
    if len(arrays) != len(values) or [one.shape for one in arrays] != list(shapes):
        raise WireError("its arrays do not have the model's shapes")
    return arrays
