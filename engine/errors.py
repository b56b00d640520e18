"""Faults of the user's or the machine's, as opposed to the program's own."""


class UserError(Exception):
    """Its message is one line, written for the user: no traceback is needed."""


def install(extra: str) -> str:
    """The command that installs this program with one of its extras, such as ``train``."""
    return f"pip install 'perceivers-live[{extra}]'"
