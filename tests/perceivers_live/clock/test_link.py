"""Ableton Link, with the real library. Each scenario runs in its own process with a loopback-only network; in a real network it
would join any existing session and change its tempo.
"""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from perceivers_live.clock.link import LinkClock, LinkError
from perceivers_live.clock.midi_clock import Beats

PATIENCE = 20.0  # seconds
ISOLATED = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def test_missing_package_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aalink", None)
    with pytest.raises(LinkError, match=r"pip install 'perceivers-live\[link\]'") as refused:
        LinkClock()
    assert str(refused.value).isprintable()


@functools.cache
def can_isolate() -> bool:
    try:
        return subprocess.run([*ISOLATED, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def follows_the_tempo_and_the_bars_of_another_program() -> None:
    other = link_peer(97.0)
    time.sleep(1.0)  # the first peer determines the tempo
    with closing(LinkClock()) as clock:
        beats: Beats = clock
        until(lambda: beats.running)
        assert beats.bpm is not None
        assert abs(beats.bpm - 97.0) < 0.01
        for quantum in (4, 3, 1, 4):
            other.quantum = quantum
            before, theirs, now = time.perf_counter(), other.beat, time.perf_counter()
            blur = 0.01 + (now - before) / 60 * 97.0  # beats: ``other.beat`` was read between ``before`` and ``now``
            bar, beat = beats.next_bar(now, quantum), beats.next_beat(now)
            assert bar is not None
            assert beat is not None
            assert now < beat < bar + 0.001
            assert (bar - now) / 60 * 97.0 < quantum + 0.02 + blur  # a bar that begins within 10 ms is skipped
            assert distance(theirs + (bar - now) / 60 * 97.0, 0.0, quantum) < blur
            assert distance(theirs + (beat - now) / 60 * 97.0, 0.0, 1) < blur
        assert distance(beats.position(now), theirs, 4) < blur


def follows_a_change_of_tempo() -> None:
    other = link_peer(97.0)
    with closing(LinkClock()) as clock:
        until(lambda: clock.running)
        other.tempo = 140.0
        until(lambda: abs((clock.bpm or 0.0) - 140.0) < 0.01)


def has_no_beats_without_peers() -> None:
    def alone() -> bool:
        now = time.perf_counter()
        return (clock.running, clock.bpm, clock.next_beat(now), clock.next_bar(now, 4)) == (False, None, None, None)

    with closing(LinkClock()) as clock:
        assert alone()
        other = link_peer(97.0)
        until(lambda: clock.running)
        assert clock.next_beat(time.perf_counter()) is not None
        other.enabled = False
        until(alone)


def follows_start_and_stop_if_enabled() -> None:
    other = link_peer(97.0)
    other.start_stop_sync_enabled = True
    with closing(LinkClock(start_stop=True)) as clock:
        until(lambda: clock.peers == 1)
        assert not clock.running
        other.playing = True
        until(lambda: clock.running)
        other.playing = False
        until(lambda: not clock.running)


def leaves_when_closed() -> None:
    other = link_peer(97.0)
    clock = LinkClock()
    until(lambda: other.num_peers == 1)
    clock.close()
    until(lambda: other.num_peers == 0)
    clock.close()


def gives_its_tempo_to_later_peers() -> None:
    with closing(LinkClock(bpm=88.0)) as clock:
        time.sleep(1.0)
        other = link_peer(97.0)
        until(lambda: clock.running)
        until(lambda: abs(other.tempo - 88.0) < 0.01)


SCENARIOS: dict[str, Callable[[], None]] = {
    scenario.__name__: scenario
    for scenario in (
        follows_the_tempo_and_the_bars_of_another_program,
        follows_a_change_of_tempo,
        has_no_beats_without_peers,
        follows_start_and_stop_if_enabled,
        leaves_when_closed,
        gives_its_tempo_to_later_peers,
    )
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_link_session(scenario: str) -> None:
    pytest.importorskip("aalink", reason="without the extra: pip install 'perceivers-live[link]'")
    if not can_isolate():
        pytest.skip("this system does not permit a private network")
    command = [*ISOLATED, sys.executable, "-W", "error", __file__, scenario]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3 * PATIENCE)
    assert run.returncode == 0, run.stderr


def link_peer(bpm: float) -> Any:
    """Another program in the Link session, made with the library itself."""
    import aalink

    async def join() -> Any:
        link = aalink.Link(bpm)
        link.enabled = True
        return link

    return asyncio.run(join())


def distance(beat: float, other: float, quantum: int) -> float:
    """Beats between two places in a bar."""
    return abs((beat - other + quantum / 2) % quantum - quantum / 2)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.01)


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
