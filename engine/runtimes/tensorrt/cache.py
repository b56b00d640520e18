"""Cache of compiled plans on disk. The key is a hash of everything that a plan depends on.

A plan depends on the weights, the graph, the precision, the versions of TensorRT and PyTorch, and the GPU. The key is the file's
name and is repeated in its header beside a checksum:

    magic [8]   key [32]   sha256 of the plan [32]   length of the plan, uint64 little-endian [8]   the plan

A file that is truncated, damaged or has another key is ignored. Files are written under another name and renamed, so that other
processes never see an incomplete plan; at worst two processes build the same one. Nothing is unpickled. Does not import torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import engine
from engine.checkpoint import read_config
from engine.config import CheckpointError, ModelConfig
from engine.folders import NoHomeError, cache_folder
from engine.hashing import sha256_of
from engine.replacing import replacing
from engine.runtimes import RuntimeUnavailable
from engine.text import one_line

MAGIC = b"PLPLAN1\n"
HEADER = struct.Struct("<8s32s32sQ")
MAX_PLAN_BYTES = 1 << 33
WEIGHTS_FILE = "model.safetensors"
MAX_PLANS = 24  # a checkpoint has four or five, and one file of kernels
ABANDONED = 86400.0  # seconds after which an unfinished file is deleted
REFUSED = 86400.0  # seconds for which a plan that could not be built is not tried again
GRAPH_SOURCES = (
    "attention.py",
    "events.py",
    "graphs.py",
    "model.py",
    "rings.py",
    "sounding.py",
    "runtimes/tensorrt/build.py",
)  # source files that a plan depends on


@dataclasses.dataclass(frozen=True)
class Environment:
    """Software and GPU that a plan depends on. ``driver`` is the CUDA version that the driver supports."""

    backend: str  # "tensorrt" or "tensorrt_rtx"
    tensorrt: str
    torch_tensorrt: str
    torch: str
    gpu: str
    capability: tuple[int, int]
    driver: str


@dataclasses.dataclass(frozen=True)
class PlanSpec:
    """One plan. ``part``: ``step`` or ``decide``. ``count``: events that a step absorbs (0 for ``decide``). ``weights``: SHA-256
    of the weights' file.
    """

    part: str
    count: int
    precision: str
    weights: str
    config: ModelConfig

    def key(self, environment: Environment) -> str:
        """SHA-256, in hex, of everything that the plan depends on."""
        folder = Path(engine.__file__).parent
        sources = {name: sha256_of(folder / name) for name in GRAPH_SOURCES}
        everything = {"plan": dataclasses.asdict(self), "in": dataclasses.asdict(environment), "sources": sources}
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def kernels_key(environment: Environment) -> str:
    """The key under which the kernels of TensorRT-RTX (``execute.KernelCache``) are stored beside the plans."""
    return hashlib.sha256(json.dumps({"kernels of": dataclasses.asdict(environment)}, sort_keys=True).encode()).hexdigest()


def plan_specs(checkpoint: Path, precision: str, counts: Sequence[int]) -> list[PlanSpec]:
    """The plans of a checkpoint: a step for each count of new events, and the decision.

    Raises ``CheckpointError``.
    """
    config, _ = read_config(checkpoint)
    path = checkpoint / WEIGHTS_FILE
    try:
        weights = sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    steps = [PlanSpec("step", count, precision, weights, config) for count in counts]
    return [*steps, PlanSpec("decide", 0, precision, weights, config)]


def plans_folder() -> Path:
    """The user's folder of plans. Raises ``RuntimeUnavailable`` for a user without a home folder."""
    try:
        return cache_folder() / "plans"
    except NoHomeError as error:
        raise RuntimeUnavailable(f"nowhere to keep compiled plans: {error}") from error


class PlanCache:
    """Plans in a folder, which is created when needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> bytes | None:
        """The plan with this key, None if there is no undamaged one."""
        path = self._path(key)
        try:
            if path.stat().st_size > HEADER.size + MAX_PLAN_BYTES:
                return None
            with path.open("rb") as file:
                header, plan = file.read(HEADER.size), file.read()
        except OSError:
            return None
        if header != _header(key, plan):
            return None
        with suppress(OSError):
            os.utime(path)  # marks it as used: the least recently used are deleted first
        return plan

    def put(self, key: str, plan: bytes) -> None:
        """Stores a plan. Does nothing if the folder cannot be written; the plan is then built again next time."""
        with suppress(OSError):
            self._create()
            with replacing(self._path(key), shared=True) as part:
                part.write_bytes(_header(key, plan) + plan)
            self._prune()

    def refuse(self, key: str, reason: str) -> None:
        """Stores why this plan cannot be built, so that it is not tried at every start."""
        with suppress(OSError):
            self._create()
            with replacing(self._refusal(key), shared=True) as part:
                part.write_text(reason, encoding="utf-8")
            self._prune()

    def refusal(self, key: str) -> str | None:
        """Why this plan could not be built, in one line; None if that is not known, or so long ago that the cause may be gone."""
        try:
            if self._refusal(key).stat().st_mtime < time.time() - REFUSED:
                return None
            return one_line(self._refusal(key).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return None

    def drop(self, key: str) -> None:
        """Deletes a plan that TensorRT refuses."""
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def get_or_build(self, key: str, build: Callable[[], bytes]) -> bytes:
        """The plan with this key; builds and stores it if it is missing."""
        plan = self.get(key)
        if plan is None:
            plan = build()
            self.put(key, plan)
            with suppress(OSError):
                self._refusal(key).unlink(missing_ok=True)
        return plan

    def _create(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.plan"

    def _refusal(self, key: str) -> Path:
        return self.folder / f"{key}.refused"

    def _prune(self) -> None:
        old = sorted(self.folder.glob("*.plan"), key=_used, reverse=True)[MAX_PLANS:]
        old += sorted(self.folder.glob("*.refused"), key=_used, reverse=True)[MAX_PLANS:]
        old += [part for part in self.folder.glob("*.part") if _used(part) < time.time() - ABANDONED]
        for path in old:
            with suppress(OSError):
                path.unlink()


def _header(key: str, plan: bytes) -> bytes:
    return HEADER.pack(MAGIC, bytes.fromhex(key), hashlib.sha256(plan).digest(), len(plan))


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has deleted it
        return 0.0
