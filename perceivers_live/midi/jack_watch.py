"""A JACK client that reports events that rtmidi does not: the end of the server, ports that disappear (even briefly), and
connections that other programs make or cut.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import threading
from collections import deque
from pathlib import Path
from typing import NamedTuple

from engine.realtime import DAEMON, set_realtime

MAPS = Path("/proc/self/maps")
NO_START_SERVER = 1  # option of jack_client_open
_Shutdown = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Registered = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
_Connected = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
MAX_CHANGES = 1024  # kept until ``changes`` is called


def silence_libraries() -> None:
    """Keeps JACK's libraries (the system's and rtmidi's own copy) from writing to stderr at every attempt to reach a server that
    does not run. Linux only.
    """
    if not MAPS.exists():
        return
    loaded = {line.split(maxsplit=5)[-1] for line in MAPS.read_text().splitlines() if "/libjack" in line}
    # ``strlen`` takes a string and has no effect. It is a C function because JACK's threads call it.
    harmless = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p)
    for name in sorted({*loaded, "libjack.so.0"}):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(name)
            for set_callback in (library.jack_set_error_function, library.jack_set_info_function):
                set_callback.argtypes = (ctypes.c_void_p,)
                set_callback(harmless)


class ConnectionChange(NamedTuple):
    """A connection between two ports (full names) that was made or cut."""

    source: str
    destination: str
    made: bool


class Refused(OSError):
    """The server accepts no client now."""


class JackWatch:
    """``dead`` is true once the server has shut down. Raises ``OSError`` without JACK's library, and ``Refused``."""

    def __init__(self, name: str) -> None:
        library = self._library = ctypes.CDLL(ctypes.util.find_library("jack") or "libjack.so.0")
        pointer = ctypes.c_void_p
        library.jack_client_open.restype, library.jack_port_by_id.restype = pointer, pointer
        library.jack_port_name.restype = ctypes.c_char_p
        library.jack_client_open.argtypes = (ctypes.c_char_p, ctypes.c_int, pointer)
        library.jack_on_shutdown.argtypes = (pointer, _Shutdown, pointer)
        library.jack_set_port_registration_callback.argtypes = (pointer, _Registered, pointer)
        library.jack_set_port_connect_callback.argtypes = (pointer, _Connected, pointer)
        library.jack_port_by_id.argtypes = (pointer, ctypes.c_uint32)
        library.jack_get_buffer_size.restype = library.jack_get_sample_rate.restype = ctypes.c_uint32
        for function in (
            library.jack_get_buffer_size,
            library.jack_get_sample_rate,
            library.jack_activate,
            library.jack_client_close,
            library.jack_port_name,
        ):
            function.argtypes = (pointer,)
        self._client: int | None = library.jack_client_open(name.encode(), NO_START_SERVER, None)
        if not self._client:
            raise Refused("no JACK server answers")
        self._dead = threading.Event()
        self._gone: set[str] = set()
        self._changes: deque[ConnectionChange] = deque(maxlen=MAX_CHANGES)
        self._callbacks = (  # referenced here, since the C library does not keep them alive
            _Shutdown(lambda _: self._dead.set()),
            _Registered(self._registered),
            _Connected(self._connected),
        )
        library.jack_on_shutdown(self._client, self._callbacks[0], None)
        library.jack_set_port_registration_callback(self._client, self._callbacks[1], None)
        library.jack_set_port_connect_callback(self._client, self._callbacks[2], None)
        library.jack_activate(self._client)

    @property
    def period(self) -> float:
        """Length of the server's audio period in seconds; 0 once it has shut down."""
        client = self._client
        if not client or self.dead:
            return 0.0
        return float(self._library.jack_get_buffer_size(client) / self._library.jack_get_sample_rate(client))

    @property
    def dead(self) -> bool:
        return self._dead.is_set()

    def gone(self) -> set[str]:
        """The names of ports that disappeared since the last call; some may have come back."""
        gone, self._gone = self._gone, set()
        return gone

    def changes(self) -> list[ConnectionChange]:
        """Connections made and cut since the last call, in order."""
        return [self._changes.popleft() for _ in range(len(self._changes))]

    def is_ours(self, port: str) -> bool:
        """Whether a port belongs to a client of this process; True where the server cannot answer."""
        try:
            process = int(self._library.jack_get_client_pid(port.rpartition(":")[0].encode()))
        except AttributeError:  # JACK 1
            return True
        return process in (0, os.getpid())

    def close(self) -> None:
        client, self._client = self._client, None
        if client:
            self._library.jack_client_close(client)

    def _registered(self, number: int, comes: int, _: object) -> None:
        """On JACK's thread."""
        set_realtime(DAEMON)
        name = self._name(number) if not comes else None
        if name:
            self._gone.add(name)

    def _connected(self, source: int, destination: int, made: int, _: object) -> None:
        """On JACK's thread."""
        set_realtime(DAEMON)
        names = self._name(source), self._name(destination)
        if names[0] and names[1]:
            self._changes.append(ConnectionChange(names[0], names[1], bool(made)))

    def _name(self, number: int) -> str | None:
        client = self._client
        port = self._library.jack_port_by_id(client, number) if client else None
        name = self._library.jack_port_name(port) if port else None
        return name.decode(errors="replace") if name else None
