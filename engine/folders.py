"""Where this user's files are, as the platform has it: data, configuration, cache. The folders raise ``NoHomeError``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from platformdirs import PlatformDirs

from engine.errors import UserError
from engine.text import printable

NAME = "perceivers-live"


class NoHomeError(UserError):
    """This user has no home folder."""


class PathError(UserError):
    """A path in the settings cannot be used; the message is one line."""


def expanded(path: str) -> Path:
    """A path as the user wrote it, with ``~`` replaced by a home folder. Raises ``PathError``."""
    if "\0" in path:
        raise PathError(f"{printable(path)}: not a path")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise PathError(f"{printable(path)}: {error}") from error


def data_folder() -> Path:
    """What this program keeps: recordings and states. ``~/.local/share/perceivers-live`` (or below ``$XDG_DATA_HOME``),
    ``~/Library/Application Support/perceivers-live`` on macOS, ``%LOCALAPPDATA%\\perceivers-live`` on Windows.
    """
    return _found(lambda: PlatformDirs(NAME, appauthor=False).user_data_path)


def config_folder() -> Path:
    """Settings. ``~/.config/perceivers-live`` (or below ``$XDG_CONFIG_HOME``), on macOS the folder of the data,
    ``%APPDATA%\\perceivers-live`` on Windows.
    """
    return _found(lambda: PlatformDirs(NAME, appauthor=False, roaming=True).user_config_path)


def cache_folder() -> Path:
    """What can be made again: compiled plans, downloads. ``~/.cache/perceivers-live`` (or below ``$XDG_CACHE_HOME``),
    ``~/Library/Caches/perceivers-live`` on macOS, ``%LOCALAPPDATA%\\perceivers-live`` on Windows.
    """
    return _found(lambda: PlatformDirs(NAME, appauthor=False, opinion=False).user_cache_path)


def _found(find: Callable[[], Path]) -> Path:
    try:
        path = find()
    except RuntimeError:  # what platformdirs raises; older releases return a relative path
        path = Path()
    if not path.is_absolute():
        raise NoHomeError("this user has no home folder: set HOME to the absolute path of one")
    return path
