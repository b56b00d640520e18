"""Faults of the user's or the machine's, as opposed to the program's own."""


class UserError(Exception):
    """Its message is one line, written for the user: no traceback is needed."""
