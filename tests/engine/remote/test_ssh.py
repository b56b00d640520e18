"""The model behind a real ``sshd``: it gives the same results, and connection errors are one line."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import bundled
from engine.config import CheckpointError
from engine.engine import Engine
from engine.remote import standby
from engine.remote.address import parse
from engine.remote.runtime import RemoteRuntime
from engine.remote.server_process import RuntimeLost
from engine.remote.standby import StandbyRuntime, open_runtime_at
from engine.runtimes import RuntimeUnavailable
from engine.runtimes.choose import open_runtime
from engine.states import fingerprint
from tests.engine.remote.ssh_server import SshServer, key
from tests.engine.remote.test_standby import close, failed_back, hidden_after, next_event, until
from tests.free_port import free_port
from tests.music import improvise

MUSIC = improvise(700, seed=3)


def test_a_runtime_behind_ssh_gives_the_results_of_a_local_one(ssh: SshServer) -> None:
    with closing(RemoteRuntime(parse(ssh.address, "onnx", 1), fingerprint=fingerprint(bundled()), timeout=5.0)) as runtime:
        there, here = Engine(runtime), Engine(open_runtime("onnx", bundled(), threads=1))
        assert runtime.name.startswith("onnx at ")
        for begin, end in ((1, 2), (2, 90), (90, 500)):
            for engine in (there, here):
                engine.absorb(MUSIC[begin:end])
            assert np.array_equal(there.hidden(), here.hidden())
        for _ in range(30):
            event = next_event(there)
            assert event == next_event(here)
            for engine in (there, here):
                engine.absorb([event])  # type: ignore[list-item]
        for engine in (there, here):
            engine.rewind(500)
        snapshot = there.snapshot()
        assert all(map(np.array_equal, snapshot.rings, here.snapshot().rings))
        there.forget()
        there.restore(snapshot)
        assert np.array_equal(there.hidden(), here.hidden())


@pytest.mark.parametrize("loss", ["server dies", "server hangs", "ssh dies", "ssh hangs"])
def test_a_lost_connection_fails_over_and_back(ssh: SshServer, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "MIN_DELAY", 0.05)
    monkeypatch.setattr(standby, "REMOTE_ANSWER_TIMEOUT", 2.0)
    with closing(open_runtime_at(parse(ssh.address, "onnx", 1), bundled())) as runtime:
        assert isinstance(runtime, StandbyRuntime)
        engine = Engine(runtime)
        engine.absorb(MUSIC[1:200])
        expected = next_event(engine)
        number = signal.SIGKILL if loss.endswith("dies") else signal.SIGSTOP
        if loss.startswith("ssh"):
            os.kill(runtime._first._server.pid, number)
        else:
            ssh.kill_servers(number)
        assert next_event(engine) == expected
        assert runtime.standby
        until(lambda: failed_back(runtime))
        engine.absorb(MUSIC[200:220])
        assert close(engine.hidden(), hidden_after(220))
        assert not runtime.standby
        ssh.kill_servers(signal.SIGCONT)
    until(lambda: not ssh.servers())


def test_closing_ends_the_server(ssh: SshServer) -> None:
    runtime = RemoteRuntime(parse(ssh.address, "onnx", 1))
    assert ssh.servers()
    runtime.close()
    until(lambda: not ssh.servers())


def check_error(address: str, match: str, **options: str) -> None:
    """Connecting to this address fails with a matching one-line error."""
    with pytest.raises((RuntimeUnavailable, CheckpointError), match=match) as error:
        RemoteRuntime(parse(address, "onnx", 1), fingerprint=options.get("fingerprint"))
    assert str(error.value).isprintable()


def test_an_unknown_host_key_is_reported(ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{ssh_server.client(tmp_path / 'client', known=False)}:{os.environ['PATH']}")
    check_error(ssh_server.address, r"host key of \S+ is not known here")


def test_a_refused_user_key_is_reported(ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ssh_server.client(tmp_path / "client", identity=key(tmp_path / "other_key"))
    monkeypatch.setenv("PATH", f"{client}:{os.environ['PATH']}")
    check_error(ssh_server.address, "refuses the keys")


def test_a_host_without_perceivers_live_is_reported(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare").mkdir()
    with SshServer(tmp_path / "bare", installed=False) as bare:
        monkeypatch.setenv("PATH", f"{bare.client(tmp_path / 'client')}:{os.environ['PATH']}")
        check_error(bare.address, "perceivers-live is not found at")


def test_a_closed_port_is_reported(ssh: SshServer) -> None:
    check_error(re.sub(r":\d+$", f":{free_port()}", ssh.address), "connection refused")


def test_a_host_that_does_not_answer_is_reported(ssh: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = parse(re.sub(r":\d+$", f":{mute.getsockname()[1]}", ssh.address))
        quick = tuple(re.sub("ConnectTimeout=.*", "ConnectTimeout=1", part) for part in address.command)
        with pytest.raises(RuntimeUnavailable, match="did not answer ssh"):
            RemoteRuntime(dataclasses.replace(address, command=quick))


def test_an_unknown_host_is_reported(ssh: SshServer) -> None:
    check_error("ssh://no-such-host.invalid", "host no-such-host.invalid does not exist")


def test_a_missing_checkpoint_is_reported(ssh: SshServer) -> None:
    check_error(f"{ssh.address}/no/such/folder", "not a checkpoint")


def test_a_different_checkpoint_is_reported(ssh: SshServer) -> None:
    check_error(ssh.address, "has another checkpoint", fingerprint="0" * 64)


def test_a_missing_command_is_reported() -> None:
    check_error("no-such-command serve", "cannot be started")


def test_a_failing_command_is_reported() -> None:
    with pytest.raises((RuntimeUnavailable, RuntimeLost), match="ended with status 3: out of quota"):
        RemoteRuntime(parse("sh -c 'echo out of quota >&2; exit 3'"))
