"""Fuzzes one target with Atheris: ``python -m fuzz.one TARGET FOLDER -max_total_time=60`` and other libFuzzer options."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import atheris

INSTRUMENTED = ["engine", "perceivers_live", "trainer", "pythonosc", "tomllib", "json", "http", "zipfile", "tarfile", "csv"]
RAM_DISK = Path("/dev/shm")  # a disk would take most of the time
IMPORTED_LATE = ["engine.checkpoint", "engine.runtimes.onnx", "trainer.data", "trainer.unpack"]  # inside functions

with atheris.instrument_imports(include=INSTRUMENTED):
    for late in IMPORTED_LATE:
        importlib.import_module(late)
    from fuzz.contract import strict_logging
    from fuzz.targets import TARGETS


def main() -> None:
    name, folder, *arguments = sys.argv[1:]
    strict_logging()
    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as scratch:
        target = TARGETS[name](Path(scratch))
        for number, seed in enumerate(target.seeds):
            Path(folder, f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], folder, f"-max_len={target.longest}", *arguments], target.feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
