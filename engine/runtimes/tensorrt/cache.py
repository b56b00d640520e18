"""Compiled plans on disk: found again only by what they were compiled from, whole, or not at all.

A plan belongs to one set of weights, one graph, one precision, one TensorRT and one kind of GPU. All of that is hashed into the
plan's key, which is its file's name and stands in its header beside a checksum:

    magic [8]   key [32]   sha256 of the plan [32]   length of the plan, uint64 little-endian [8]   the plan

A file that is cut, damaged or of another key is as good as none. Files appear by renaming, so that processes side by side see
a whole plan or the one before; at worst two build the same. Nothing is unpickled. Free of torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import engine
from engine.checkpoint import read_config
from engine.config import CheckpointError, ModelConfig
from engine.runtimes import RuntimeUnavailable

MAGIC = b"PLPLAN1\n"
HEADER = struct.Struct("<8s32s32sQ")
MAX_PLAN_BYTES = 1 << 33
WEIGHTS_FILE = "model.safetensors"
KEPT = 24  # plans; a checkpoint has four or five
ABANDONED = 86400.0  # seconds until a file that was never finished goes
GRAPH_SOURCES = (
    "attention.py",
    "graphs.py",
    "model.py",
    "rings.py",
    "runtimes/tensorrt/build.py",
)  # the plan follows from these and the weights


@dataclasses.dataclass(frozen=True)
class Environment:
    """What a plan is bound to besides the model. ``driver`` is the CUDA version that the driver supports."""

    backend: str  # "tensorrt" or "tensorrt_rtx"
    tensorrt: str
    torch_tensorrt: str
    torch: str
    gpu: str
    capability: tuple[int, int]
    driver: str


@dataclasses.dataclass(frozen=True)
class PlanSpec:
    """One plan: ``part`` is ``step`` or ``decide``, ``count`` the events that a step absorbs (0 for ``decide``), ``weights`` the
    sha256 of the weights' file.
    """

    part: str
    count: int
    precision: str
    weights: str
    config: ModelConfig

    def key(self, environment: Environment) -> str:
        """sha256 of everything that matters, hex."""
        folder = Path(engine.__file__).parent
        sources = {name: sha256_of(folder / name) for name in GRAPH_SOURCES}
        everything = {"plan": dataclasses.asdict(self), "in": dataclasses.asdict(environment), "sources": sources}
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def plan_specs(checkpoint: Path, precision: str, counts: Sequence[int]) -> list[PlanSpec]:
    """The plans that a checkpoint is played with: a step for each count of new events, and the decision.

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


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where this user's plans are kept. Raises ``RuntimeUnavailable`` for a user without a home."""
    variable, below_home = {
        "win32": ("LOCALAPPDATA", Path("AppData", "Local")),
        "darwin": ("", Path("Library", "Caches")),
    }.get(platform, ("XDG_CACHE_HOME", Path(".cache")))
    base = Path(environ.get(variable, ""))
    if not base.is_absolute():  # the XDG specification has relative ones ignored
        try:
            base = Path.home() / below_home
        except RuntimeError as error:
            raise RuntimeUnavailable("there is no home folder to keep compiled plans in (set XDG_CACHE_HOME)") from error
    return base / "perceivers-live" / "plans"


class PlanCache:
    """Plans in a folder, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> bytes | None:
        """The plan of this key, None if there is none that is whole."""
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
            os.utime(path)  # the least recently used go first
        return plan

    def put(self, key: str, plan: bytes) -> None:
        """Keeps a plan; a folder that cannot be written costs only the time to build it again."""
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                part = Path(file.name)
                try:
                    file.write(_header(key, plan) + plan)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.close()
                    part.unlink(missing_ok=True)
                    raise
            part.replace(self._path(key))
            self._prune()

    def drop(self, key: str) -> None:
        """Forgets a plan, for one that is whole and yet refused."""
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def plan(self, key: str, build: Callable[[], bytes]) -> bytes:
        """The plan of this key, built if there is none."""
        plan = self.get(key)
        if plan is None:
            plan = build()
            self.put(key, plan)
        return plan

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.plan"

    def _prune(self) -> None:
        old = sorted(self.folder.glob("*.plan"), key=_used, reverse=True)[KEPT:]
        old += [part for part in self.folder.glob("*.part") if _used(part) < time.time() - ABANDONED]
        for path in old:
            with suppress(OSError):
                path.unlink()


def _header(key: str, plan: bytes) -> bytes:
    return HEADER.pack(MAGIC, bytes.fromhex(key), hashlib.sha256(plan).digest(), len(plan))


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process was quicker
        return 0.0
