"""``perceivers-live doctor --engine``: checks the other computer and the network connection to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from engine.engine import Engine
from engine.remote.address import Address
from engine.remote.runtime import RemoteRuntime
from engine.states import fingerprint
from perceivers_live.commands.findings import Finding
from perceivers_live.commands.measuring import improvised, play_event
from perceivers_live.controls.settings import Settings

PINGS = 200
EVENTS = 200
GAP = 0.01  # seconds between two measurements, so that the delay of idle networks and processors is included
PER_SECOND = 40  # events of a dense passage, which are decided one after another


def check_remote(settings: Settings, checkpoint: Path, address: Address) -> Iterator[Finding]:
    """Connects as a performance does, then measures round trips and events. Raises the errors of ``RemoteRuntime``."""
    began = time.perf_counter()
    with closing(RemoteRuntime(address, fingerprint=fingerprint(checkpoint))) as runtime:
        text = f"{runtime.name}, same version and checkpoint as here, opened in {time.perf_counter() - began:.2f} s"
        yield Finding("remote engine", True, text)
        p50, p95, p99 = _milliseconds(runtime.ping, PINGS)
        yield Finding("network", None, f"round trip p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} ms")
        engine = Engine(runtime)
        engine.absorb(improvised(EVENTS, np.random.default_rng(0)))
        p50, p95, p99 = _milliseconds(lambda: play_event(engine, engine.position), EVENTS)
    lookahead = int(str(settings.controls["lookahead_ms"]))
    advice = ""
    if 1000 / p50 < PER_SECOND:
        advice = "dense music will be late: use a closer computer, or a cable instead of Wi-Fi"
    elif 2 * p99 > lookahead:
        advice = f"delays vary: use --lookahead-ms {min(2000, int(3 * p99))}, or reduce the traffic on the network"
    text = f"p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms; at most {1000 / p50:.0f} events a second (dense music: {PER_SECOND})"
    yield Finding("remote event", not advice, text, advice)
    yield Finding(
        "expect",
        None,
        f"a key press silences the machine as fast as without --engine; a reply's first note comes {p99:.0f} ms later",
    )


def _milliseconds(action: Callable[[], object], count: int) -> tuple[float, float, float]:
    taken = []
    for _ in range(count):
        time.sleep(GAP)
        began = time.perf_counter()
        action()
        taken.append((time.perf_counter() - began) * 1000)
    p50, p95, p99 = np.percentile(taken[count // 10 :], [50, 95, 99]).tolist()
    return p50, p95, p99
