"""A private JACK server with the dummy driver. Needs jackd and its command-line tools (Debian: jackd2)."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.live.waiting import TIMEOUT

PROGRAMS = ("jackd", "jack_wait", "jack_lsp", "jack_connect", "pd")
_server_numbers = itertools.count(1)


def missing_programs() -> list[str]:
    """The required programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def end(process: subprocess.Popen[bytes], timeout: float = 5.0) -> int:
    """Terminates a process, kills it after the timeout, and returns its exit status."""
    process.terminate()
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class JackServer:
    """A JACK server with the dummy driver and a unique name; `with` starts and ends it. JACK has room for eight servers, and
    one may take too long to start on a busy machine: it is started again until `TIMEOUT`.
    """

    def __init__(self, period: int = 64) -> None:
        self.name = f"perceivers-{os.getpid()}-{next(_server_numbers)}"
        self.period = period
        self.realtime = True
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> JackServer:
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            stack.callback(self._end_cleanly)
            self._start_patiently(True, False)
            self._stack = stack.pop_all()
            return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def env(self) -> dict[str, str]:
        """The environment for this server's clients."""
        return os.environ | {"JACK_DEFAULT_SERVER": self.name, "JACK_NO_START_SERVER": "1", "JACK_NO_AUDIO_RESERVATION": "1"}

    def log(self) -> str:
        """What the running server has printed."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def ports(self) -> list[str]:
        """The full names of all ports."""
        return self._tool("jack_lsp").splitlines()

    def connect(self, source: str, destination: str) -> None:
        """Connects an output port to an input port, both by full name."""
        self._tool("jack_connect", source, destination)

    def disconnect(self, source: str, destination: str) -> None:
        """Disconnects an output port from an input port."""
        self._tool("jack_disconnect", source, destination)

    def wait_for_port(self, text: str, timeout: float = TIMEOUT) -> str:
        """Waits for a port whose name contains the text, and returns its full name."""
        deadline = time.monotonic() + timeout
        while not (found := [port for port in self.ports() if text in port]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no JACK port like {text!r} within {timeout} s; there are {self.ports()}")
            time.sleep(0.1)
        return found[0]

    def restart(self) -> None:
        """Kills the server and starts another one with the same name."""
        assert self.process is not None
        self.process.kill()
        self._stop()
        self._start_patiently(self.realtime)

    def _tool(self, *command: str) -> str:
        for attempts_left in (2, 1, 0):
            done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=TIMEOUT, check=False)
            if "cannot connect to JACK" not in done.stderr or not attempts_left:
                break
            time.sleep(0.3)  # a busy server may refuse a client
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _start_patiently(self, *realtime: bool) -> None:
        """Starts the server with one of these schedulings, again and again until `TIMEOUT`."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            for self.realtime in realtime:
                if self._start():
                    return
                self._stop()
            if time.monotonic() > deadline:
                raise RuntimeError(f"jackd did not start: {self.log()}")
            time.sleep(1.0)

    def _start(self) -> bool:
        scheduling = ["-R", "-P", "70"] if self.realtime else ["--no-realtime"]
        driver = ["-d", "dummy", "-r", "48000", "-p", str(self.period), "-C", "0", "-P", "0"]
        orphan = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []  # the server also ends if pytest is killed
        command = [*orphan, "jackd", "-n", self.name, *scheduling, "-S", *driver]
        self._log.seek(0)
        self._log.truncate()
        # A new session: Ctrl-C interrupts only pytest, which then ends the server.
        self.process = subprocess.Popen(command, env=self.env, stdout=self._log, stderr=self._log, start_new_session=True)
        wait = ["jack_wait", "-s", self.name, "-w", "-t", "10"]
        try:
            ready = subprocess.run(wait, env=self.env, capture_output=True, timeout=15, check=False).returncode == 0
        except subprocess.TimeoutExpired:  # it asks a server that hangs
            return False
        return ready and self.process.poll() is None and "Cannot use real-time" not in self.log()

    def _end_cleanly(self) -> None:
        """Ends the server. A killed server keeps one of the eight entries of JACK's registry until another server of the same
        name has ended cleanly; so one is started and ended.
        """
        if self._stop() != 0:
            self._start()
            self._stop()

    def _stop(self) -> int:
        status = end(self.process) if self.process is not None else 0
        for stale in Path("/dev/shm").glob(f"jack*{self.name}*"):
            with suppress(OSError):
                stale.unlink()
        return status
