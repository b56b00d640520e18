"""The daemon with its model behind a real ``sshd``: it plays as with a local model, also when the connection is lost."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.remote.address import parse
from perceivers_live.session.session import STANDBY_BEGINS
from tests.engine.remote.ssh_server import SshServer, skip_without_ssh
from tests.live.live_session import LiveSession
from tests.live.test_modes import PHRASE, Start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    skip_without_ssh()
    with SshServer(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def start_remote(start_session: Start, server: SshServer, tmp_path: Path) -> Callable[..., LiveSession]:
    """Starts live sessions whose daemons have their model behind the server."""
    client = server.client(tmp_path / "client")
    engine = shlex.join([str(client / "ssh"), *parse(server.address, "onnx", 1).command[1:]])
    return lambda *arguments: start_session("--engine", engine, *arguments)


def child_process(session: LiveSession, name: str) -> int:
    """The process number of the daemon's child process with this name."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            found = (process / "comm").read_text().strip() == name and int(fields[1]) == session.daemon.process.pid
        except OSError:
            continue
        if found:
            return int(process.name)
    raise AssertionError(f"the daemon has no process {name}")


def test_respond_mode_replies_and_stops_at_a_key_press(start_remote: Start) -> None:
    session = start_remote()
    session.peer.play(*PHRASE)
    ended = time.perf_counter()
    session.wait_for_state("playing")
    session.wait_for_notes()
    assert all(note.time > ended for note in session.peer.notes)
    session.peer.send(0x90, 40, 90)
    session.wait_for_state("listening")
    session.wait_for_silence()
    session.peer.send(0x80, 40, 0)
    session.wait_for_state("playing", since=len(session.remote.states))
    session.wait_for_notes()


def test_duet_mode_plays_while_the_human_plays(start_remote: Start) -> None:
    session = start_remote("--mode", "duet")
    human = session.peer.play(*PHRASE * 4)
    assert sum(human[0].time < note.time < human[-1].time for note in session.peer.notes) >= 3
    session.wait_for_state("listening")
    session.wait_for_silence()


@pytest.mark.parametrize("loss", ["server killed", "ssh killed", "ssh hangs"])
def test_solo_continues_on_the_standby_when_the_connection_is_lost(start_remote: Start, server: SshServer, loss: str) -> None:
    session = start_remote("--mode", "solo")
    session.wait_for_notes(10)
    if loss == "server killed":
        server.kill_servers(signal.SIGKILL)
    else:
        os.kill(child_process(session, "ssh"), signal.SIGSTOP if loss == "ssh hangs" else signal.SIGKILL)
    session.daemon.wait_for_line("the standby continues")
    session.wait_for_notes(10)
    session.daemon.wait_for_line("back from the standby")
    session.wait_for_notes(10)
    assert STANDBY_BEGINS in session.remote.messages
    assert "listening" not in session.remote.states, "its turn ended"
    session.remote.send("yield")
    session.wait_for_state("listening")
    session.wait_for_silence()
