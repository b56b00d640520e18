"""Opens a runtime by name, or the best one for this computer."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from engine.config import CheckpointError
from engine.errors import UserError, in_words, install
from engine.runtimes import NAMES, Runtime, RuntimeUnavailable
from engine.text import one_line

log = logging.getLogger(__name__)
SLOW = 4.0  # ms a step; above it, int8 weights are tried
STEPS = 7  # timed steps
DRIVERS = ("C:/Windows/System32/nvcuda.dll",) if sys.platform == "win32" else ("/dev/nvidiactl", "/dev/dxg")  # dxg: WSL 2


def open_runtime(name: str, checkpoint: Path, *, threads: int = 0, steady: bool = False) -> Runtime:
    """The runtime ``name`` with a checkpoint. ``auto`` takes the first of ``AUTO`` that works here and logs why the ones before
    it do not. ``steady`` excludes runtimes whose numerical results change after a background compilation, and a choice by
    measured speed. Raises ``RuntimeUnavailable`` with the reasons, ``CheckpointError`` for an unusable checkpoint.
    """
    if name == "auto":
        return _best(checkpoint, threads, steady)
    try:
        return _opened(name, checkpoint, threads)
    except UserError:
        raise
    except Exception as error:  # from drivers and libraries: a PyTorch that does not load, a GPU without free memory
        raise RuntimeUnavailable(f"{name}: {one_line(in_words(error))}") from error


def _opened(name: str, checkpoint: Path, threads: int) -> Runtime:
    if name in ("eager", "cuda", "cuda-compiled", "mps"):
        from engine.runtimes.pytorch import TorchRuntime

        return TorchRuntime(checkpoint, name, threads=threads)
    if name == "tensorrt":
        from engine.runtimes.tensorrt.runtime import TensorRTRuntime

        return TensorRTRuntime(checkpoint, threads=threads)
    if name in ("onnx", "onnx-int8"):
        from engine.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(checkpoint, threads=threads, int8=name == "onnx-int8")
    raise RuntimeUnavailable(f"unknown runtime {name!r}, allowed are {', '.join(NAMES)}")


def _best(checkpoint: Path, threads: int, steady: bool) -> Runtime:
    reasons: list[str] = []
    for candidate, unavailable in AUTO:
        reason = "only live" if steady and candidate == "tensorrt" else unavailable()
        if reason is None:
            try:
                if candidate == "onnx" and not steady:
                    runtime = faster_onnx(checkpoint, threads)
                else:
                    runtime = _opened(candidate, checkpoint, threads)
            except CheckpointError:
                raise
            except Exception as error:  # see ``open_runtime``
                reason = one_line(in_words(error))
            else:
                log.info("runtime %s%s", runtime.name, f" (not {'; '.join(reasons)})" if reasons else "")
                return runtime
        reasons.append(f"{candidate}: {reason}")
    raise RuntimeUnavailable("; ".join(reasons))


def faster_onnx(checkpoint: Path, threads: int) -> Runtime:
    """``onnx``; or ``onnx-int8`` if a float32 step is slow and a step with int8 weights is faster."""
    from engine.checkpoint import read_config
    from engine.runtimes.onnx import STEP_INT8_FILE, OnnxRuntime
    from engine.runtimes.onnx_weights import Checkpoint, step_weights

    config, _ = read_config(checkpoint)
    weights = step_weights(Checkpoint(checkpoint), config)  # read once for both
    runtime = OnnxRuntime(checkpoint, threads=threads, weights=weights)
    taken = step_ms(runtime)
    if taken <= SLOW or not (checkpoint / STEP_INT8_FILE).exists():
        return runtime
    other = OnnxRuntime(checkpoint, threads=threads, int8=True, weights=weights)
    int8_taken = step_ms(other)
    chosen = other if int8_taken < taken else runtime
    log.info("a step takes %.1f ms in float32, %.1f ms with int8 weights: %s", taken, int8_taken, chosen.name)
    return chosen


def step_ms(runtime: Runtime) -> float:
    """Median time of absorbing one event, in ms. Resets the runtime."""
    import numpy as np

    from engine.events import START_EVENT
    from engine.sounding import AGES

    event, ages, time = np.array([START_EVENT], np.int64), np.full((1, AGES), -1, np.int16), np.zeros(1, np.int64)
    taken = []
    for position in range(STEPS):
        began = perf_counter()
        runtime.step(event, ages, time, position)
        taken.append((perf_counter() - began) * 1000)
    runtime.reset()
    return median(taken)


def _no_cuda() -> str | None:
    """Why CUDA is unavailable, found without importing PyTorch, which takes a second."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return "no NVIDIA driver"
    return None if importlib.util.find_spec("torch") else f"PyTorch is not installed ({install('train')})"


def _only_on_request() -> str | None:
    """For Apple GPUs: a small model is probably slower there than on the CPU, because each operation is launched on its own."""
    return "only on request"


def _no_reason() -> str | None:
    return None


AUTO: tuple[tuple[str, Callable[[], str | None]], ...] = (
    ("tensorrt", _no_cuda),
    ("cuda", _no_cuda),
    *((("mps", _only_on_request),) if sys.platform == "darwin" else ()),
    ("onnx", _no_reason),
    ("eager", _no_reason),
)
