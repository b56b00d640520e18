"""The README's commands exist, and what it quotes is what the repository holds."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = "".join(
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "benchmarks/README.md", "SECURITY.md", "CHANGELOG.md")
)


def test_every_command_shown_is_a_command() -> None:
    from perceivers_live.cli import main

    shown = set(re.findall(r"(?:perceivers-live|\./run) ([a-z]+)\b", README))
    assert shown
    assert shown <= {*main.commands, "test"}


def test_every_path_shown_exists() -> None:
    shown = re.findall(r"`((?:benchmarks|engine|fuzz|layouts|perceivers_live|tests|tools|trainer)/[\w/.-]*)[ `]", README)
    assert len(shown) > 20
    for path in shown:
        assert (ROOT / path).exists(), path


def test_every_module_shown_exists() -> None:
    shown = re.findall(r"python -m ((?:benchmarks|fuzz|perceivers_live|tests|tools)[\w.]*)", README)
    assert len(shown) > 10
    for module in shown:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
