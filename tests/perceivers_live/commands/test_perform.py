"""The daemon as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from perceivers_live.commands.perform import _recorder
from perceivers_live.controls.settings import RecordingSettings, Settings
from tests.free_port import free_port

PATIENCE = 120.0  # seconds


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell that closes a file descriptor, and signals")
def test_daemon_runs_without_stderr_ignores_sighup_under_nohup_and_ends_cleanly(tmp_path: Path) -> None:
    port, settings = free_port(), tmp_path / "perceivers_live.toml"
    settings.write_text("[osc]\nenabled = false\n")
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "DISPLAY": ""}
    command = f"trap '' HUP; exec {sys.executable} -m perceivers_live page --config {settings} --page-port {port} 2>&-"
    process = subprocess.Popen(["sh", "-c", command], env=env, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not is_served(port):
            assert process.poll() is None, f"ended with status {process.returncode}"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGHUP)
        for _ in range(20):
            time.sleep(0.1)
            assert is_served(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def is_served(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/page/", timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("record", [True, False])
def test_recording_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: bool) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    settings = Settings(recording=RecordingSettings(record=record, folder=str(tmp_path / "takes")))
    with ExitStack() as closing:
        assert (_recorder(settings, closing) is not None) == record
        assert (tmp_path / "takes").exists() == record
