"""The echo guard: one bus used both ways, or a loop somewhere in the cabling, brings back what we sent. It must not be taken for
the human's playing, and must not be passed on for ever.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

log = logging.getLogger(__name__)

WINDOW = 0.1  # seconds in which an echo comes back
MOST = 512  # messages that are waited for
TELLING = 4  # messages in a row that came back are no coincidence


class EchoGuard:
    """Told of every message that is sent, it recognises the same bytes when they come in soon after. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[tuple[float, tuple[int, ...]]] = deque(maxlen=MOST)  # what has not come back
        self.echoes = 0  # that were ignored
        self._returned = 0  # messages that came back since one did not
        self._warned = False

    def sent(self, now: float, message: Sequence[int]) -> None:
        with self._lock:
            self._sent.append((now, tuple(message)))

    def is_echo(self, now: float, message: Sequence[int], *, doubtful: bool = False) -> bool:
        """Whether this is one of ours coming back; each counts once. ``doubtful``: the human may well have sent the very same,
        so it is only taken for an echo if everything comes back.
        """
        with self._lock:
            while self._sent and self._sent[0][0] < now - WINDOW:
                self._sent.popleft()
                self._returned = 0
            ours = next((one for one in self._sent if one[1] == tuple(message)), None)
            if ours is None:
                return False
            self._sent.remove(ours)
            self._returned += 1
            certain = self._returned >= TELLING
            warn, self._warned = certain and not self._warned, certain or self._warned
            ignored = certain or not doubtful
            self.echoes += ignored
        if warn:
            log.warning("the output comes back on the input: its echoes are ignored")
        return ignored
