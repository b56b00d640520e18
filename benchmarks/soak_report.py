"""Results of `soak.py` and their tables."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perceivers_live.commands.measuring import computer

# a resource has grown if its median in the last quarter exceeds that in the first times the factor, plus the tolerance
MAX_GROWTH = {"memory": 1.15, "threads": 1.0, "files": 1.0}
GROWTH_TOLERANCE = 4  # MB, threads, files


@dataclasses.dataclass
class Outcome:
    """Results of one kind of fault: how often it was injected, and notes and recovery times of all its injections."""

    times: int = 0
    hung: int = 0
    lost: int = 0
    dropped: int = 0  # notes dropped by JACK
    recovery: list[float] = dataclasses.field(default_factory=list)  # seconds to the machine's next note; infinite: none came


class Sample(NamedTuple):
    """Measured between faults. ``share``: part of the test that is over (0..1); ``latency``: seconds from takeover to note (None:
    no note came); ``memory``: MB.
    """

    share: float
    latency: float | None
    memory: float
    threads: int
    files: int


def report(outcomes: Mapping[str, Outcome], samples: Sequence[Sample], minutes: float, json_file: Path | None) -> list[str]:
    """Prints the tables and writes the results to ``json_file``. Returns the names of the resources that have grown too much."""
    print(f"{computer()}; {minutes:g} minutes")
    print(f"{'fault':36}{'times':>6}{'hung':>8}{'lost':>8}{'JACK':>8}{'s to recovery, p50':>20}{'max':>7}")
    for name, outcome in sorted((name, outcome) for name, outcome in outcomes.items() if outcome.times):
        print(
            f"{name:36}{outcome.times:6}{outcome.hung:8}{outcome.lost:8}{outcome.dropped:8}"
            f"{np.median(outcome.recovery):20.2f}{max(outcome.recovery):7.2f}"
        )
    used = []  # for each quarter: memory, threads, files
    print(f"\n{'quarter':8}{'takeover to note, ms: p50':>27}{'p99':>8}{'missed':>8}{'memory MB':>11}{'threads':>9}{'files':>7}")
    for quarter in range(4):
        in_quarter = [sample for sample in samples if quarter / 4 <= sample.share < (quarter + 1) / 4]
        latencies = [1000 * sample.latency for sample in in_quarter if sample.latency is not None]
        if latencies:
            p50, p99 = np.percentile(latencies, [50, 99])
            memory, threads, files = (float(np.median([sample[i] for sample in in_quarter])) for i in (2, 3, 4))
            used.append((memory, threads, files))
            missed = len(in_quarter) - len(latencies)
            print(f"{quarter + 1:<8}{p50:27.1f}{p99:8.1f}{missed:8}{memory:11.1f}{threads:9.0f}{files:7.0f}")
    if json_file is not None:
        results = {
            name: dataclasses.asdict(outcome)
            | {"recovery": [seconds if math.isfinite(seconds) else None for seconds in outcome.recovery]}
            for name, outcome in outcomes.items()
            if outcome.times
        }
        json_file.write_text(json.dumps({"machine": computer(), "minutes": minutes, "faults": results, "samples": samples}))
    return [
        name
        for i, (name, factor) in enumerate(MAX_GROWTH.items())
        if used and used[-1][i] > used[0][i] * factor + GROWTH_TOLERANCE
    ]
