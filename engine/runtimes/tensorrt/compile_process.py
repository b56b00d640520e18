"""Compiling a checkpoint's plans: here, or in a process of its own while something else plays.

python -m engine.runtimes.tensorrt.compile_process CHECKPOINT PRECISION CACHE COUNT...
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from engine.config import CheckpointError
from engine.realtime import clear_realtime
from engine.runtimes import RuntimeUnavailable
from engine.runtimes.tensorrt.cache import PlanCache, plan_specs


def compile_missing(checkpoint: Path, precision: str, counts: Sequence[int], cache: PlanCache) -> None:
    """Compiles what the cache lacks of a checkpoint's plans: steps for ``counts`` of new events, and the decision.

    Raises ``RuntimeUnavailable``, ``CheckpointError``.
    """
    from engine.checkpoint import load_model
    from engine.runtimes.tensorrt.build import build  # imports torch
    from engine.runtimes.tensorrt.execute import environment, load_tensorrt

    here = environment(load_tensorrt())
    model = load_model(checkpoint)
    for spec in plan_specs(checkpoint, precision, counts):
        cache.plan(spec.key(here), partial(build, spec, model))


class Compilation:
    """``compile_missing`` in a process of its own, which ends with this one. What it has finished stays in the cache, whatever
    becomes of it.
    """

    def __init__(self, checkpoint: Path, precision: str, counts: Sequence[int], cache: PlanCache) -> None:
        command = [sys.executable, "-m", __name__, str(checkpoint), precision, str(cache.folder), *map(str, counts)]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- read once the process has ended
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said)

    def outcome(self) -> str | None:
        """None while it is at work, an empty string once every plan is in the cache, otherwise why not, in one line."""
        code = self._process.poll()
        if not code:
            return None if code is None else ""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"the compiling process ended with {code}"

    def stop(self) -> None:
        """Ends it, whatever it has reached."""
        self._process.kill()
        self._process.communicate()
        self._said.close()


def end_with_parent() -> None:
    """Ends this process when the other end of its standard input is closed, by whatever means. For a thread of its own."""
    while os.read(0, 4096):  # unlike a read through sys.stdin, it holds no lock that Python wants at its end
        pass
    os._exit(1)


if __name__ == "__main__":
    clear_realtime()
    threading.Thread(target=end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(10)  # whoever plays goes first
    try:
        compile_missing(Path(sys.argv[1]), sys.argv[2], [int(count) for count in sys.argv[4:]], PlanCache(Path(sys.argv[3])))
    except (RuntimeUnavailable, CheckpointError) as refused:
        sys.exit(str(refused))
