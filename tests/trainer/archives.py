"""Writing and reading archives."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import zipfile
from pathlib import Path

MUSIC = {f"set/{i:02}.mid": random.Random(i).randbytes(3000) for i in range(20)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pack(path: Path, entries: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        return path
    compression = path.suffix.removeprefix(".").replace("tar", "")
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if not path.is_dir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
