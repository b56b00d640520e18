"""Reading and writing pipes with a timeout, on POSIX and on Windows."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time

PIPE_BYTES = 1 << 20  # capacity of a pipe, where the system lets us set it
WRITE_BLOCKS = sys.platform == "win32"  # writes ignore the timeout: the writer must kill a reader that hangs

if sys.platform == "win32":
    import _winapi
    import msvcrt

    from engine.realtime import fine_timing

    def prepare(sink: int, source: int) -> None:
        """To be called once for the two pipes to a process."""
        fine_timing()

    def readable(source: int, timeout: float) -> bool:
        """Polls every millisecond: Windows cannot wait for a pipe with a timeout."""
        end = time.monotonic() + timeout
        while not _winapi.PeekNamedPipe(msvcrt.get_osfhandle(source), 0)[0]:
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def write(sink: int, frame: bytes, timeout: float, end: float) -> None:
        left = memoryview(frame)
        while left:
            left = left[os.write(sink, left) :]

else:
    import fcntl

    def prepare(sink: int, source: int) -> None:
        """To be called once for the two pipes to a process."""
        os.set_blocking(sink, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            for pipe in (sink, source):
                with contextlib.suppress(OSError):  # the user's limit of pipe memory is reached
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def readable(source: int, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds; whether there is data to read or the other end is closed."""
        waiting = select.poll()
        waiting.register(source, select.POLLIN)
        return bool(waiting.poll(max(0.0, timeout) * 1000))

    def write(sink: int, frame: bytes, timeout: float, end: float) -> None:
        """Writes all of ``frame``. Raises ``TimeoutError`` if the pipe accepts nothing for ``timeout`` seconds, or after ``end``
        (monotonic).
        """
        left = memoryview(frame)
        while left:
            try:
                left = left[os.write(sink, left) :]
            except BlockingIOError:
                full = select.poll()
                full.register(sink, select.POLLOUT)
                if not full.poll(max(0.0, min(timeout, end - time.monotonic())) * 1000):
                    raise TimeoutError from None
