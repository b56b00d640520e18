"""The SHA-256 of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHUNK = 1 << 20  # bytes


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits. Raises ``OSError``."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()
