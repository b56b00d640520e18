"""A process that releases sounding notes if the daemon is killed: python -m perceivers_live.midi.watchdog PORT

The daemon writes one byte to the standard input of this process for each channel that it sends on. If that pipe closes without
``FAREWELL``, the daemon was killed and could not clean up: all keys of these channels are released on the same output port. A
virtual port ends with the daemon and cannot be opened again; there the MIDI system reports the disconnection.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress

from engine.midi import releases

FAREWELL = b"."
PAUSE = 0.01  # seconds between two channels, since a driver's buffer is small
LINGER = 0.3  # seconds to wait until the driver has sent the last messages


class Watchdog:
    """The daemon's side: starts the process, which watches until ``close``."""

    def __init__(self, port: str) -> None:
        """``port``: the full name of the output, or another text that finds it."""
        self._channels: set[int] = set()
        command = [sys.executable, "-m", "perceivers_live.midi.watchdog", port]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that closing the terminal does not end it,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # nor the console on Windows
        )

    def watch(self, channel: int) -> None:
        """Adds a channel (0..15) to those that are released if the daemon is killed."""
        if channel in self._channels:
            return
        self._channels.add(channel)
        with suppress(OSError, ValueError):  # the process was killed or is being closed
            assert self._process.stdin is not None
            self._process.stdin.write(bytes([channel]))
            self._process.stdin.flush()

    def close(self) -> None:
        """Ends the process without any release."""
        try:
            self._process.communicate(FAREWELL, timeout=1.0)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


def main() -> None:
    for number in ("SIGINT", "SIGTERM", "SIGHUP"):  # these end the daemon in an orderly way; only the pipe counts here
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
