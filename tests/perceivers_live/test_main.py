"""The start of the program: obstacles are reported in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from perceivers_live import __main__
from perceivers_live.cli import main

ROOT = Path(__file__).parents[2]


def run_help(*path: Path) -> subprocess.CompletedProcess[str]:
    """Runs ``--help`` with these folders first on Python's path."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    command = [sys.executable, "-m", "perceivers_live", "--help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=path[0], check=False)


@pytest.mark.parametrize("name", ["engine", "trainer"])
def test_foreign_package_with_the_name_of_ours_is_reported_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text('"""Somebody else\'s."""\n')
    done = run_help(tmp_path)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    for word in (name, str(tmp_path), "environment of its own"):
        assert word in done.stderr


def test_foreign_package_installed_over_ours_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("engine", "perceivers-live"), ("trainer", "Coqui")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f'"""{text}"""')
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(__main__, "HERE", tmp_path.resolve())
    assert "'trainer'" in (__main__.foreign_package() or "")


def test_own_packages_are_accepted(tmp_path: Path) -> None:
    assert run_help(tmp_path).returncode == 0


@pytest.mark.parametrize("command", [("train", "music"), ("evaluate", "music"), ("export", "run", "bundle")])
def test_missing_training_extra_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done = CliRunner().invoke(main, command)
    assert done.exit_code != 0
    assert done.output.splitlines() == [
        "Error: training needs torch, which this installation lacks: pip install 'perceivers-live[train]'"
    ]
