"""The README's commands exist, and what it quotes is what the repository holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = "".join(
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "benchmarks/README.md", "SECURITY.md", "CHANGELOG.md")
)
ALLOWED = {
    "engine": {"engine"},
    "trainer": {"engine", "trainer"},
    "perceivers_live": {"engine", "trainer", "perceivers_live"},
}


def test_every_command_shown_is_a_command() -> None:
    from perceivers_live.cli import main

    shown = set(re.findall(r"(?:perceivers-live|\./run) ([a-z]+)\b", README))
    assert shown
    assert shown <= {*main.commands, "test"}


def test_every_path_shown_exists() -> None:
    shown = re.findall(r"`(?:python )?((?:benchmarks|engine|fuzz|layouts|perceivers_live|tests|trainer)/[\w/.-]*)[ `]", README)
    assert len(shown) > 20
    for path in shown:
        assert (ROOT / path).exists(), path


def test_nothing_imports_upward() -> None:
    for package, allowed in ALLOWED.items():
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                for name in names:
                    top = name.split(".")[0]
                    assert top not in ALLOWED or top in allowed, f"{file.relative_to(ROOT)} imports {name}"
                    trained = top == "trainer" and package == "perceivers_live"
                    assert not trained or file.name == "training.py", f"{file.name} imports {name}"
