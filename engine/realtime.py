"""Real-time priority, where the system permits it (on Linux: `ulimit -r`, which audio groups raise).

The order matters more than the numbers: all are below an audio server's. Whoever hears and whoever plays sleep most of the time.
The daemon's other threads come next, all of them: one that is preempted while it holds Python's interpreter holds up the rest.
The model computes for many milliseconds at a stretch and comes last.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from pathlib import Path

DRIVER, PLAYER, DAEMON, MODEL = 6, 5, 3, 2  # of 1..99
THREADS = Path("/proc/self/task")
WINDOW = 0.25  # seconds
MOST = 0.75  # of a core's time


def set_realtime(priority: int) -> None:
    """Gives the calling thread, and what it begins from now on, this priority. An audio server's thread keeps its own."""
    with contextlib.suppress(OSError, AttributeError):
        if os.sched_getscheduler(0) != os.SCHED_FIFO:
            _schedule(0, priority)


def clear_realtime() -> None:
    """Takes the priority away from the calling thread, and from what it begins from now on."""
    _schedule(0, 0)


def fine_timing() -> None:
    """Windows wakes who waits on a lock only every 15.6 ms, unless a program asks for better."""
    if sys.platform == "win32":
        ctypes.windll.winmm.timeBeginPeriod(1)


class Budget:
    """Real-time priority for every thread of this process, as long as it leaves some of a core's time to others. Linux stops all
    real-time threads of a core, an audio server's as well, for a twentieth of a second if they take nearly all of a second.
    """

    def __init__(self, priority: int) -> None:
        self._priority, self._hurried = priority, True
        self._since, self._used = time.monotonic(), time.process_time()
        self._apply()

    def check(self) -> None:
        """To be called often, after each piece of work."""
        now, used = time.monotonic(), time.process_time()
        if now - self._since > WINDOW:
            hurried = used - self._used < MOST * (now - self._since)
            changed = hurried != self._hurried
            self._since, self._used, self._hurried = now, used, hurried
            if changed:
                self._apply()

    def _apply(self) -> None:
        if THREADS.is_dir():
            for thread in THREADS.iterdir():
                _schedule(int(thread.name), self._priority if self._hurried else 0)


def _schedule(thread: int, priority: int) -> None:
    """0: none."""
    with contextlib.suppress(OSError, AttributeError):  # not permitted, the thread has ended, not this system
        os.sched_setscheduler(thread, os.SCHED_RR if priority else os.SCHED_OTHER, os.sched_param(priority))
