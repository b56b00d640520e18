"""Option types shared by several commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class _Output(click.Path):
    """A file to be written. A path that cannot be written is rejected before the work starts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(str(value))
        if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            self.fail(f"{path} cannot be written", param, ctx)
        return path


OUTPUT = _Output(path_type=Path)
