"""Which packages and folders may import which, without circular imports. Imports inside functions count too."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BELOW_SESSION = {"network", "rate_limit", "controls", "clock", "recording", "midi", "osc", "page", "player", "performer"}
MAY_IMPORT: dict[str, set[str]] = {  # folder or module of the daemon: what else of the daemon it may import
    "network": set(),
    "rate_limit": set(),
    "controls": set(),
    "clock": set(),
    "recording": set(),
    "midi": {"controls"},
    "osc": {"controls", "network", "rate_limit"},
    "page": {"controls", "network", "osc", "rate_limit"},
    "player": {"controls"},
    "performer": {"player", "clock", "controls"},
    "session": {"controls", "clock", "midi", "osc", "player", "performer"},
    "commands": {*BELOW_SESSION, "session"},
    "cli": {*BELOW_SESSION, "session", "commands"},
    "__main__": {"cli"},
}
PACKAGES = ("engine", "trainer", "perceivers_live")
OTHERS = ("tests", "benchmarks", "fuzz", "tools")  # the installed packages may not import them
TRAIN_COMMAND = "perceivers_live.commands.train"  # the one module of the daemon that may import the trainer


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """The modules of this repository that a module imports, except for type checking alone."""
    found: set[str] = set()

    class Imports(ast.NodeVisitor):
        def visit_If(self, node: ast.If) -> None:
            if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            found.update(one.name for one in node.names)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            assert node.level == 0, "imports are absolute"
            assert node.module
            whole = {f"{node.module}.{one.name}" for one in node.names}
            found.update(one if one in MODULES else str(node.module) for one in whole)

    Imports().visit(ast.parse(path.read_text(encoding="utf-8")))
    return {name for name in found if name.partition(".")[0] in (*PACKAGES, *OTHERS)}


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def allowed(importer: str, module: str) -> bool:
    package, top = importer.partition(".")[0], module.partition(".")[0]
    if top == "engine":
        return True
    if top == "trainer":
        return package == "trainer" or importer == TRAIN_COMMAND
    if top in OTHERS or package != "perceivers_live":
        return False
    here, there = (name.split(".")[1] if "." in name else "" for name in (importer, module))
    return here == there or there in MAY_IMPORT[here]


def test_a_module_imports_only_what_its_folder_may() -> None:
    found_imports = [f"{importer} imports {module}" for importer in IMPORTS for module in IMPORTS[importer]]
    assert found_imports, "nothing was found"
    assert [one for one in found_imports if not allowed(*one.split(" imports "))] == []


def test_every_folder_of_the_daemon_is_in_the_table() -> None:
    folders = {name.split(".")[1] for name in MODULES if name.startswith("perceivers_live.")}
    assert folders - {"music"} <= set(MAY_IMPORT)


def test_imports_are_not_circular() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("command", ["--help", "config --default", "ports"])
def test_commands_without_a_model_do_not_import_large_packages(command: str) -> None:
    program = f"""
import sys
from perceivers_live.cli import main
try:
    main({command.split()!r}, prog_name="perceivers-live")
finally:
    print("heavy:", *sorted({{"numpy", "torch", "onnxruntime"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1] == "heavy:", done.stdout + done.stderr
