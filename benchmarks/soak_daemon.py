"""The daemon with a log of the MIDI messages at its ports: python -m benchmarks.soak_daemon LOG [OPTIONS]

`benchmarks/soak.py` starts it. Each message is written to LOG immediately, because the process may be killed. A line has
the monotonic time in seconds; ``in`` (delivered by the driver) or ``out`` (accepted by the driver); and the bytes in hexadecimal.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from engine.midi import MessageListener
from perceivers_live.cli import main
from perceivers_live.midi import connections
from perceivers_live.midi.ports import InputPort, OutputPort, Probe

_log = -1  # file descriptor


def _write(direction: str, now: float, message: Sequence[int]) -> None:
    os.write(_log, f"{now:.6f} {direction} {bytes(message[:3]).hex(' ')}\n".encode())


class LoggedInput(InputPort):
    """Logs each message before it is processed."""

    def __init__(self, wanted: str, on_message: MessageListener, probe: Probe | None = None) -> None:
        def logged(now: float, message: Sequence[int]) -> None:
            _write("in", now, message)
            on_message(now, message)

        super().__init__(wanted, logged, probe)


class LoggedOutput(OutputPort):
    """Logs each message after it is sent."""

    def send(self, message: Sequence[int]) -> None:
        super().send(message)
        _write("out", time.perf_counter(), message)


if __name__ == "__main__":
    _log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    connections.InputPort = LoggedInput  # type: ignore[attr-defined]
    connections.OutputPort = LoggedOutput  # type: ignore[attr-defined]
    main()
