"""The page as a MIDI input and output, in place of ports of a MIDI system.

What is played on a page carries the page's own time stamp, in the daemon's clock, so that the way through browser and network
does not enter the music. What is sent to the output "page" carries its time as well; the page sounds it a constant moment later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Sequence

from engine.midi import MessageReader, message_of
from perceivers_live.page.hub import Hub
from perceivers_live.page.protocol import seconds

PAGE = "page"  # the name of the port
EARLIEST = 0.25  # seconds; a stamp that is older comes from a page whose clock is wrong
MessageListener = Callable[[float, Sequence[int]], None]


class PageKeys:
    """The input. Messages of several pages reach ``on_message`` one at a time, in an order in which time does not run backwards.

    A page that goes away lets go of the keys that it holds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on_message: MessageListener | None = None
        self._held: dict[tuple[object, int], MessageReader] = {}  # of each page on each channel
        self._last = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether the session listens to the pages."""
        return self._on_message is not None

    def open(self, on_message: MessageListener) -> None:
        """From now on what is played on a page goes to ``on_message``, on the page's thread."""
        with self._lock:
            self._on_message = on_message

    def close(self) -> None:
        """Nothing is heard any more, and no key is held."""
        with self._lock:
            self._on_message = None
            self._held.clear()

    def play(self, page: object, at: float, message: Sequence[int]) -> bool:
        """A message played on ``page`` at a time on our clock; False if the session listens to other ports."""
        with self._lock:
            if self._on_message is None:
                return False
            now = time.perf_counter()
            self._last = max(self._last, min(max(at, now - EARLIEST), now))
            self._held.setdefault((page, message[0] & 0x0F), MessageReader()).feed(self._last, message)
            self._on_message(self._last, message)
            return True

    def gone(self, page: object) -> None:
        """The page has gone away."""
        with self._lock:
            self._last = max(self._last, time.perf_counter())
            for key in [key for key in self._held if key[0] == page]:
                for one in self._held.pop(key).close(self._last):
                    if self._on_message is not None:
                        self._on_message(self._last, message_of(one.action, one.velocity, key[1]))


class PageSound:
    """The output: sounds on every page that has its sound switched on."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def send(self, message: Sequence[int]) -> None:
        """One raw message. Never waits, never raises."""
        if self._hub.is_watched:
            now, kept = time.perf_counter(), tuple(message)
            self._hub.tell(lambda: {"type": "sound", "time": seconds(now), "message": kept})


class PagePorts:
    """The page among the ports that can be chosen."""

    name = PAGE

    def __init__(self, keys: PageKeys, sound: PageSound) -> None:
        self._keys, self._sound = keys, sound

    def open_input(self, on_message: MessageListener) -> _Port:
        """The pages' keys, which go to ``on_message`` from now on."""
        self._keys.open(on_message)
        return _Port(self._keys.close, self._sound.send)

    def open_output(self) -> _Port:
        """The pages' sound."""
        return _Port(lambda: None, self._sound.send)


class _Port:
    name = PAGE

    def __init__(self, close: Callable[[], None], send: Callable[[Sequence[int]], None]) -> None:
        self.close, self.send = close, send

    def is_gone(self, names: Sequence[str], gone: Container[str] = ()) -> bool:
        return False
