"""The daemon on stage with its model behind a real ``sshd``: it plays as with the model here, whatever becomes of the line."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.remote.address import parse
from tests.engine.remote.ssh_server import MISSING, REQUIRED, SshServer
from tests.live.stage import Stage
from tests.live.test_stage_modes import PHRASE, Start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if MISSING and not REQUIRED:
        pytest.skip("needs ssh and sshd (Debian: openssh-server)")
    with SshServer(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def elsewhere(stage: Start, server: SshServer, tmp_path: Path) -> Callable[..., Stage]:
    """Sets up stages whose daemons have their model behind the server."""
    client = server.client(tmp_path / "client")
    engine = shlex.join([str(client / "ssh"), *parse(server.address, "onnx", 1).command[1:]])
    return lambda *arguments: stage("--engine", engine, *arguments)


def child(one: Stage, name: str) -> int:
    """The process of this name that the daemon has begun."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            found = (process / "comm").read_text().strip() == name and int(fields[1]) == one.daemon.process.pid
        except OSError:
            continue
        if found:
            return int(process.name)
    raise AssertionError(f"the daemon has no process {name}")


def test_respond_answers_and_a_key_press_silences_it(elsewhere: Start) -> None:
    one = elsewhere()
    one.peer.play(*PHRASE)
    ended = time.perf_counter()
    one.wait_for_state("playing")
    one.wait_for_notes()
    assert all(note.time > ended for note in one.peer.notes)
    one.peer.send(0x90, 40, 90)
    one.wait_for_state("listening")
    one.wait_for_silence()
    one.peer.send(0x80, 40, 0)
    one.wait_for_state("playing", since=len(one.remote.states))
    one.wait_for_notes()


def test_duet_plays_while_the_human_plays(elsewhere: Start) -> None:
    one = elsewhere("--mode", "duet")
    human = one.peer.play(*PHRASE * 4)
    assert sum(human[0].time < note.time < human[-1].time for note in one.peer.notes) >= 3
    one.wait_for_state("listening")
    one.wait_for_silence()


@pytest.mark.parametrize("loss", ["server killed", "ssh killed", "ssh hangs"])
def test_a_solo_goes_on_when_the_line_is_lost(elsewhere: Start, server: SshServer, loss: str) -> None:
    one = elsewhere("--mode", "solo")
    one.wait_for_notes(10)
    if loss == "server killed":
        server.kill_servers(signal.SIGKILL)
    else:
        os.kill(child(one, "ssh"), signal.SIGSTOP if loss == "ssh hangs" else signal.SIGKILL)
    one.daemon.wait_for_line("the standby continues")
    one.wait_for_notes(10)
    one.daemon.wait_for_line("back from the standby")
    one.wait_for_notes(10)
    assert "standby" in one.remote.messages
    assert "listening" not in one.remote.states, "its turn never ended"
    one.remote.send("yield")
    one.wait_for_silence()
