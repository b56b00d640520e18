"""Waits for conditions that other processes fulfil."""

from __future__ import annotations

import time
from collections.abc import Callable

TIMEOUT = 120.0  # seconds; only a failure takes so long, also on a machine that is far too busy


def until(condition: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    """Waits until the condition is true; fails after ``TIMEOUT``. ``what`` is called for the details in the failure message."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"condition not met within {TIMEOUT} s; {what()}"
        time.sleep(0.005)
