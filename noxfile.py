"""The tests on every Python that is supported: nox, or nox -s tests-3.12

Interpreters that this machine lacks are left out. `./run test` is the whole set of checks, on one of them.
"""

from __future__ import annotations

import nox

nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.10", "3.11", "3.12"])
def tests(session: nox.Session) -> None:
    """All tests but those that need the machine for themselves."""
    session.install("--editable", ".[dev]")
    session.run("pytest", "-n", "2", "--dist", "loadfile", "-m", "not alone", *session.posargs)


@nox.session(python="3.11")
def release(session: nox.Session) -> None:
    """What a release consists of, built and tried."""
    session.install("build")
    session.run("python", "-m", "tools.check_release", *session.posargs)
