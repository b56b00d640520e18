"""The echo guard: one bus used both ways, or a loop somewhere in the cabling, brings back what we sent. It must not be taken for
the human's playing, and must not be passed on for ever.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Sequence

log = logging.getLogger(__name__)

WINDOW = 0.1  # seconds in which an echo comes back
MOST = 512  # messages that are waited for
TELLING = 4  # echoes that are no coincidence


class EchoGuard:
    """Told of every message that is sent, it recognises the same bytes when they come in soon after. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[tuple[float, tuple[int, ...]]] = deque(maxlen=MOST)
        self._open: Counter[tuple[int, ...]] = Counter()  # how often each message has been sent and has not come back
        self.echoes = 0

    def sent(self, now: float, message: Sequence[int]) -> None:
        with self._lock:
            if len(self._sent) == MOST:
                self._forget(self._sent.popleft()[1])
            self._sent.append((now, tuple(message)))
            self._open[tuple(message)] += 1

    def is_echo(self, now: float, message: Sequence[int]) -> bool:
        """Whether this is one of ours coming back; each counts once."""
        key = tuple(message)
        with self._lock:
            while self._sent and self._sent[0][0] < now - WINDOW:
                self._forget(self._sent.popleft()[1])
            if not self._open[key]:
                del self._open[key]
                return False
            self._forget(key)
            self.echoes += 1
            told = self.echoes == TELLING
        if told:
            log.warning("the output comes back on the input: its echoes are ignored")
        return True

    def _forget(self, key: tuple[int, ...]) -> None:
        if self._open[key] > 1:
            self._open[key] -= 1
        else:
            del self._open[key]
