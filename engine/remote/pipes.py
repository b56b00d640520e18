"""Reading and writing pipes with a limit on the wait, which every system does in a way of its own."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time

PIPE_BYTES = 1 << 20  # that a pipe holds, where it can be asked to
WRITING_BLOCKS = sys.platform == "win32"  # whatever the limit: whoever writes has to see to it that the reader ends

if sys.platform == "win32":
    import _winapi
    import msvcrt

    from engine.realtime import fine_timing

    def prepare(sink: int, source: int) -> None:
        """To be called once for the two pipes to a process."""
        fine_timing()

    def readable(source: int, patience: float) -> bool:
        """Windows cannot wait for a pipe with a limit: it is looked at every millisecond."""
        end = time.monotonic() + patience
        while not _winapi.PeekNamedPipe(msvcrt.get_osfhandle(source), 0)[0]:
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def write(sink: int, frame: bytes, patience: float, end: float) -> None:
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
                with contextlib.suppress(OSError):  # the user's share of such memory is used up
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def readable(source: int, patience: float) -> bool:
        """Whether there is something to read, or the other end is closed, within ``patience`` seconds."""
        waiting = select.poll()
        waiting.register(source, select.POLLIN)
        return bool(waiting.poll(max(0.0, patience) * 1000))

    def write(sink: int, frame: bytes, patience: float, end: float) -> None:
        """Raises ``TimeoutError`` if the pipe takes nothing for ``patience`` seconds, or not all of it by ``end`` (monotonic)."""
        left = memoryview(frame)
        while left:
            try:
                left = left[os.write(sink, left) :]
            except BlockingIOError:
                full = select.poll()
                full.register(sink, select.POLLOUT)
                if not full.poll(max(0.0, min(patience, end - time.monotonic())) * 1000):
                    raise TimeoutError from None
