"""Where the program starts: ``perceivers-live``, or ``python -m perceivers_live``.

The model and the trainer are the top-level packages ``engine`` and ``trainer``. Other projects use these names too, and
the last one installed wins. That is checked here, before anything is imported from them.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
NEIGHBOURS = ("engine", "trainer")
PROJECT = "perceivers-live"  # named in the first lines of ours


def foreign_package() -> str | None:
    """One line about a package of another project that has the name of one of ours; None if there is none."""
    for name in NEIGHBOURS:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin != HERE / name / "__init__.py" or PROJECT not in origin.read_text(encoding="utf-8", errors="replace"):
            return (
                f"Error: the package {name!r} found at {origin.parent if origin else 'no place'} is not the one of {PROJECT}: "
                f"install {PROJECT} in an environment of its own (pipx install {PROJECT}, or uv tool install {PROJECT})"
            )
    return None


def main() -> None:
    """The command line. Ctrl-C while it is still being imported is one line, too."""
    try:
        problem = foreign_package()
        if problem is not None:
            sys.exit(problem)
        from perceivers_live.cli import main as command_line
    except KeyboardInterrupt:
        sys.exit("stopped")
    command_line(prog_name=PROJECT)


if __name__ == "__main__":
    main()
