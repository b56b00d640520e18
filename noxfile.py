"""Runs the tests on all supported versions of Python: `nox`, or `nox -s tests-3.12` for one.

Missing interpreters are skipped. `./run test` runs all checks and tests on one version.
"""

from __future__ import annotations

import nox

nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.10", "3.11", "3.12"])
def tests(session: nox.Session) -> None:
    """All tests except the live ones, which do not depend on the version."""
    session.install("--editable", ".[dev]")
    session.run("pytest", "-n", "2", "--dist", "loadfile", "--ignore", "tests/live", *session.posargs)


@nox.session(python="3.11")
def release(session: nox.Session) -> None:
    """Builds the wheel and the sdist, and tests them."""
    session.install("build")
    session.run("python", "-m", "tools.check_release", *session.posargs)
