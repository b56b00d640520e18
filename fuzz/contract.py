"""Fuzz targets and their contract: invalid input raises nothing but the expected exceptions, with a one-line message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

MAX_LINE = 1000  # characters of a message for the user


class Target(NamedTuple):
    """``feed`` accepts any bytes and raises only if the contract is violated. ``seeds`` are valid inputs to start from."""

    feed: Callable[[bytes], None]
    seeds: Sequence[bytes]
    longest: int = 4096  # bytes of the longest input tried


Maker = Callable[[Path], Target]  # makes a target that uses a scratch folder


class ContractViolation(AssertionError):
    """A target violated its contract."""


class FailOnError(logging.Handler):
    """Raises ``ContractViolation`` for an ERROR in the log, which means that an unexpected exception was caught."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ContractViolation(f"error in the log: {record.getMessage()}")


def strict_logging() -> None:
    """Discards log records and raises ``ContractViolation`` for errors among them."""
    logging.getLogger().handlers = [FailOnError(logging.ERROR)]
    logging.getLogger().setLevel(logging.WARNING)
    logging.raiseExceptions = True


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Accepts these exceptions if their message is one printable line. Raises ``ContractViolation`` otherwise."""
    try:
        yield
    except kinds as error:
        text = str(error)
        if not text.isprintable() or not 0 < len(text) <= MAX_LINE:
            raise ContractViolation(f"{type(error).__name__} of {len(text)} characters: {text[:200]!r}") from error


def require(condition: object, message: str) -> None:
    """Raises ``ContractViolation`` with this message unless the condition is true."""
    if not condition:
        raise ContractViolation(message)
