"""Fixtures of the live tests: a JACK server for each module, Pure Data, and the daemon as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from jack_server import JackServer, end, missing_programs
from pure_data import PureData

HERE = Path(__file__).parent
REQUIRED = os.environ.get("PERCEIVERS_LIVE_REQUIRE_JACK") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the live tests where their programs are missing; where they are required, the tests run, and fail."""
    missing = missing_programs()
    if missing and not REQUIRED:
        reason = f"live tests need {', '.join(missing)} (Debian: jackd2, puredata-core)"
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


class Daemon:
    """`perceivers-live` as a process under a JACK server, with what it says on stderr."""

    def __init__(self, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        program = Path(sys.executable).with_name("perceivers-live")
        self.process = subprocess.Popen(
            [str(program), *arguments], env=env | {"PYTHONUNBUFFERED": "1"}, stderr=subprocess.PIPE, start_new_session=True
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="daemon-stderr", daemon=True)
        self._reader.start()

    @property
    def lines(self) -> list[str]:
        """The lines so far."""
        with self._changed:
            return list(self._lines)

    def wait_for_line(self, regex: str, timeout: float = 30.0, start: int = 0) -> re.Match[str]:
        """Waits for a line that matches somewhere, from line number `start` on, and returns the match."""
        found: list[re.Match[str]] = []

        def settled() -> bool:
            found.extend(match for line in self._lines[start:] if (match := re.search(regex, line)))
            return bool(found) or self._ended

        with self._changed:
            in_time = self._changed.wait_for(settled, timeout)
        if not found:
            why = f"within {timeout} s" if not in_time else "before the daemon ended"
            raise AssertionError(f"no line like {regex!r} {why}; it said:\n" + "\n".join(self.lines))
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the daemon."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 10.0) -> int:
        """Waits for the daemon to end, and returns its exit status."""
        status = self.process.wait(timeout)
        self._reader.join(timeout)
        return status

    def end(self) -> None:
        """Ends the daemon if it still runs: by force only if it must be, since a killed client can wedge the server."""
        end(self.process)
        self._reader.join(5)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                with self._changed:
                    self._lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@pytest.fixture(scope="module")
def jack() -> Iterator[JackServer]:
    """A JACK server for the module's tests, and the default one for the clients of this process."""
    with JackServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER", "JACK_NO_AUDIO_RESERVATION"):
            monkeypatch.setenv(name, server.env[name])
        yield server


@pytest.fixture
def pure_data(jack: JackServer) -> Iterator[PureData]:
    """Pure Data under the module's JACK server, with nothing connected yet."""
    with PureData() as pure_data:
        yield pure_data


@pytest.fixture
def daemon(jack: JackServer) -> Iterator[Callable[..., Daemon]]:
    """Starts `perceivers-live` with the given arguments; whatever still runs at the test's end is ended."""
    with ExitStack() as stack:

        def start(*arguments: str) -> Daemon:
            started = Daemon(arguments, jack.env)
            stack.callback(started.end)
            return started

        yield start
