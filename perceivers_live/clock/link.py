"""Musical time from Ableton Link: the tempo and the beats that the Link programs of a network share.

Link multicasts on all networks of this machine (UDP, 224.76.78.75:20808), and whoever is there may join and set the tempo: it is
only for a user who asked for it. It is an optional extra, ``pip install 'perceivers-live[link]'``, and not installed by default:
the package ``aalink`` (https://github.com/artfwo/aalink, with Ableton's own library in it) is licensed under GPLv3 or later.
"""

from __future__ import annotations

import asyncio
import math
import threading
from time import perf_counter
from typing import Any

from engine.errors import UserError, install
from perceivers_live.clock.midi_clock import Grid

ATTEMPTS = 5  # readings of the beat, of which the quickest is the truest
QUICK = 20e-6  # seconds: a reading that needs no other


class LinkError(UserError):
    """Link cannot be had; the message is one line for the user."""


class LinkClock:
    """Follows a Link session: ``Beats``. Joins at once, until ``close``; may be read from any thread.

    What is shared is where a bar begins, not its number nor how many beats it has: the position counts bars of ``quantum`` beats
    from anywhere. Beats go by whether or not anything plays, so it is ``running`` as soon as another program is there; with
    ``start_stop``, while these play (those that have Link's start stop sync on).

    It never changes the tempo. But in Link who comes later takes over the tempo that is there, and if that is us it is ``bpm``.

    Raises ``LinkError`` if ``aalink`` is not installed or does not run here.
    """

    def __init__(self, bpm: float = 120.0, quantum: int = 4, *, start_stop: bool = False) -> None:
        try:
            import aalink
        except ImportError as error:
            raise LinkError(f"no Ableton Link ({error}): {install('link')}") from error

        async def join() -> Any:
            link = aalink.Link(bpm)  # wants a running event loop, for callbacks; we ask for none
            link.start_stop_sync_enabled = start_stop
            link.enabled = True
            return link

        try:
            self._link = asyncio.run(join())
        except RuntimeError as error:
            raise LinkError(f"Ableton Link does not run here: {error}") from error
        self._quantum, self._start_stop = quantum, start_stop
        self._lock = threading.Lock()  # from setting the quantum to reading the beat

    def close(self) -> None:
        """Leaves the session."""
        self._link.enabled = False

    @property
    def peers(self) -> int:
        """How many other programs are in the session."""
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
        """The session's beats on our clock. Link's clock may not run at quite the same speed, so it is read anew each time."""
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
