"""Errors that the user can correct: wrong input, a missing file, an unsuitable machine."""


class UserError(Exception):
    """An error whose message is one line for the user. It is shown without a traceback."""


def install(extra: str) -> str:
    """The command that installs this program with one of its extras, such as ``train``."""
    return f"pip install 'perceivers-live[{extra}]'"
