"""Coverage-guided fuzzing of the daemon's inputs (Atheris, libFuzzer).

    python -m pip install atheris               # Linux and macOS
    python -m fuzz --seconds 60                 # every target in turn, or those named
    python -m fuzz --again fuzz/crashes/osc-... # repeats a crash with its traceback; does not need Atheris

Inputs that violate the contract of a target (see ``contract``) are saved in ``fuzz/crashes``, inputs that reach new code in
``fuzz/corpus``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.contract import strict_logging
from fuzz.targets import TARGETS

HERE = Path(__file__).parent
TIMEOUT = 10  # seconds for one input
MAX_MEMORY = 2048  # MB


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("targets", nargs="*", help=", ".join(TARGETS))
    options.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    options.add_argument("--again", type=Path, nargs="+", metavar="FILE", default=[], help="inputs from fuzz/crashes")
    given = options.parse_args()
    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        options.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    for file in given.again:
        repeat_crash(file)
    if not given.again:
        sys.exit(sum([explore(name, given.seconds) for name in given.targets or TARGETS]) > 0)


def repeat_crash(file: Path) -> None:
    """Feeds one saved input to its target. The file name begins with the name of the target."""
    name = max((name for name in TARGETS if file.name.startswith(f"{name}-")), key=len)
    strict_logging()
    with tempfile.TemporaryDirectory() as scratch:
        TARGETS[name](Path(scratch)).feed(file.read_bytes())
    print(f"{file}: {name} keeps its contract")


def explore(name: str, seconds: int) -> int:
    """Fuzzes a target in a separate process, prints a summary and returns the number of inputs that violate the contract."""
    corpus, crashes = HERE / "corpus" / name, HERE / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(exist_ok=True)
    before = set(crashes.iterdir())
    arguments = [f"-max_total_time={seconds}", f"-timeout={TIMEOUT}", f"-rss_limit_mb={MAX_MEMORY}", "-print_final_stats=1"]
    arguments.append(f"-artifact_prefix={crashes / name}-")
    command = [sys.executable, "-m", "fuzz.one", name, str(corpus), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=HERE.parent, env={**os.environ})
    executed = re.findall(r"(?:number_of_executed_units: |#)(\d+)", done.stderr)
    coverage = re.findall(r"cov: (\d+)", done.stderr)
    found = sorted(set(crashes.iterdir()) - before)
    print(f"{name:16} {int(executed[-1]) if executed else 0:9} inputs, coverage {coverage[-1] if coverage else '?':>5}", end=" ")
    if done.returncode and not found:
        print("did not run:", done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode)
        return 1
    print(f"contract violated by {', '.join(map(str, found))}" if found else "", flush=True)
    return len(found)


if __name__ == "__main__":
    main()
