"""Waiting for a condition. The timeout is reached only if the condition never becomes true."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 10.0  # seconds


def until(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Waits for the condition, at most ``patience`` seconds. Returns whether it is true."""
    deadline = time.monotonic() + patience
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return bool(condition())
