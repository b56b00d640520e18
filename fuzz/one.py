"""One target under Atheris: ``python -m fuzz.one TARGET FOLDER -max_total_time=60`` and whatever else libFuzzer takes."""

from __future__ import annotations

from pathlib import Path

FOLLOWED = ["engine", "perceivers_live", "trainer", "pythonosc", "tomllib", "json", "http", "zipfile", "tarfile", "csv"]
MEMORY = Path("/dev/shm")  # a disk would be what takes the time
IMPORTED_LATE = ["engine.checkpoint", "engine.runtimes.onnx", "trainer.data", "trainer.unpack"]  # by what is followed
