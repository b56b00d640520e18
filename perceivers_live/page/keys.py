"""The page as a MIDI input and output, in place of ports of a MIDI system.

Messages played on a page carry the page's timestamp (converted to the daemon's clock), so that delays of browser and network do
not affect the timing. Messages to the output "page" carry their time too; the page plays them after a constant delay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Sequence

from engine.midi import MessageListener
from engine.midi_state import MidiState, is_channel_mode
from perceivers_live.controls.settings import PAGE
from perceivers_live.page.hub import Hub
from perceivers_live.page.protocol import seconds

EARLIEST = 0.25  # seconds; an older timestamp comes from a page with a wrong clock


class PageKeys:
    """The input "page". Messages of all pages reach ``on_message`` one at a time, with timestamps that never decrease.

    If a page disconnects, the keys, pedals and wheels that it holds are released.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on_message: MessageListener | None = None
        self._held: dict[object, MidiState] = {}  # by page
        self._last = float("-inf")

    def open(self, on_message: MessageListener) -> None:
        """Starts passing messages of the pages to ``on_message``, on the page's thread."""
        with self._lock:
            self._on_message = on_message

    def close(self) -> None:
        """Stops passing messages and forgets held keys."""
        with self._lock:
            self._on_message = None
            self._held.clear()

    def play(self, page: object, at: float, message: Sequence[int]) -> bool:
        """Passes on a message played on ``page`` at time ``at`` (our clock); False if the input is not open."""
        with self._lock:
            if self._on_message is None:
                return False
            now = time.perf_counter()
            self._last = max(self._last, min(max(at, now - EARLIEST), now))
            state = self._held.setdefault(page, MidiState())
            for one in state.releases_after(message) if is_channel_mode(message) else [message]:
                state.apply(one)
            self._on_message(self._last, message)
            return True

    def gone(self, page: object) -> None:
        """Releases what a page holds that disconnected."""
        with self._lock:
            self._last = max(self._last, time.perf_counter())
            for message in self._held.pop(page, MidiState()).rest_messages():
                if self._on_message is not None:
                    self._on_message(self._last, message)


class PageSound:
    """The output "page": sounds on every page whose sound is switched on."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def send(self, message: Sequence[int]) -> None:
        """Sends one raw message. Never blocks or raises."""
        if self._hub.is_watched:
            now, kept = time.perf_counter(), tuple(message)
            self._hub.post(lambda: {"type": "sound", "time": seconds(now), "message": kept})


class PagePorts:
    """The page as a pair of ports that can be chosen."""

    name = PAGE

    def __init__(self, keys: PageKeys, sound: PageSound) -> None:
        self._keys, self._sound = keys, sound

    def open_input(self, on_message: MessageListener) -> _Port:
        """Opens the input: messages of the pages go to ``on_message``."""
        self._keys.open(on_message)
        return _Port(self._keys.close, self._sound.send)

    def open_output(self) -> _Port:
        """Opens the output."""
        return _Port(lambda: None, self._sound.send)


class _Port:
    name = PAGE

    def __init__(self, close: Callable[[], None], send: Callable[[Sequence[int]], None]) -> None:
        self.close, self.send = close, send

    def is_gone(self, names: Sequence[str], gone: Container[str] = ()) -> bool:
        return False
