"""The model's process, slowed down: python -m benchmarks.slow_serve FACTOR [options of engine.remote.serve]

Simulates a slower computer for ``benchmarks.live --slow``: each call of the runtime takes ``FACTOR`` times as long, and the
process is busy for the added time. ``auto`` chooses int8 weights as it would there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.remote import serve
from engine.runtimes import Runtime, choose
from engine.runtimes.choose import open_runtime

SLOWED = ("step", "prefill_cross", "decide")


class SlowRuntime:
    """A runtime whose calls in ``SLOWED`` take ``factor`` times as long."""

    def __init__(self, runtime: Runtime, factor: float) -> None:
        self._runtime, self._factor = runtime, factor

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._runtime, name)
        if name not in SLOWED:
            return method

        def slow(*arguments: object) -> object:
            began = time.perf_counter()
            result = method(*arguments)
            end = began + self._factor * (time.perf_counter() - began)
            while time.perf_counter() < end:
                pass
            return result

        return slow


def main(factor: float, arguments: Sequence[str]) -> None:
    def open_slowed(name: str, checkpoint: Path, *, threads: int = 0) -> Any:
        return SlowRuntime(open_runtime(name, checkpoint, threads=threads), factor)

    usual = choose.step_ms
    choose.step_ms = lambda runtime: factor * usual(runtime)
    serve.open_runtime = open_slowed  # type: ignore[assignment, attr-defined]
    serve.main(arguments)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
