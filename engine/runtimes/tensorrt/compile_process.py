"""Compiles a checkpoint's plans, in this process or in a separate one while another runtime plays.

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
    """Compiles the plans of a checkpoint that are not in the cache: steps for ``counts`` of new events, and the decision. If one
    cannot be built, the cache keeps the reason.

    Raises ``RuntimeUnavailable``, ``CheckpointError``.
    """
    from engine.checkpoint import load_model
    from engine.runtimes.tensorrt.build import PlanError, build  # imports torch
    from engine.runtimes.tensorrt.execute import environment, load_tensorrt

    here = environment(load_tensorrt())
    model = load_model(checkpoint)
    for spec in plan_specs(checkpoint, precision, counts):
        key = spec.key(here)
        try:
            cache.get_or_build(key, partial(build, spec, model))
        except PlanError as error:
            cache.refuse(key, str(error))
            raise
        if cache.get(key) is None:
            raise RuntimeUnavailable(f"{cache.folder}: compiled plans cannot be stored there")


class Compilation:
    """``compile_missing`` in a separate process, which ends with this one. Finished plans remain in
    the cache if it is stopped.
    """

    def __init__(self, checkpoint: Path, precision: str, counts: Sequence[int], cache: PlanCache) -> None:
        command = [sys.executable, "-m", __name__, str(checkpoint), precision, str(cache.folder), *map(str, counts)]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 -- read after the process has ended
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._stderr)

    def outcome(self) -> str | None:
        """None while it runs, an empty string when all plans are in the cache, otherwise the error in one line."""
        code = self._process.poll()
        if not code:
            return None if code is None else ""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"the compile process ended with status {code}"

    def stop(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()


def end_with_parent() -> None:
    """Thread: ends this process when its standard input is closed, that is when the parent has ended."""
    while os.read(0, 4096):  # reading sys.stdin would hold a lock that Python needs at exit
        pass
    os._exit(1)


if __name__ == "__main__":
    clear_realtime()
    threading.Thread(target=end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(10)  # a runtime that plays has precedence
    try:
        compile_missing(Path(sys.argv[1]), sys.argv[2], [int(count) for count in sys.argv[4:]], PlanCache(Path(sys.argv[3])))
    except (RuntimeUnavailable, CheckpointError) as refused:
        sys.exit(str(refused))
