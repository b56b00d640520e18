"""An ssh server for the tests that ask for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.remote.ssh_server import SshServer, skip_without_ssh


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A server that accepts this user and has ``perceivers-live``."""
    skip_without_ssh()
    with SshServer(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def ssh(ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshServer:
    """The server, with an ``ssh`` in the search path that knows its host key."""
    monkeypatch.setenv("PATH", f"{ssh_server.client(tmp_path / 'client')}:{os.environ['PATH']}")
    return ssh_server
