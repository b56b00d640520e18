"""The tables of `soak.py`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perceivers_live.commands.measuring import machine

MOST_GROWTH = {"memory": 1.15, "threads": 1.0, "files": 1.0}  # from the first quarter to the last, times, and ...
SOME = 4  # more of each


@dataclasses.dataclass
class Outcome:
    """Of one kind of disturbance."""

    times: int = 0
    hung: int = 0
    lost: int = 0
    dropped: int = 0  # by JACK
    recovery: list[float] = dataclasses.field(default_factory=list)  # seconds; infinite: it did not come back


class Sample(NamedTuple):
    """Measured between disturbances: share of the time (0..1), seconds from takeover to note (None: missed), memory in MB."""

    share: float
    latency: float | None
    memory: float
    threads: int
    files: int


def report(outcomes: Mapping[str, Outcome], samples: Sequence[Sample], minutes: float, json_file: Path | None) -> list[str]:
    """Prints the tables and writes them to ``json_file``; returns the names of the resources that have grown."""
    print(f"{machine()}; {minutes:g} minutes")
    print(f"{'disturbance':36}{'times':>6}{'hung':>8}{'lost':>8}{'JACK':>8}{'s to recovery, p50':>20}{'max':>7}")
    for name, one in sorted((name, one) for name, one in outcomes.items() if one.times):
        print(
            f"{name:36}{one.times:6}{one.hung:8}{one.lost:8}{one.dropped:8}{np.median(one.recovery):20.2f}{max(one.recovery):7.2f}"
        )
    used = []  # by quarter: memory, threads, files
    print(f"\n{'quarter':8}{'takeover to note, ms: p50':>27}{'p99':>8}{'missed':>8}{'memory MB':>11}{'threads':>9}{'files':>7}")
    for quarter in range(4):
        mine = [one for one in samples if quarter / 4 <= one[0] < (quarter + 1) / 4]
        latencies = [1000 * one[1] for one in mine if one[1] is not None]
        if latencies:
            p50, p99 = np.percentile(latencies, [50, 99])
            memory, threads, files = (float(np.median([one[i] for one in mine])) for i in (2, 3, 4))
            used.append((memory, threads, files))
            missed = len(mine) - len(latencies)
            print(f"{quarter + 1:<8}{p50:27.1f}{p99:8.1f}{missed:8}{memory:11.1f}{threads:9.0f}{files:7.0f}")
    if json_file is not None:
        told = {
            name: dataclasses.asdict(one)
            | {"recovery": [seconds if math.isfinite(seconds) else None for seconds in one.recovery]}
            for name, one in outcomes.items()
            if one.times
        }
        json_file.write_text(json.dumps({"machine": machine(), "minutes": minutes, "disturbances": told, "samples": samples}))
    return [name for i, (name, most) in enumerate(MOST_GROWTH.items()) if used and used[-1][i] > used[0][i] * most + SOME]
