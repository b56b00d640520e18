"""The conversation of the two ends. The far end computes; it speaks first, then answers every call, in order.

    far   READY      protocol, version, runtime's name, model config as JSON, bytes a step reads, idle seconds or None
          ANSWER     what the call returns
          FAULT      exception's name, its text
    near  PING       nothing: how long the line takes
          FINGERPRINT, RESET, STEP, ... KEEP_WARM     the checkpoint's fingerprint; the methods of ``Runtime``

The near end ends it by closing its side. The far end writes its log, and nothing else, to standard error.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from engine.config import CheckpointError, ModelConfig, one_line
from engine.events import ACTIONS, VELOCITY_BINS, WAITS
from engine.remote.wire import Value, WireError
from engine.rings import hidden_shape, ring_shapes

PROTOCOL = 1  # to be raised with any change of this module or of ``wire``
SMALL = 1 << 16  # bytes of any message without a state: of 64 events, or of the widest model's hidden state
LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"  # of the far end's lines


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


CALLS = frozenset(kind for kind in Kind if kind >= Kind.PING)


class About(NamedTuple):
    """What the far end says of itself. ``warm_for``: see ``Runtime``."""

    name: str
    config: ModelConfig
    step_bytes: int
    warm_for: float | None
    version: str


def version() -> str:
    """This program's version, "unknown" where it runs without having been installed."""
    try:
        return importlib.metadata.version("perceivers-live")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def introduction(about: About) -> tuple[Value, ...]:
    """The values of READY."""
    config = json.dumps(about.config.to_dict())
    return PROTOCOL, about.version, about.name, config, about.step_bytes, about.warm_for


def introduced(values: Sequence[Value]) -> About:
    """What READY says. Raises ``WireError``, also for another version of the protocol."""
    match values:
        case (int(protocol), str(theirs), *_) if protocol != PROTOCOL:
            ours = f"version {version()} with protocol {PROTOCOL}"
            raise WireError(
                f"it is version {one_line(theirs)} with protocol {protocol}, this is {ours}: install the same on both"
            )
        case (int(), str(theirs), str(name), str(config), int(step_bytes), (None | float()) as warm_for):
            try:
                model = ModelConfig.from_dict(json.loads(config))
            except (CheckpointError, ValueError, TypeError, AttributeError, RecursionError) as error:
                raise WireError(f"its model's config is damaged ({one_line(error)})") from error
            return About(one_line(name), model, step_bytes, warm_for, one_line(theirs))
    raise WireError("its introduction is damaged")


def state_bytes(config: ModelConfig) -> int:
    """An upper bound for a message that holds all rings."""
    shapes = [*ring_shapes(config), hidden_shape(config)]
    return 4 * sum(math.prod(shape) for shape in shapes) + 64 * len(shapes) + SMALL


def call_limit(kind: int, config: ModelConfig) -> int:
    """Bytes that a call of this kind may have, -1: there is no such call."""
    if kind == Kind.RESTORE:
        return state_bytes(config)
    return SMALL if kind in CALLS else -1


def answer_limit(kind: int, call: Kind, config: ModelConfig) -> int:
    """Bytes that an answer of this kind to ``call`` may have."""
    if kind == Kind.ANSWER:
        return state_bytes(config) if call == Kind.RINGS else SMALL
    return SMALL if kind == Kind.FAULT else -1


def opening_limit(kind: int) -> int:
    """Bytes that the far end's first message may have."""
    return SMALL if kind in (Kind.READY, Kind.FAULT) else -1


def drawn(values: Sequence[Value]) -> tuple[int, int, int] | None:
    """The answer to DECIDE: wait, action and velocity bin, or nothing. Raises ``WireError``."""
    match values:
        case ():
            return None
        case (int(wait), int(action), int(velocity)):
            if 0 <= wait < WAITS and 0 <= action < ACTIONS and 0 <= velocity < VELOCITY_BINS:
                return wait, action, velocity
    raise WireError("its decision is no event")


def floats(values: Sequence[Value], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """An answer of float32 arrays of these shapes. Raises ``WireError``."""
    arrays = [one for one in values if isinstance(one, np.ndarray) and one.dtype == np.float32]
    if len(arrays) != len(values) or [one.shape for one in arrays] != list(shapes):
        raise WireError("its arrays are not of the shapes that the model has")
    return arrays
