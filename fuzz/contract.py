"""What a target is, and what every target promises: no exception but the refusals that are meant for the user, in one line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LONGEST_LINE = 1000  # characters, that somebody is expected to read


class Target(NamedTuple):
    """``feed`` takes any bytes and raises only if a promise is broken; ``seeds`` are real inputs, to begin from."""

    feed: Callable[[bytes], None]
    seeds: Sequence[bytes]
    longest: int = 4096  # bytes worth trying


Maker = Callable[[Path], Target]  # given a scratch folder of its own


class BrokenPromise(AssertionError):
    """A target did what it must not."""


class NoFaults(logging.Handler):
    """An ERROR in the log is an exception that was survived: not meant to be."""

    def emit(self, record: logging.LogRecord) -> None:
        raise BrokenPromise(f"logged as an error: {record.getMessage()}")


def strict_logging() -> None:
    """From now on nothing is written to the log, and an error there is one here."""
    logging.getLogger().handlers = [NoFaults(logging.ERROR)]
    logging.getLogger().setLevel(logging.WARNING)
    logging.raiseExceptions = True


@contextmanager
def refused(*kinds: type[Exception]) -> Iterator[None]:
    """These refusals are as good as an answer, if they are a line that can be read."""
    try:
        yield
    except kinds as error:
        text = str(error)
        if not text.isprintable() or not 0 < len(text) <= LONGEST_LINE:
            raise BrokenPromise(f"{type(error).__name__} of {len(text)} characters: {text[:200]!r}") from error


def promise(kept: object, text: str) -> None:
    """Raises ``BrokenPromise`` with this text unless it is kept."""
    if not kept:
        raise BrokenPromise(text)
