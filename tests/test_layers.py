"""Which package may import which: ``engine`` neither of the others; ``trainer`` only ``engine``; the daemon reaches the trainer
only by its commands, in ``perceivers_live.training``.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [path for package in ("engine", "trainer", "perceivers_live") for path in sorted((ROOT / package).rglob("*.py"))]
MAY = {"engine": {"engine"}, "trainer": {"engine", "trainer"}, "perceivers_live": {"engine", "perceivers_live"}}


def imported(path: Path) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    may = MAY[package] | ({"trainer"} if path.name == "training.py" else set())
    assert imported(path) & {*MAY, "tests", "benchmarks", "fuzz"} <= may
