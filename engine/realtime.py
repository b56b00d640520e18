"""Real-time thread priorities, where the system permits them (on Linux: ``ulimit -r``, which audio groups raise).

Only the order matters; all are below an audio server's. The MIDI input and the player sleep most of the time and come first. All
other threads of the daemon come next: a thread that is preempted while it holds the interpreter lock delays the others. The model
computes for many milliseconds without a pause and comes last.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from pathlib import Path

DRIVER, PLAYER, DAEMON, MODEL = 6, 5, 3, 2  # real-time priorities, 1..99
THREADS = Path("/proc/self/task")
WINDOW = 0.25  # seconds over which CPU time is measured
MAX_SHARE = 0.75  # of one core's time in a window


def set_realtime(priority: int, thread: int = 0) -> None:
    """Gives this priority to a thread (system's number; 0: the calling one) and to threads that it starts later. A thread of an
    audio server keeps its own.
    """
    with contextlib.suppress(OSError, AttributeError):
        if os.sched_getscheduler(thread) != os.SCHED_FIFO:
            _schedule(thread, priority)


def set_all_realtime(priority: int) -> None:
    """Gives this priority to every thread of this process; only to the calling one if the system does not list them."""
    for thread in _threads() or [0]:
        set_realtime(priority, thread)


def clear_realtime() -> None:
    """Returns the calling thread, and threads that it starts later, to normal priority."""
    _schedule(0, 0)


def fine_timing() -> None:
    """Sets the timer resolution of Windows to 1 ms. By default waiting threads wake only every 15.6 ms."""
    if sys.platform == "win32":
        ctypes.windll.winmm.timeBeginPeriod(1)


class RealtimeBudget:
    """Real-time priority for all threads of this process while they use at most ``MAX_SHARE`` of one core. Linux stops all
    real-time threads of a core, also an audio server's, for 50 ms if they use more than 95 % of a second.
    """

    def __init__(self, priority: int) -> None:
        self._priority, self._realtime = priority, True
        self._since, self._used = time.monotonic(), time.process_time()
        self._apply()

    def check(self) -> None:
        """Measures CPU time once a window and changes the priority if necessary. Call it after each piece of work."""
        now, used = time.monotonic(), time.process_time()
        if now - self._since > WINDOW:
            realtime = used - self._used < MAX_SHARE * (now - self._since)
            changed = realtime != self._realtime
            self._since, self._used, self._realtime = now, used, realtime
            if changed:
                self._apply()

    def _apply(self) -> None:
        for thread in _threads():
            _schedule(thread, self._priority if self._realtime else 0)


def _threads() -> list[int]:
    """The threads of this process; empty where the system does not list them."""
    return [int(thread.name) for thread in THREADS.iterdir()] if THREADS.is_dir() else []


def _schedule(thread: int, priority: int) -> None:
    """Sets the priority of a thread; 0: normal, not real-time."""
    with contextlib.suppress(OSError, AttributeError):  # no permission; the thread has ended; not on this system
        os.sched_setscheduler(thread, os.SCHED_RR if priority else os.SCHED_OTHER, os.sched_param(priority))
