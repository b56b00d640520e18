"""Folders of the user's files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from perceivers_live.controls.midi_map_file import FILE_NAME


def data_folder() -> Path:
    """The user's data folder of this program; recordings are in its subfolder ``sessions``.

    ``~/.local/share/perceivers-live`` (or below ``$XDG_DATA_HOME``), ``~/Library/Application Support/perceivers-live`` on
    macOS, ``%LOCALAPPDATA%\\perceivers-live`` on Windows.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (Path.home() raises for users without one)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        given = Path(os.environ.get("XDG_DATA_HOME", ""))
        base = given if given.is_absolute() else home / ".local" / "share"
    return base / "perceivers-live"


def midi_map_path() -> Path:
    """The file of MIDI controller bindings, in the user's configuration folder."""
    return Path(click.get_app_dir("perceivers-live"), FILE_NAME)
