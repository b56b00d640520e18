"""Outlives a daemon that is killed, and releases what it left sounding: python -m perceivers_live.midi.watchdog PORT

The daemon holds the other end of our standard input, and writes a byte there for each channel that it sends on. When that closes
without a farewell it has died, and no handler of its own can have run: every key of these channels is released on the same output
port. A virtual port dies with its owner and cannot be reached again; whoever listened there is told by the MIDI system.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress

from engine.midi import releases

FAREWELL = b"."
PAUSE = 0.01  # seconds between two channels: a driver's buffer is not large
LINGER = 0.3  # seconds that the last messages are given to leave


class Watchdog:
    """The daemon's side: a process that watches until ``close``."""

    def __init__(self, port: str) -> None:
        """``port`` is the output's whole name, or what else finds it."""
        command = [sys.executable, "-m", "perceivers_live.midi.watchdog", port]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # not to be ended with the terminal,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # which on Windows is the console
        )

    def watch(self, channel: int) -> None:
        """Something is sent on this channel, 0..15, from now on."""
        with suppress(OSError, ValueError):  # it has been killed, or is being closed
            assert self._process.stdin is not None
            self._process.stdin.write(bytes([channel]))
            self._process.stdin.flush()

    def close(self) -> None:
        """All is well: it need not do anything."""
        try:
            self._process.communicate(FAREWELL, timeout=1.0)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


def main() -> None:
    for number in ("SIGINT", "SIGTERM", "SIGHUP"):  # what ends the daemon in good order is no business of ours
        if hasattr(signal, number):
            signal.signal(getattr(signal, number), signal.SIG_IGN)
    channels = sys.stdin.buffer.read()
    if FAREWELL in channels:
        return
    from perceivers_live.midi.ports import OutputPort

    output = OutputPort(sys.argv[1])
    for channel in channels:
        for message in releases(channel):
            output.send(message)
        time.sleep(PAUSE)
    time.sleep(LINGER)


if __name__ == "__main__":
    main()
