"""Which runtime: by name, or the best that works here."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from engine.config import one_line
from engine.runtimes import NAMES, Runtime, RuntimeUnavailable

log = logging.getLogger(__name__)


def open_runtime(name: str, checkpoint: Path, *, threads: int = 0, steady: bool = False) -> Runtime:
    """The runtime ``name`` on a checkpoint; ``auto`` takes the best that works here and logs why not the ones before it; if it is
    to be ``steady``, none that computes differently once it has compiled itself. Raises ``RuntimeUnavailable`` with the reasons,
    ``CheckpointError`` if the checkpoint itself is at fault.
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
            except RuntimeError as error:  # of a GPU that is there and does not work, too
                reason = one_line(error)
            else:
                log.info("runtime %s%s", candidate, f" (not {'; '.join(reasons)})" if reasons else "")
                return runtime
        reasons.append(f"{candidate}: {reason}")
    raise RuntimeUnavailable("; ".join(reasons))


def _no_cuda() -> str | None:
    """Why a CUDA runtime need not even be tried: PyTorch takes a second to import, and most machines that play have none."""
    driver = Path("C:/Windows/System32/nvcuda.dll") if sys.platform == "win32" else Path("/dev/nvidiactl")
    if not driver.exists():
        return "no NVIDIA driver"
    return None if importlib.util.find_spec("torch") else "PyTorch is not installed (pip install '.[train]')"


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
