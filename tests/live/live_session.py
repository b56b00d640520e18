"""A daemon connected to a keyboard, a synthesizer and an OSC client. Most live tests use it."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

from tests.free_port import free_port
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.remote import Remote
from tests.live.waiting import TIMEOUT

SETTINGS = """
[page]
port = 0

[phrase]
min_silence_ms = 250
max_silence_ms = 700
"""
QUIET = 0.7  # seconds of silence after which the machine counts as silent


class LiveSession:
    """The constructor returns when the daemon listens. ``settings``: additional text of the settings file."""

    def __init__(self, jack: JackServer, home: Home, name: str, arguments: tuple[str, ...], settings: str) -> None:
        home.configure(SETTINGS + settings)
        self.osc_port = port = free_port()
        with ExitStack() as opened:
            self.peer = Peer(jack, name)
            opened.callback(self.peer.close)
            ports = ("--in", self.peer.keys, "--out", self.peer.synth, "--osc-port", str(port))
            self.daemon = Daemon((*ports, "--seed", "3", *arguments), jack.env, home)
            opened.callback(self.daemon.end)
            self.daemon.wait_for_line("listening;", TIMEOUT)
            self.remote = Remote(port)
            opened.callback(self.remote.close)
            self._opened = opened.pop_all()
        self._closed = False

    def wait_for_state(self, state: str, since: int = 0) -> None:
        """Waits until the newest reported state is ``state``, ignoring the first ``since`` reports."""
        self.peer.until(lambda: self.remote.states[since:][-1:] == [state])

    def wait_for_notes(self, count: int = 1) -> None:
        """Waits for ``count`` further notes of the machine."""
        before = self.peer.struck
        self.peer.until(lambda: self.peer.struck >= before + count)

    def wait_for_silence(self) -> None:
        """Waits until nothing sounds, and checks that nothing sounds for ``QUIET`` seconds."""
        self.peer.until(lambda: not self.peer.sounding)
        before = self.peer.struck
        time.sleep(QUIET)
        assert self.peer.struck == before
        assert not self.peer.sounding

    def close(self) -> None:
        """Ends the daemon with SIGTERM; checks its exit status and that no note hangs."""
        if self._closed:
            return
        self._closed = True
        with self._opened:
            self.daemon.signal(signal.SIGTERM)
            assert self.daemon.wait() == 0, "\n".join([*self.daemon.lines, f"status {self.daemon.process.returncode}"])
            self.peer.until(lambda: not self.peer.sounding)
