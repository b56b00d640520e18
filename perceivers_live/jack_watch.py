"""Learns of a JACK server's death, which rtmidi does not tell: a client of our own that does nothing but listen for it."""

from __future__ import annotations

import ctypes
import ctypes.util
import threading

NO_START_SERVER = 1  # option of jack_client_open
_Shutdown = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Refused(OSError):
    """The server takes no client, now."""


class JackWatch:
    """``dead`` is true once the server has shut this client out. Raises ``OSError`` without JACK's library, ``Refused``."""

    def __init__(self, name: str) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("jack") or "libjack.so.0")
        self._library.jack_client_open.restype = ctypes.c_void_p
        self._library.jack_client_open.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)
        self._library.jack_on_shutdown.argtypes = (ctypes.c_void_p, _Shutdown, ctypes.c_void_p)
        for function in (self._library.jack_activate, self._library.jack_client_close):
            function.argtypes = (ctypes.c_void_p,)
        self._client: int | None = self._library.jack_client_open(name.encode(), NO_START_SERVER, None)
        if not self._client:
            raise Refused("no JACK server answers")
        self._dead = threading.Event()
        self._callback = _Shutdown(lambda _: self._dead.set())  # kept: C does not hold on to it
        self._library.jack_on_shutdown(self._client, self._callback, None)
        self._library.jack_activate(self._client)

    @property
    def dead(self) -> bool:
        return self._dead.is_set()

    def close(self) -> None:
        client, self._client = self._client, None
        if client:
            self._library.jack_client_close(client)
