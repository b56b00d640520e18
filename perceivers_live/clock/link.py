"""Ableton Link: a tempo and beats that are shared by the Link programs of a network.

Link multicasts on all networks of this computer (UDP, 224.76.78.75:20808), and any Link program there can set the tempo. It is
therefore used only if the settings ask for it. It is an optional extra, ``pip install 'perceivers-live[link]'``, because the
package ``aalink`` (https://github.com/artfwo/aalink, which contains Ableton's library) is licensed under GPLv3 or later.
"""

from __future__ import annotations

import asyncio
import math
import threading
from time import perf_counter
from typing import Any

from engine.errors import UserError, install
from perceivers_live.clock.midi_clock import Grid

ATTEMPTS = 5  # readings of the beat; the fastest one is the most accurate
QUICK = 20e-6  # seconds; a reading as fast as this is not repeated


class LinkError(UserError):
    """Link is not available; the message is one line for the user."""


class LinkClock:
    """Follows a Link session; implements ``Beats``. Joins at once and leaves on ``close``. Thread-safe.

    Link shares the phase of the bar, but neither a bar number nor the number of beats in a bar. The position therefore counts
    bars of ``quantum`` beats from an arbitrary origin. Link's beats continue even if no program plays, so ``running`` is true
    once there is another program in the session. With ``start_stop`` it is true while the programs play that have start/stop sync
    enabled.

    It never changes the tempo of a session that it joins. ``bpm`` is the tempo if it is the first in the session.

    Raises ``LinkError`` if ``aalink`` is not installed or does not run here.
    """

    def __init__(self, bpm: float = 120.0, quantum: int = 4, *, start_stop: bool = False) -> None:
        try:
            import aalink
        except ImportError as error:
            raise LinkError(f"Ableton Link is not available ({error}): {install('link')}") from error

        async def join() -> Any:
            link = aalink.Link(bpm)  # needs a running event loop for callbacks; we register none
            link.start_stop_sync_enabled = start_stop
            link.enabled = True
            return link

        try:
            self._link = asyncio.run(join())
        except RuntimeError as error:
            raise LinkError(f"Ableton Link does not run here: {error}") from error
        self._quantum, self._start_stop = quantum, start_stop
        self._lock = threading.Lock()  # held from setting the quantum until the beat is read

    def close(self) -> None:
        """Leaves the session."""
        self._link.enabled = False

    @property
    def peers(self) -> int:
        """The number of other programs in the session."""
        return int(self._link.num_peers)

    @property
    def bpm(self) -> float | None:
        return float(self._link.tempo) if self.peers else None

    @property
    def running(self) -> bool:
        return self.peers > 0 and (bool(self._link.playing) or not self._start_stop)

    def position(self, now: float) -> float:
        return self._grid(self._quantum).position(now)

    def next_beat(self, after: float) -> float | None:
        return self.next_bar(after, 1)

    def next_bar(self, after: float, beats: int) -> float | None:
        return self._grid(beats).next(after, beats) if self.running else None

    def _grid(self, quantum: int) -> Grid:
        """The session's beats on our clock. Link's clock may run at a slightly different speed, so it is read each time."""
        quickest, time, beat = math.inf, 0.0, 0.0
        with self._lock:
            self._link.quantum = quantum
            for _ in range(ATTEMPTS):
                before, reading, after = perf_counter(), float(self._link.beat), perf_counter()
                if after - before < quickest:
                    quickest, time, beat = after - before, (before + after) / 2, reading
                if quickest < QUICK:
                    break
        return Grid(time, beat, 60 / float(self._link.tempo))
