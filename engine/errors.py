"""Errors that the user can correct: wrong input, a missing file, an unsuitable machine."""

from __future__ import annotations

import os


class UserError(Exception):
    """An error whose message is one line for the user. It is shown without a traceback."""


def program() -> str:
    """What the user types to start the program; ``./run`` sets it, because a checkout has no command on the path."""
    return os.environ.get("PERCEIVERS_LIVE_COMMAND", "perceivers-live")


def install(extra: str) -> str:
    """The command that installs this program with one of its extras, such as ``train``."""
    return f"pip install 'perceivers-live[{extra}]'"


def in_words(error: Exception) -> str:
    """The message of a ``UserError``; for other exceptions, their type and message."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
