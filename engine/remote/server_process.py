"""The client's side: starts the server process and exchanges frames with it, with a timeout on every operation."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from engine.errors import UserError
from engine.remote import pipes
from engine.remote.wire import READ_BYTES, Frame, FrameReader, WireError

log = logging.getLogger(__name__)
MIN_RATE = 100_000  # bytes a second; a timeout grows with a frame's length at this rate
KILL_TIMEOUT = 2.0  # seconds until a killed process must have ended; one that is stuck in a driver does not end
EXIT_TIMEOUT = 0.2  # seconds from the end of a process's output to its exit
STDERR_TIMEOUT = 0.5  # seconds to read the last error lines of a process that has ended
MAX_LINE = 1000  # bytes of a log line
MAX_LINES = 20  # newest lines of standard error that are kept
_LOGGED = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]{1,80}: (.*)")  # see ``protocol.LOG_FORMAT``


class RuntimeLost(UserError, RuntimeError):
    """The server has died, did not answer in time, or sent an invalid answer."""


class ServerProcess:
    """A server process and its pipes. ``name`` is for messages. Not thread-safe.

    Raises ``OSError`` if the program cannot be started.
    """

    def __init__(self, command: Sequence[str], name: str, env: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,  # no signals from our terminal, no prompts on it
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # the same on Windows
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        pipes.prepare(self._in, self._out)
        self._reader = FrameReader()
        self._closed = False
        self._error_lines: deque[str] = deque(maxlen=MAX_LINES)  # newest lines on standard error that are not log records
        self._stderr_thread = threading.Thread(target=self._read_stderr, name=f"{name} log", daemon=True)
        self._stderr_thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return not self._closed and self._process.poll() is None

    def send(self, frame: bytes, timeout: float) -> None:
        """Writes a frame. Raises ``RuntimeLost`` if the process reads nothing for ``timeout`` seconds, or reads more slowly than
        ``MIN_RATE``."""
        longest = timeout + len(frame) / MIN_RATE
        watchdog = threading.Timer(longest, self._process.kill) if pipes.WRITE_BLOCKS else None
        try:
            if watchdog is not None:
                watchdog.start()
            if not self._closed:
                pipes.write(self._in, frame, timeout, time.monotonic() + longest)
                return
        except TimeoutError:
            self._fail(f"{self._name} has not read its input for {timeout:g} s")
        except OSError:
            pass
        finally:
            if watchdog is not None:
                watchdog.cancel()
        self._fail(f"{self._name} has died")

    def receive(self, limit: Callable[[int], int], timeout: float) -> Frame:
        """The next frame; ``limit`` as for ``FrameReader.next``. Raises ``RuntimeLost`` after ``timeout`` seconds without one."""
        end = time.monotonic() + timeout
        try:
            while (frame := self._reader.next(limit)) is None:
                if self._closed:
                    self._fail(f"{self._name} has died")
                if not pipes.readable(self._out, min(timeout, end - time.monotonic())):
                    self._fail(f"{self._name} has not answered for {timeout:g} s")
                data = os.read(self._out, READ_BYTES)
                if not data:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(EXIT_TIMEOUT)  # so that the exit status is its own, not that of a kill
                    self._fail(f"{self._name} has died")
                end += len(data) / MIN_RATE
                self._reader.feed(data)
        except WireError as error:
            self._fail(f"{self._name} sent an invalid answer: {error}")
        except OSError:
            self._fail(f"{self._name} has died")
        return frame

    def exit_report(self) -> tuple[int | None, list[str]]:
        """Exit status of a process that has ended (None: not known) and its last lines on standard error."""
        self._stderr_thread.join(STDERR_TIMEOUT)
        return self._process.returncode, list(self._error_lines)

    def close(self, timeout: float = 0.0) -> None:
        """Closes the input of the process, waits ``timeout`` seconds for its exit, then kills it."""
        if not self._closed:
            self._close_input()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()
        try:
            self._process.wait(KILL_TIMEOUT)
        except subprocess.TimeoutExpired:
            log.warning("process %d cannot be killed; it keeps running", self.pid)

    def kill(self) -> None:
        """Kills the process without waiting for its exit."""
        if self._closed:
            return
        self._closed = True
        self._process.kill()
        self._close_input()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _fail(self, reason: str) -> NoReturn:
        self.kill()
        raise RuntimeLost(reason)

    def _read_stderr(self) -> None:
        """Thread: forwards log records from the standard error of the process to our log, and keeps other lines."""
        stream = self._process.stderr
        assert stream is not None
        with stream:
            while line := stream.readline(MAX_LINE):
                text = line.decode(errors="replace").rstrip()
                if logged := _LOGGED.fullmatch(text):
                    log.log(getattr(logging, logged[1]), "%s", logged[2])
                elif text:
                    log.debug("%s: %s", self._name, text)
                    self._error_lines.append(text)
        self._process.wait()
