"""Training in two processes, with ddp or fsdp, equals training in one process; they divide the optimizer's work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import Tensor  # noqa: E402

pytest.importorskip("tqdm")

from engine.midi_file import write_file  # noqa: E402
from tests.trainer.test_train import scales  # noqa: E402
from trainer.parallel import divided  # noqa: E402

TORCHRUN = Path(sys.executable).with_name("torchrun")
EXAMPLES = [f"--segmentation={part}" for part in ("latents=32", "context=64", "near=32", "sampled=16")]
SETTINGS = ["--preset=tiny", *EXAMPLES, "--batch=4", "--warmup=2", "--workers=0", "--no-samples", "--device=cpu"]
PLATEAU = ["--validate-every=3", "--ema=0.9", "--cooldown=0"]  # a learning rate that does not depend on the number of steps


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    rows = "split,midi_filename\n"
    for i in range(3):
        write_file(folder / f"{i}.mid", [("piano", scales(i))])
        rows += f"{'validation' if i == 2 else 'train'},{i}.mid\n"
    (folder / "maestro-made-here.csv").write_text(rows)
    return folder


def trained(music: Path, out: Path, processes: int, *options: str) -> Path:
    """Runs the command line, with torchrun for several processes. Returns ``out``."""
    start = [str(TORCHRUN), "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else [sys.executable, "-m"]
    call = [*start, "perceivers_live.cli", "train", str(music), f"--out={out}", f"--cache={music / 'cache'}", *SETTINGS, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def validation(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row["validation"] for row in rows if "validation" in row]


@pytest.fixture(scope="module")
def single_process_run(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(music, tmp_path_factory.mktemp("single_process") / "run", 1, "--steps=6", *PLATEAU)


def check_same(run: Path, other: Path) -> None:
    assert validation(run) == pytest.approx(validation(other), abs=2e-4)
    for file in ("model.safetensors", "state.safetensors"):
        found, expected = load_file(run / file), load_file(other / file)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.allclose(found[name].float(), tensor.float(), atol=2e-4), name


def test_ddp_run_in_two_processes_equals_one_process(music: Path, single_process_run: Path, tmp_path: Path) -> None:
    options = ["--parallel=ddp", "--accumulate=2", "--save-every=2"]
    check_same(trained(music, tmp_path / "run", 2, "--steps=6", *PLATEAU, *options), single_process_run)


def test_fsdp_run_resumed_in_one_process_equals_one_process(music: Path, single_process_run: Path, tmp_path: Path) -> None:
    """Checkpoints of a sharded model are complete."""
    run = trained(music, tmp_path / "run", 2, "--steps=3", *PLATEAU, "--parallel=fsdp", "--accumulate=2")
    assert len(validation(run)) == 1
    trained(music, run, 1, "--steps=6", *PLATEAU)
    check_same(run, single_process_run)


def square_a_part(rank: int, folder: Path) -> None:
    """Runs in each of two processes: they square five rows together, and each saves its part and all results."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    given: list[Tensor] = []

    def square(rows: Tensor) -> Tensor:
        given.append(rows)
        return rows**2

    results = divided(square, torch.arange(10.0).view(5, 2))
    torch.save((torch.cat(given), results), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_divided_work_gives_each_process_a_part_and_all_results(tmp_path: Path) -> None:
    mp.spawn(square_a_part, (tmp_path,), nprocs=2)
    rows = torch.arange(10.0).view(5, 2)
    for rank, part in enumerate((rows[:3], torch.cat((rows[3:], torch.zeros(1, 2))))):
        given, results = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(given, part)
        assert torch.equal(results, rows**2)
