"""Measuring times, for ``bench``, ``doctor`` and the benchmarks: percentiles, random events to measure with, this computer."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.engine import Engine
from engine.events import Event
from engine.runtimes import Runtime
from engine.sampling import SamplingControls, sampling_bias

COPY_BYTES = 256 << 20  # far larger than any cache
BUDGETS = {"step": 10.0, "event": 10.0, "takeover": 60.0, "start-up": 2000.0}  # ms


@dataclasses.dataclass(frozen=True)
class Row:
    """Percentiles of n measurements. ``floor`` and ``budget`` have the same unit; None where there is none."""

    name: str
    unit: str
    p50: float
    p95: float
    p99: float
    max: float
    floor: float | None
    budget: float | None
    n: int


def row(name: str, taken: list[float], *, unit: str = "ms", floor: float | None = None) -> Row:
    """Makes a row of measurements ``taken`` in ``unit``."""
    p50, p95, p99 = np.percentile(taken, [50, 95, 99]).tolist()
    return Row(name, unit, p50, p95, p99, max(taken), floor, BUDGETS.get(name.split(",")[0]), len(taken))


def improvised(count: int, rng: np.random.Generator) -> list[Event]:
    """Random legal events: each note-on is followed by its note-off."""
    events: list[Event] = []
    while len(events) < count:
        pitch = int(rng.integers(30, 90))
        events += [Event(int(rng.integers(0, 30)), pitch, int(rng.integers(32))), Event(int(rng.integers(1, 30)), 128 + pitch)]
    return events[:count]


def timed(action: Callable[[], object]) -> float:
    """Duration of a call in milliseconds."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def copy_bandwidth(runtime: Runtime) -> float:
    """Memory bandwidth of the runtime's device in bytes a millisecond: bytes read and written by a large copy."""
    if runtime.name in ("cuda", "cuda-compiled", "tensorrt"):
        return _gpu_copy_bandwidth()
    source = np.ones(COPY_BYTES // 8)
    target = np.empty_like(source)
    return 2 * COPY_BYTES / float(np.median([timed(lambda: np.copyto(target, source)) for _ in range(9)][1:]))


def _gpu_copy_bandwidth() -> float:
    import torch

    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    return 2 * COPY_BYTES / float(np.median([timed(copy) for _ in range(9)][1:]))


def play_event(engine: Engine, seed: int) -> None:
    """One event as in a performance: sampling bias, decision, absorption."""
    own = set(engine.sounding.held().tolist())
    bias = sampling_bias(engine.sounding, SamplingControls(), np.random.default_rng(seed), own=own, own_pedal=True)
    engine.absorb([engine.decide(bias)])


def computer() -> str:
    """Processor, system and Python version."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = f"{len(names)} x {names[0]}" if names else cpu
    return f"{cpu}, {platform.system()}, Python {platform.python_version()}"
