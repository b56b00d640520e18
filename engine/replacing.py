"""Writing a file so that it is never incomplete under its own name."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A path beside ``path`` for the new content, with the suffix ``.part``. After the block the content is flushed to the disk
    and replaces ``path``. If the block or the disk fails, ``path`` is unchanged and the part is deleted. Creates the folder.

    ``shared``: another thread or process may write the same file at the same time. The part then has a name of its own, so a
    killed process leaves it behind. Otherwise the next write overwrites such a part.
    """
    own = f".{os.getpid()}-{threading.get_ident()}" if shared else ""
    part = path.with_name(f"{path.name}{own}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
