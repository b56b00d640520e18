"""Which runtime: by name, or the best that works here."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from engine.config import one_line
from engine.errors import install
from engine.runtimes import NAMES, Runtime, RuntimeUnavailable

log = logging.getLogger(__name__)
SLOW = 4.0  # ms a step, above which int8 weights are tried
STEPS = 11  # that are measured


def open_runtime(name: str, checkpoint: Path, *, threads: int = 0, steady: bool = False) -> Runtime:
    """The runtime ``name`` on a checkpoint; ``auto`` takes the best that works here and logs why not the ones before it; if it is
    to be ``steady``, none that computes differently once it has compiled itself, or by how fast the machine is just now. Raises
    ``RuntimeUnavailable`` with the reasons, ``CheckpointError`` if the checkpoint itself is at fault.
    """
    if name in ("eager", "cuda", "mps"):
        from engine.runtimes.pytorch import TorchRuntime

        return TorchRuntime(checkpoint, name, threads=threads)
    if name == "tensorrt":
        from engine.runtimes.tensorrt.runtime import TensorRTRuntime

        return TensorRTRuntime(checkpoint, threads=threads)
    if name in ("onnx", "onnx-int8"):
        from engine.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(checkpoint, threads=threads, int8=name == "onnx-int8")
    if name != "auto":
        raise RuntimeUnavailable(f"no runtime {name!r}; there are {', '.join(NAMES)}")
    reasons: list[str] = []
    for candidate, absent in AUTO:
        reason = "only live" if steady and candidate == "tensorrt" else absent()
        if reason is None:
            try:
                runtime = open_runtime(candidate, checkpoint, threads=threads)
                if candidate == "onnx" and not steady:
                    runtime = quicker(runtime, checkpoint, threads)
            except RuntimeError as error:  # of a GPU that is there and does not work, too
                reason = one_line(error)
            else:
                log.info("runtime %s%s", runtime.name, f" (not {'; '.join(reasons)})" if reasons else "")
                return runtime
        reasons.append(f"{candidate}: {reason}")
    raise RuntimeUnavailable("; ".join(reasons))


def quicker(runtime: Runtime, checkpoint: Path, threads: int) -> Runtime:
    """``onnx``, or ``onnx-int8`` where float32 takes too long for a step, and int8 weights, if there are any, take less."""
    from engine.runtimes.onnx import STEP_INT8_FILE

    taken = step_ms(runtime)
    if taken <= SLOW or not (checkpoint / STEP_INT8_FILE).exists():
        return runtime
    other = open_runtime("onnx-int8", checkpoint, threads=threads)
    instead = step_ms(other)
    chosen, left = (other, runtime) if instead < taken else (runtime, other)
    left.close()
    log.info("a step takes %.1f ms in float32, %.1f ms with int8 weights: %s", taken, instead, chosen.name)
    return chosen


def step_ms(runtime: Runtime) -> float:
    """What absorbing one event takes now, the median of some. The runtime is reset."""
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
    """Why a CUDA runtime need not even be tried: PyTorch takes a second to import, and most machines that play have none."""
    driver = Path("C:/Windows/System32/nvcuda.dll") if sys.platform == "win32" else Path("/dev/nvidiactl")
    if not driver.exists():
        return "no NVIDIA driver"
    return None if importlib.util.find_spec("torch") else f"PyTorch is not installed ({install('train')})"


def _only_on_request() -> str | None:
    """An Apple GPU: one operation after the other, which is likely to take longer than a small model does on the CPU."""
    return "only on request"


def _worth_a_try() -> str | None:
    return None


AUTO: tuple[tuple[str, Callable[[], str | None]], ...] = (
    ("tensorrt", _no_cuda),
    ("cuda", _no_cuda),
    *((("mps", _only_on_request),) if sys.platform == "darwin" else ()),
    ("onnx", _worth_a_try),
    ("eager", _worth_a_try),
)
