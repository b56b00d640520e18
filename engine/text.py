"""Text from outside (files, other computers, users) for messages of one line."""

import reprlib

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def shown(value: object) -> str:
    """A value as Python writes it, in at most about 60 characters."""
    try:
        return _short.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a huge number"


def printable(text: object) -> str:
    """The first 300 characters, with control characters escaped."""
    line = str(text)[:300]
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def one_line(text: object) -> str:
    """The first line, cut after 200 characters; if it has control characters, in ASCII with escapes."""
    line = str(text).strip().partition("\n")[0][:200]
    return line if line.isprintable() else ascii(line)[1:-1]
