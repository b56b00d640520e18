"""Fuzz targets and the promise of each: the only exceptions are refusals for the user, in one line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

MAX_LINE = 1000  # characters of a message for the user


class Target(NamedTuple):
    """``feed`` takes any bytes and raises only if a promise is broken. ``seeds`` are valid inputs to start from."""

    feed: Callable[[bytes], None]
    seeds: Sequence[bytes]
    longest: int = 4096  # bytes of the longest input tried


Maker = Callable[[Path], Target]  # makes a target, given a scratch folder


class BrokenPromise(AssertionError):
    """A target broke its promise."""


class NoFaults(logging.Handler):
    """Fails on an ERROR in the log, which means an unexpected exception that was caught."""

    def emit(self, record: logging.LogRecord) -> None:
        raise BrokenPromise(f"logged as an error: {record.getMessage()}")


def strict_logging() -> None:
    """Discards log records and raises ``BrokenPromise`` for errors among them."""
    logging.getLogger().handlers = [NoFaults(logging.ERROR)]
    logging.getLogger().setLevel(logging.WARNING)
    logging.raiseExceptions = True


@contextmanager
def refused(*kinds: type[Exception]) -> Iterator[None]:
    """Accepts these exceptions, if their message is one readable line."""
    try:
        yield
    except kinds as error:
        text = str(error)
        if not text.isprintable() or not 0 < len(text) <= MAX_LINE:
            raise BrokenPromise(f"{type(error).__name__} of {len(text)} characters: {text[:200]!r}") from error


def promise(kept: object, text: str) -> None:
    """Raises ``BrokenPromise`` with this text unless it is kept."""
    if not kept:
        raise BrokenPromise(text)
