"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 30.0  # seconds; only what never comes takes so long


def until(condition: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    """Returns once the condition holds. ``what``: asked for what there is instead, should it never come."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came; {what()}"
        time.sleep(0.005)
