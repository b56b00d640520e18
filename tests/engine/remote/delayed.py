"""A connection with delay between a client and a server: python -m tests.engine.remote.delayed SECONDS COMMAND...

Starts the command and forwards its standard input and output, each ``SECONDS`` late.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from queue import SimpleQueue


def forward(source: int, sink: int, delay: float) -> None:
    """Starts threads that copy ``source`` to ``sink``, ``delay`` seconds late."""
    pieces: SimpleQueue[tuple[float, bytes]] = SimpleQueue()

    def read() -> None:
        while data := os.read(source, 65536):
            pieces.put((time.monotonic() + delay, data))
        pieces.put((0.0, b""))

    def write() -> None:
        while data := (piece := pieces.get())[1]:
            time.sleep(max(0.0, piece[0] - time.monotonic()))
            while data:
                data = data[os.write(sink, data) :]
        os.close(sink)

    for task in (read, write):
        threading.Thread(target=task, daemon=True).start()


def main() -> None:
    delay, command = float(sys.argv[1]), sys.argv[2:]
    process = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    forward(0, process.stdin.fileno(), delay)
    forward(process.stdout.fileno(), 1, delay)
    sys.exit(process.wait())


if __name__ == "__main__":
    main()
