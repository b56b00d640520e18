"""Speed of the training loader, compared with another version: python -m benchmarks.loader [--other OTHER] [--rounds 10]

OTHER is a checkout of another version (``git worktree add OTHER REVISION``), which runs its own code. Each version is a
separate process. They take turns, so that other load on the machine affects both. Prints the examples that are drawn per second
of CPU time from a piece of ``EVENTS`` events, and the speed-up: this version's figure divided by the other's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np

HERE = Path(__file__).parents[1]
PRESETS = ("small", "base")
EVENTS = 20_000  # as in MAESTRO's longer performances, which are drawn most often: in proportion to their length


class Version:
    """A process that runs a version's code and draws examples. ``root``: its checkout."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, __file__, "--serve"]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def measure(self, preset: str, count: int) -> float:
        """CPU time of drawing ``count`` examples, in seconds. Raises ``click.ClickException`` if the process has failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(preset, count, file=self._process.stdin, flush=True)
        if not (line := self._process.stdout.readline()):
            raise click.ClickException("a version's process has failed; see its message above")
        return float(line)

    def close(self) -> None:
        self._process.communicate()


def serve() -> None:
    """Runs in a version's process: answers requests until its input ends. Only this function imports the version's code."""
    from benchmarks.training import improvised
    from engine.config import PRESETS
    from trainer.segmentation import Segmentation, draw

    piece, rng = improvised(EVENTS), np.random.default_rng(0)
    for line in sys.stdin:
        preset, count = line.split()
        segmentation = Segmentation.for_model(PRESETS[preset])
        began = time.process_time()
        for _ in range(int(count)):
            draw(piece, segmentation, rng)
        print(time.process_time() - began, flush=True)


@click.command()
@click.option("--other", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout of another version.")
@click.option("--rounds", default=10, show_default=True, help="Turns of each version.")
@click.option("--count", default=20, show_default=True, help="Examples per turn.")
@click.option("--serve", "serving", is_flag=True, hidden=True)
def main(other: Path | None, rounds: int, count: int, serving: bool) -> None:
    if serving:
        serve()
        return
    versions = [Version(root) for root in (HERE, *([other.resolve()] if other else []))]
    print(f"{'examples/s per core':24}{'this':>10}{'other':>10}{'speed-up':>15}")
    for preset in PRESETS:
        taken = np.array([[version.measure(preset, count) for version in versions] for _ in range(rounds)])
        rates = (count / np.median(taken, axis=0)).tolist()
        print(f"{preset:24}{rates[0]:10.0f}", end="")
        print(f"{rates[1]:10.0f}{rates[0] / rates[1]:15.1f}" if other else "", flush=True)
    for version in versions:
        version.close()


if __name__ == "__main__":
    main()
