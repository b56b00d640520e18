"""Outlives a daemon that is killed, and releases what it left sounding: python -m perceivers_live.watchdog PORT CHANNEL

The daemon holds the other end of our standard input. When that closes without a farewell it has died, and no handler of its own
can have run: every key of its channel is released on the same output port. A virtual port dies with its owner, and so cannot be
reached again; whoever listened there is told by the MIDI system that it is gone.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from engine.events import NOTE_OFF, PITCHES
from engine.midi import ALL_NOTES_OFF, RESET_CONTROLLERS, SUSTAIN, message_of

log = logging.getLogger(__name__)
FAREWELL = b"."
LINGER = 0.3  # seconds that the last messages are given to leave


class Watchdog:
    """The daemon's side: a process that watches until ``close``."""

    def __init__(self, port: str, channel: int) -> None:
        """``port`` is the output's whole name, ``channel`` is 0..15."""
        command = [sys.executable, "-m", "perceivers_live.watchdog", port, str(channel)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def close(self) -> None:
        """All is well: it need not do anything."""
        try:
            self._process.communicate(FAREWELL, timeout=1.0)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


def releases(channel: int) -> list[Sequence[int]]:
    """What silences a channel whatever sounds on it: raw messages."""
    controllers = [(0xB0 | channel, number, 0) for number in (SUSTAIN, ALL_NOTES_OFF, RESET_CONTROLLERS)]
    return [controllers[0], *(message_of(NOTE_OFF + pitch, 0, channel) for pitch in range(PITCHES)), *controllers[1:]]


def main() -> None:
    for number in ("SIGINT", "SIGTERM", "SIGHUP"):  # what ends the daemon in good order is no business of ours
        if hasattr(signal, number):
            signal.signal(getattr(signal, number), signal.SIG_IGN)
    port, channel = sys.argv[1], int(sys.argv[2])
    if sys.stdin.buffer.read().endswith(FAREWELL):
        return
    from perceivers_live.ports import OutputPort

    output = OutputPort(port)
    for message in releases(channel):
        output.send(message)
    time.sleep(LINGER)


if __name__ == "__main__":
    main()
