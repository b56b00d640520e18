"""The near end's side of the pipes: a process that was started for us, frames to and from it, and a limit on every wait."""

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
from engine.remote.wire import Frame, FrameReader, WireError

log = logging.getLogger(__name__)
READ_BYTES = 1 << 16  # at once; a larger buffer would be asked of the system and given back each time
SLOWEST = 100_000  # bytes a second: what a line has to carry for its frames to be waited for
KILLED = 2.0  # seconds that a killed process has to end; one that is stuck in a driver does not
ENDING = 0.2  # seconds between closing its output and its end
LAST_WORDS = 0.5  # seconds that a process which has ended has to say why
LONGEST_LINE = 1000  # characters of a log line
LINES = 20  # of standard error that are remembered
_LOGGED = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]{1,80}: (.*)")  # see ``protocol.LOG_FORMAT``


class RuntimeLost(UserError, RuntimeError):
    """The process that computes does not answer in time, answers what makes no sense, or has died."""


class Link:
    """A process and its pipes. ``name``: what to call it in messages. One thread may use it at a time.

    Raises ``OSError`` if there is no such program.
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
            start_new_session=True,  # not to be ended with the terminal, nor to ask anything there
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # which on Windows is the console
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        pipes.prepare(self._in, self._out)
        self._reader = FrameReader()
        self._over = False  # nothing is sent or received any more
        self.said: deque[str] = deque(maxlen=LINES)  # the last lines on standard error that are not of its log
        self._listener = threading.Thread(target=self._listen, name=f"{name} log", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return not self._over and self._process.poll() is None

    def send(self, frame: bytes, patience: float) -> None:
        """Writes a frame. Raises ``RuntimeLost`` if nothing of it is taken for ``patience`` seconds, or less
        than ``SLOWEST``."""
        longest = patience + len(frame) / SLOWEST
        stuck = threading.Timer(longest, self._process.kill) if pipes.WRITING_BLOCKS else None
        try:
            if stuck is not None:
                stuck.start()
            if not self._over:
                pipes.write(self._in, frame, patience, time.monotonic() + longest)
                return
        except TimeoutError:
            self._lost(f"{self._name} has not taken what was sent for {patience:g} s")
        except OSError:
            pass
        finally:
            if stuck is not None:
                stuck.cancel()
        self._lost(f"{self._name} has died")

    def receive(self, limit: Callable[[int], int], patience: float) -> Frame:
        """The next frame; ``limit`` as for ``FrameReader.next``. Raises ``RuntimeLost`` if there is none in time."""
        end = time.monotonic() + patience
        try:
            while (frame := self._reader.next(limit)) is None:
                if self._over:
                    self._lost(f"{self._name} has died")
                if not pipes.readable(self._out, min(patience, end - time.monotonic())):
                    self._lost(f"{self._name} has not answered for {patience:g} s")
                data = os.read(self._out, READ_BYTES)
                if not data:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(ENDING)  # so that its status is its own
                    self._lost(f"{self._name} has died")
                end += len(data) / SLOWEST
                self._reader.feed(data)
        except WireError as error:
            self._lost(f"{self._name} answers what makes no sense: {error}")
        except OSError:
            self._lost(f"{self._name} has died")
        return frame

    def last_words(self) -> tuple[int | None, list[str]]:
        """Of a process that has ended: its status (None: not known) and the last lines that it wrote."""
        self._listener.join(LAST_WORDS)
        return self._process.returncode, list(self.said)

    def close(self, patience: float = 0.0) -> None:
        """Asks it to end by closing its input, by force if it takes longer. One that does not end even so is left to itself."""
        if not self._over:
            self._hang_up()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self.kill()
        try:
            self._process.wait(KILLED)
        except subprocess.TimeoutExpired:
            log.warning("process %d cannot be ended; it is left to the system", self.pid)

    def kill(self) -> None:
        """Ends it by force, without waiting for that."""
        if self._over:
            return
        self._over = True
        self._process.kill()
        self._hang_up()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _lost(self, reason: str) -> NoReturn:
        self.kill()
        raise RuntimeLost(reason)

    def _listen(self) -> None:
        """The log's thread: what the process writes to standard error."""
        stream = self._process.stderr
        assert stream is not None
        with stream:
            while line := stream.readline(LONGEST_LINE):
                text = line.decode(errors="replace").rstrip()
                if logged := _LOGGED.fullmatch(text):
                    log.log(getattr(logging, logged[1]), "%s", logged[2])
                elif text:
                    log.debug("%s: %s", self._name, text)
                    self.said.append(text)
        self._process.wait()
