"""Fixtures of the live tests: a JACK server per module, Pure Data, and the daemon as a process."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer, missing_programs
from tests.live.live_session import LiveSession
from tests.live.pure_data import PureData

HERE = Path(__file__).parent
REQUIRED = os.environ.get("PERCEIVERS_LIVE_REQUIRE_JACK") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the live tests if their programs are missing, unless JACK is required; then the tests fail."""
    missing = missing_programs()
    if missing and not REQUIRED:
        reason = f"live tests need {', '.join(missing)} (Debian: jackd2, puredata-core)"
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def jack() -> Iterator[JackServer]:
    """A JACK server for the module's tests; also the default server of clients in this process."""
    with JackServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER", "JACK_NO_AUDIO_RESERVATION"):
            monkeypatch.setenv(name, server.env[name])
        yield server


@pytest.fixture
def pure_data(jack: JackServer) -> Iterator[PureData]:
    """Pure Data on the module's JACK server, without connections."""
    with PureData() as pure_data:
        yield pure_data


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The user folders of the test's daemons."""
    return Home(tmp_path)


@pytest.fixture
def daemon(jack: JackServer, home: Home) -> Iterator[Callable[..., Daemon]]:
    """Starts `perceivers-live` with the given arguments; running daemons are ended after the test."""
    with ExitStack() as stack:

        def start(*arguments: str) -> Daemon:
            started = Daemon(arguments, jack.env, home)
            stack.callback(started.end)
            return started

        yield start


@pytest.fixture
def start_session(jack: JackServer, home: Home) -> Iterator[Callable[..., LiveSession]]:
    """Starts live sessions. After the test it ends their daemons and checks that no note hangs."""
    with ExitStack() as stack:
        numbers = itertools.count(1)

        def begin(*arguments: str, settings: str = "") -> LiveSession:
            session = LiveSession(jack, home, f"stage{next(numbers)}", arguments, settings)
            stack.callback(session.close)
            return session

        yield begin
