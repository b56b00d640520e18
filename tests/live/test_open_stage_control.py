"""Our layout in the real Open Stage Control: its server under node, its client in a headless Chromium, our OSC server.

Open Stage Control has to be installed by hand, since npm does not have it: it is looked for as `open-stage-control` on the
path, or in the folder named by PERCEIVERS_LIVE_OPEN_STAGE_CONTROL (its node release, unpacked). The client is controlled through
Open Stage Control's remote control: `/SET` moves a widget as a finger would, `/GET/#` reports its value in the message that the
widget would send.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from pythonosc.osc_message import OscMessage
from pythonosc.udp_client import SimpleUDPClient

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.registry import COMMANDS, Controls
from perceivers_live.osc.server import OscServer
from tests.free_port import free_port

TIMEOUT = 60.0
LAYOUT = Path(__file__).parents[2] / "layouts" / "open-stage-control.json"
REQUIRED = os.environ.get("PERCEIVERS_LIVE_REQUIRE_OSC") == "1"
FOLDER = os.environ.get("PERCEIVERS_LIVE_OPEN_STAGE_CONTROL", "")
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


def program() -> list[str] | None:
    """The command that starts Open Stage Control, None if there is none."""
    node, installed = shutil.which("node"), shutil.which("open-stage-control")
    if node and FOLDER:
        return [node, str(Path(FOLDER, "index.js"))]
    return [installed] if installed else None


def missing() -> str:
    absent = [] if program() else ["node and Open Stage Control"]
    return ", ".join(absent if BROWSER else [*absent, f"one of {', '.join(BROWSERS)}"])


pytestmark = pytest.mark.skipif(bool(missing()) and not REQUIRED, reason=f"needs {missing()}")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and its child processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(5)


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + TIMEOUT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


class Surface:
    """The layout, open in a client."""

    def __init__(self, port: int) -> None:
        self._remote = SimpleUDPClient("127.0.0.1", port)
        self._answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._answers.bind(("127.0.0.1", 0))
        self._answers.settimeout(1.0)

    def close(self) -> None:
        self._remote.close()
        self._answers.close()

    def move(self, widget: str, value: object) -> None:
        self._remote.send_message("/SET", [widget, value])

    def shows(self, widget: str) -> Any:
        """A widget's value; None without an answer."""
        self._remote.send_message("/GET/#", [f"127.0.0.1:{self._answers.getsockname()[1]}", widget])
        with suppress(TimeoutError):
            while True:
                answer = OscMessage(self._answers.recv(4096))
                if answer.address == f"/perceivers/{widget}" and answer.params:
                    return answer.params[0]


@pytest.fixture(scope="module")
def controls() -> Controls:
    return Controls({"temperature": 0.5, "hold": True})


@pytest.fixture(scope="module")
def calls() -> list[str]:
    return []


@pytest.fixture(scope="module")
def server(controls: Controls, calls: list[str]) -> Iterator[OscServer]:
    def recorder(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    with closing(OscServer(controls, {name: recorder(name) for name in COMMANDS}, port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def surface(server: OscServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surface]:
    assert not missing(), f"required, but missing: {missing()}"
    command, folder = program(), tmp_path_factory.mktemp("open-stage-control")
    assert command
    assert BROWSER
    http, osc = free_port(), free_port()
    where = ["--port", str(http), "--osc-port", str(osc), "--cache-dir", str(folder)]
    how = ["--no-gui", "--no-qrcode", "--send", f"127.0.0.1:{server.port}", "--load", str(LAYOUT)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with ExitStack() as stack:
        stack.callback(end_group, subprocess.Popen([*command, *where, *how], **quiet))
        assert until(lambda: listening(http)), "Open Stage Control does not answer"
        page = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--remote-debugging-port=0"]
        stack.callback(end_group, subprocess.Popen([BROWSER, *page, f"http://127.0.0.1:{http}/"], **quiet))
        opened = stack.enter_context(closing(Surface(osc)))
        assert until(lambda: opened.shows("temperature") is not None), "the layout does not open"
        yield opened


def listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_surface_starts_with_the_values_of_the_daemon(surface: Surface) -> None:
    assert until(lambda: surface.shows("temperature") == 0.5)
    assert until(lambda: surface.shows("hold") == 1)


def test_widget_sets_its_control_and_follows_changes_made_elsewhere(surface: Surface, controls: Controls) -> None:
    for control in CONTROLS.values():
        ends = (0, 1) if control.kind == "switch" else control.choices or (control.low, control.high)
        for end in (ends[-1], ends[0]):
            surface.move(control.name, end)
            assert until(lambda: controls.get(control.name) == pytest.approx(control.clamp(end))), control  # noqa: B023
        controls.set(control.name, ends[-1], source="elsewhere")
        assert until(lambda: surface.shows(control.name) == pytest.approx(ends[-1])), control  # noqa: B023


def test_every_button_runs_its_command(surface: Surface, calls: list[str]) -> None:
    for name in COMMANDS:
        surface.move(name, 1)
    assert until(lambda: sorted(calls) == sorted(COMMANDS))


def test_surface_shows_state_and_errors(surface: Surface, server: OscServer) -> None:
    server.send_state("replying")
    server.send_error("engine", "restarted")
    assert until(lambda: surface.shows("state") == "replying")
    assert until(lambda: surface.shows("error") == "engine")  # followed by the message
