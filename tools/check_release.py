"""Builds the files of a release and tests them: python -m tools.check_release [--keep FOLDER]

The wheel is built from the source distribution, so that files missing there are detected. The wheel is then installed in an empty
environment outside the checkout. There the daemon's commands must run, and the trainer's commands must print one line that names
the missing extra.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHIPPED = ("engine", "trainer", "perceivers_live")
NOT_IN_WHEEL = ("tests", "benchmarks", "fuzz", "tools", "docs", "examples", "layouts")
TIMEOUT = 600  # seconds for one program


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds and tests the files of a release.")
    parser.add_argument("--keep", type=Path, help="Folder to copy the two files to.")
    keep: Path | None = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source, wheel = build(folder)
        check_contents(source, wheel)
        try_wheel(wheel, folder)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for file in (source, wheel):
                shutil.copy(file, keep)
    print(f"{source.name} and {wheel.name} are complete, and the wheel works in an empty environment")


def build(folder: Path) -> tuple[Path, Path]:
    """Builds source distribution and wheel from the files under version control."""
    copy, made = folder / "checkout", folder / "made"
    listed = run(["git", "ls-files", "-z"], cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    run([sys.executable, "-m", "build", "--outdir", str(made), str(copy)], cwd=folder)
    (source,), (wheel,) = made.glob("*.tar.gz"), made.glob("*.whl")
    return source, wheel


def check_contents(source: Path, wheel: Path) -> None:
    """Checks that the source distribution has all files under version control, and the wheel exactly the packages."""
    ours = {name for name in run(["git", "ls-files", "-z"], cwd=ROOT).split("\0") if name and (ROOT / name).is_file()}
    with tarfile.open(source) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    missing = sorted(ours - packed - {".gitignore"})
    if missing:
        sys.exit(f"{source.name}: missing {', '.join(missing)}")
    with zipfile.ZipFile(wheel) as zipped:
        names = set(zipped.namelist())
    missing = sorted(name for name in ours if name.startswith(tuple(f"{one}/" for one in SHIPPED)) and name not in names)
    if missing:
        sys.exit(f"{wheel.name}: missing {', '.join(missing)}")
    extra = sorted(name for name in names if name.startswith(tuple(f"{one}/" for one in NOT_IN_WHEEL)))
    if extra:
        sys.exit(f"{wheel.name}: must not contain {', '.join(extra)}")


def try_wheel(wheel: Path, folder: Path) -> None:
    """Tests the wheel in an empty environment: the daemon's commands run; the trainer's name the missing extra."""
    home, stage = folder / "home", folder / "stage"
    for each in (home, stage):
        each.mkdir()
    venv.create(home / "venv", with_pip=True)
    programs = home / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    run([str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)], cwd=stage)
    program = str(programs / "perceivers-live")
    run([program, "--version"], cwd=stage)
    run([program, "demo", "--fast", "--seed", "1"], cwd=stage)
    if not (stage / "demo.mid").is_file():
        sys.exit("demo: demo.mid was not written")
    run([program, "config"], cwd=stage)
    run([program, "ports"], cwd=stage, may_fail="no MIDI system")  # the machine may have no MIDI system
    for command in (["train", "."], ["evaluate", "."], ["export", ".", "bundle"]):
        said = run([program, *command], cwd=stage, may_fail="pip install 'perceivers-live[train]'")
        if len(said.splitlines()) != 1:
            sys.exit(f"{command[0]} without its extra prints more than one line:\n{said}")


def run(command: list[str], *, cwd: Path, may_fail: str = "") -> str:
    """Runs a program and returns its output. It may fail only if its output contains ``may_fail`` and no traceback."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    said = done.stdout + done.stderr
    if done.returncode and not (may_fail and may_fail in said and "Traceback" not in said):
        sys.exit(f"{' '.join(command)} failed ({done.returncode}):\n{said}")
    return said.strip()


if __name__ == "__main__":
    main()
