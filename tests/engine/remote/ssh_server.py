"""A real ``sshd`` on loopback, and the installed ``ssh`` configured for it, with separate keys, port and files."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import pytest

from tests.free_port import free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
REQUIRED = os.environ.get("PERCEIVERS_LIVE_REQUIRE_SSH") == "1"
MISSING = SSHD is None or shutil.which("ssh") is None
ROOT = Path(__file__).parents[3]
PATIENCE = 30.0  # seconds


def skip_without_ssh() -> None:
    """Skips the test if ssh or sshd is missing and not required."""
    if MISSING and not REQUIRED:
        pytest.skip("needs ssh and sshd (Debian: openssh-server)")


def key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


class SshServer:
    """An sshd that runs inside a ``with`` block. ``installed``: whether ``perceivers-live`` is in its search path."""

    def __init__(self, folder: Path, *, installed: bool = True) -> None:
        self.folder, self.port = folder, free_port()
        self.host_key, self.user_key = key(folder / "host_key"), key(folder / "user_key")
        shutil.copy(f"{self.user_key}.pub", folder / "authorized_keys")
        programs = folder / "bin"
        programs.mkdir()
        if installed:
            script = programs / "perceivers-live"
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m perceivers_live.cli "$@"\n')
            script.chmod(0o755)
        self.config = folder / "sshd_config"
        self.config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nAuthorizedKeysFile {folder}/authorized_keys\n"
            f"PermitRootLogin prohibit-password\n"
            f"SetEnv PATH={programs}:/usr/bin:/bin PYTHONPATH={ROOT} OMP_NUM_THREADS=1 HOME={folder}\n"
        )

    def __enter__(self) -> SshServer:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd needs it; normally systemd creates it
        assert SSHD is not None
        self.process = subprocess.Popen([SSHD, "-D", "-E", self.folder / "sshd.log", "-f", self.config])
        end = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert time.monotonic() < end, (self.folder / "sshd.log").read_text()
            assert self.process.poll() is None, (self.folder / "sshd.log").read_text()
            time.sleep(0.02)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def address(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def servers(self) -> list[int]:
        """Process ids of ``perceivers-live serve`` behind this sshd."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            except OSError:
                continue
            if b"serve" in command and f"HOME={self.folder}".encode() in environment.split(b"\0"):
                found.append(int(process.name))
        return found

    def kill_servers(self, number: signal.Signals) -> None:
        for process in self.servers():
            os.kill(process, number)

    def client(self, folder: Path, *, known: bool = True, identity: Path | None = None) -> Path:
        """A folder for the search path with an ``ssh`` that reads only the test's configuration."""
        folder.mkdir()
        hosts = folder / "known_hosts"
        hosts.write_text(f"[127.0.0.1]:{self.port} {Path(f'{self.host_key}.pub').read_text()}" if known else "")
        config = folder / "config"
        config.write_text(f"IdentityFile {identity or self.user_key}\nIdentitiesOnly yes\nUserKnownHostsFile {hosts}\n")
        config.write_text(config.read_text() + "GlobalKnownHostsFile none\nIdentityAgent none\n")
        program = folder / "ssh"
        program.write_text(f'#!/bin/sh\nexec "{shutil.which("ssh")}" -F "{config}" "$@"\n')
        program.chmod(0o755)
        return folder
