"""``benchmarks.gpu``, tested on a CPU: all measurements are in one file, and an interrupted run continues from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("tqdm")  # a dependency of the trainer

from benchmarks.gpu import WAYS, steps_of

ROOT = Path(__file__).parents[2]
OPTIONS = ("--preset", "tiny", "--history", "120", "--count", "30")


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the script by its path, in any folder."""
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", *OPTIONS, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an interrupted run: one step is measured, the others failed."""
    file = tmp_path_factory.mktemp("gpu") / "out.json"
    done = run(file.parent, "--json", file.name, "--limit", "0.01")  # nothing succeeds
    assert done.returncode == 0, done.stderr
    assert all("took more than" in one["error"] for one in read(file).values())
    content = json.loads(file.read_text())
    content["results"]["parity"] = {"nats": 0.125, "error_of_hidden": 0.5}  # as if it had been measured before
    file.write_text(json.dumps(content))
    return file


def read(file: Path) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = json.loads(file.read_text())["results"]
    return results


def test_a_second_run_measures_everything_that_is_missing(file: Path) -> None:
    done = run(file.parent, "--all", "--json", file.name)
    assert done.returncode == 0, done.stderr
    results = read(file)
    assert set(results) == {"machine", *steps_of("tiny")}
    assert results["parity"]["nats"] == 0.125, "existing results are not measured again"
    assert results["exactness eager"]["exact"]
    latency = results["latency eager"]
    assert 0 < latency["floor"] < latency["p50"] <= latency["p99"] <= latency["max"]
    assert latency["n"] == 30
    assert results["profile"]["rows"][0]["ms"] > 0
    assert all(results[step]["events_a_second"] > 0 for step in ("training 1", "training 2", "training 4"))
    for line in ("exactness eager", "latency eager", "0.125000 nats", "training 4", "floor"):
        assert line in done.stdout
    if results["machine"]["device"] == "CPU":
        missing = [f"{what} {way}" for what in ("exactness", "latency") for way in WAYS[1:]]
        assert [step for step, one in results.items() if "error" in one] == [step for step in results if step in missing]
        assert done.stdout.count("not here: PyTorch finds no NVIDIA GPU") == len(missing)


def test_a_file_made_with_other_options_is_refused(file: Path) -> None:
    done = run(file.parent, "--json", file.name, "--count", "31")
    assert done.returncode == 1
    assert "written with other options" in done.stderr
    assert len(done.stderr.splitlines()) == 1
