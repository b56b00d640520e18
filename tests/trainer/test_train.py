"""Training reduces the loss, resumes bit-exactly, and never loses a good checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

pytest.importorskip("tqdm")

from PIL import Image  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from engine.checkpoint import load_model, read_config  # noqa: E402
from engine.config import PRESETS, CheckpointError  # noqa: E402
from engine.errors import UserError  # noqa: E402
from engine.events import NOTE_OFF, NOTE_ON, Timed  # noqa: E402
from engine.midi_file import read_file, write_file  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from trainer.data import Corpus, DataError, prepare  # noqa: E402
from trainer.initialise import initialise  # noqa: E402
from trainer.parallel import World, world  # noqa: E402
from trainer.run import TrainingError  # noqa: E402
from trainer.segmentation import Segmentation  # noqa: E402
from trainer.settings import Training, model_config  # noqa: E402
from trainer.train import Objective, train, validate  # noqa: E402

TRAINING = Training(
    preset="tiny",
    steps=8,
    batch=2,
    warmup=3,
    validate_every=1000,
    validation_batches=2,
    save_every=1000,
    workers=0,
    samples=False,
    segmentation=Segmentation(latents=32, context=64, near=32, sampled=16),
)
FILES = ("config.json", "model.safetensors", "state.safetensors")


class StopAfter(threading.Event):
    """An event that is set after ``count`` calls of ``is_set``, as by an interruption in that step."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    def is_set(self) -> bool:
        self._left -= 1
        return self._left <= 0


def scales(turn: int) -> list[Timed]:
    """Scales up and down in an even rhythm: easy to learn."""
    timed = []
    for i in range(90):
        pitch, now = 60 + turn + (i % 12 if i % 24 < 12 else 12 - i % 12), i * 0.25
        timed += [Timed(now, NOTE_ON + pitch, 70), Timed(now + 0.2, NOTE_OFF + pitch)]
    return timed


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("music")
    names = {f"{i}.mid": "validation" if i == 3 else "train" for i in range(4)}
    for i, name in enumerate(names):
        write_file(folder / name, [("piano", scales(i))])
    rows = "".join(f"{split},{name}\n" for name, split in names.items())
    (folder / "maestro-made-here.csv").write_text("split,midi_filename\n" + rows)
    return Corpus(prepare(folder, tmp_path_factory.mktemp("cache"), workers=1))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    torch.set_num_threads(1)
    train(corpus, folder, TRAINING)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def progress(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "config.json").read_text())["progress"]
    return found


def score(model: PerceiverS, corpus: Corpus, training: Training) -> float:
    return validate(Objective(model), corpus, training, World(0, 1, torch.device("cpu")))


def finite(folder: Path) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in load_model(folder).parameters())


def test_training_reduces_the_validation_loss(corpus: Corpus, tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, steps=40, batch=4, warmup=5)
    torch.manual_seed(training.seed)
    before = score(PerceiverS(PRESETS["tiny"]), corpus, training)
    run = train(corpus, tmp_path / "run", training)
    after = score(run.model, corpus, training)
    assert before > 8
    assert after < before - 3
    assert run.progress.best == pytest.approx(after)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["validation"] for row in log if "validation" in row] == [pytest.approx(after, abs=1e-3)]


def test_a_finished_run_has_a_last_and_a_best_checkpoint(corpus: Corpus, uninterrupted: Path) -> None:
    assert progress(uninterrupted)["step"] == TRAINING.steps
    assert finite(uninterrupted)
    assert load_model(uninterrupted / "best").config == PRESETS["tiny"]
    assert score(load_model(uninterrupted / "best"), corpus, TRAINING) == pytest.approx(progress(uninterrupted)["best"])


@pytest.mark.parametrize("interruptions", [(1,), (3,), (2, 2, 1)], ids=str)
def test_an_interrupted_run_resumes_bit_exactly(
    corpus: Corpus, uninterrupted: Path, tmp_path: Path, interruptions: tuple[int, ...]
) -> None:
    folder, done = tmp_path / "run", 0
    for count in interruptions:
        done += count
        assert train(corpus, folder, TRAINING, StopAfter(count)).progress.step == done
        assert progress(folder)["step"] == done
    assert train(corpus, folder, TRAINING).progress.step == TRAINING.steps
    for name in ("model.safetensors", "state.safetensors"):
        resumed, whole = load_file(folder / name), load_file(uninterrupted / name)
        assert resumed.keys() == whole.keys()
        assert all(torch.equal(resumed[key], whole[key]) for key in whole), name
    assert {k: v for k, v in progress(folder).items() if k != "seconds"} == {
        k: v for k, v in progress(uninterrupted).items() if k != "seconds"
    }


def test_another_seed_gives_other_weights(corpus: Corpus, uninterrupted: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "run", dataclasses.replace(TRAINING, seed=1))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != (uninterrupted / "model.safetensors").read_bytes()


def test_training_restores_the_floating_point_modes_of_the_process(uninterrupted: Path) -> None:
    assert math.ulp(0.0) * 1.0 > 0.0  # denormals are not flushed to zero
    assert torch.get_float32_matmul_precision() == "highest"


def test_training_a_finished_run_again_changes_nothing(corpus: Corpus, uninterrupted: Path) -> None:
    before = contents(uninterrupted)
    assert train(corpus, uninterrupted, TRAINING).progress.step == TRAINING.steps
    assert contents(uninterrupted) == before


@pytest.mark.parametrize("written", [0, 1, 2], ids=["nothing", "state", "state and weights"])
def test_a_run_killed_while_saving_can_be_resumed(corpus: Corpus, uninterrupted: Path, tmp_path: Path, written: int) -> None:
    folder = tmp_path / "run"
    train(corpus, folder, TRAINING, StopAfter(4))
    (folder / "state.safetensors.part").write_bytes(b"half a state")
    in_the_order_of_saving = ("state.safetensors", "model.safetensors", "config.json")
    for name in in_the_order_of_saving[:written]:
        shutil.copy(uninterrupted / name, folder / name)
    assert train(corpus, folder, TRAINING).progress.step == TRAINING.steps


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_state_is_refused_in_one_line(corpus: Corpus, uninterrupted: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    path = folder / "state.safetensors"
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    with pytest.raises(CheckpointError) as caught:
        train(corpus, folder, dataclasses.replace(TRAINING, steps=10))
    assert "\n" not in str(caught.value)


def test_resuming_a_bundle_without_a_training_state_is_refused(corpus: Corpus, uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted / "best", folder)  # weights and config, no optimizer
    with pytest.raises(CheckpointError):
        train(corpus, folder, dataclasses.replace(TRAINING, steps=10))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(corpus, folder, TRAINING, StopAfter(2))
    before = contents(folder)
    with pytest.raises(TrainingError, match=r"loss is .*nan|loss is .*inf") as caught:
        train(corpus, folder, dataclasses.replace(TRAINING, learning_rate=1e38, weight_decay=1.0))
    assert str(folder) in str(caught.value)
    assert contents(folder) == before
    assert train(corpus, folder, TRAINING).progress.step == TRAINING.steps


def test_weights_that_are_not_finite_are_never_saved(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(corpus, folder, TRAINING, StopAfter(2))
    with pytest.raises(TrainingError):
        train(corpus, folder, dataclasses.replace(TRAINING, learning_rate=1e38, weight_decay=1.0, save_every=1))
    assert finite(folder)


@pytest.mark.parametrize("missing", ["train", "validation"])
def test_data_without_a_split_is_refused(corpus: Corpus, tmp_path: Path, missing: str) -> None:
    lacking = Corpus.__new__(Corpus)
    vars(lacking).update(vars(corpus))
    lacking.pieces = [{**piece, "split": "test"} if piece["split"] == missing else piece for piece in corpus.pieces]
    with pytest.raises(DataError, match="validation"):
        train(lacking, tmp_path / "run", TRAINING)
    assert not (tmp_path / "run").exists()


def test_a_kill_or_ctrl_c_at_any_moment_loses_at_most_the_last_interval(corpus: Corpus, tmp_path: Path) -> None:
    """A run that is stopped and resumed several times ends with the weights of an uninterrupted run. A signal goes to all its
    processes, as from a terminal or from systemd.
    """
    training = ["--preset=tiny", "--steps=80", "--batch=2", "--warmup=3", "--save-every=2", "--workers=1", "--no-samples"]
    examples = [f"--segmentation={part}" for part in ("latents=32", "context=64", "near=32", "sampled=16")]
    out, music = tmp_path / "run", music_of(tmp_path / "music")
    common = [str(music), f"--cache={tmp_path / 'cache'}", *training, *examples, "--device=cpu"]
    start = [sys.executable, "-m", "perceivers_live.cli", "train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    reached = 0
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            [*start, *common, f"--out={out}"], stderr=subprocess.PIPE, env=environment, text=True, start_new_session=True
        )
        while process.poll() is None and steps_of(out) <= reached:  # until there is a new save
            time.sleep(0.005)
        assert process.returncode is None
        os.killpg(process.pid, number)
        message = process.communicate()[1]
        assert number == signal.SIGKILL or f"{out}: saved at step" in message, message
        assert steps_of(out) > reached
        reached = steps_of(out)
    for folder in (out, tmp_path / "whole"):
        subprocess.run([*start, *common, f"--out={folder}"], check=True, capture_output=True, env=environment)
    resumed, whole = (load_file(folder / "state.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def music_of(folder: Path) -> Path:
    folder.mkdir()
    for i in range(3):
        write_file(folder / f"{i}.mid", [("piano", scales(i))])
    (folder / "maestro-made-here.csv").write_text("split,midi_filename\ntrain,0.mid\ntrain,1.mid\nvalidation,2.mid\n")
    return folder


def steps_of(folder: Path) -> int:
    try:
        return int(progress(folder)["step"])
    except FileNotFoundError:
        return 0


def test_gradient_accumulation_equals_the_whole_batch(corpus: Corpus, uninterrupted: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "run", dataclasses.replace(TRAINING, accumulate=2))
    parts, whole = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", uninterrupted))
    assert all(torch.allclose(parts[name], whole[name], atol=1e-4) for name in whole)


def test_a_batch_that_cannot_be_divided_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--batch 2 is not a multiple of 1 processes x --accumulate 3"):
        train(corpus, tmp_path / "run", dataclasses.replace(TRAINING, accumulate=3))


def test_the_moving_average_is_validated_and_published(corpus: Corpus, uninterrupted: Path, tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, ema=0.9)
    run = train(corpus, tmp_path / "run", training)
    published = load_model(tmp_path / "run" / "best")
    assert score(published, corpus, training) == pytest.approx(run.progress.best)
    trained = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(trained[name], tensor) for name, tensor in load_file(uninterrupted / "model.safetensors").items())
    assert not torch.equal(published.state_dict()["head.wait_out.weight"], trained["head.wait_out.weight"])
    assert torch.equal(published.state_dict()["head.wait_out.weight"], run.average["head.wait_out.weight"])


def test_an_error_of_the_data_loader_ends_the_process() -> None:
    """Its workers ignore the signal with which the interpreter ends child processes."""
    program = """
from torch.utils.data import DataLoader
from trainer.train import ignore_stop_signals, loaded

class Examples(list):
    def __getitem__(self, number):
        raise ValueError("no example")

for _ in loaded(DataLoader(Examples([1]), num_workers=1, worker_init_fn=ignore_stop_signals)):
    pass
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "no example" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported_in_one_line() -> None:
    with pytest.raises(UserError, match="--device cuda: a GPU is needed, but PyTorch finds none"), world("cuda"):
        pass


def test_training_in_bf16_reduces_the_loss(corpus: Corpus, tmp_path: Path) -> None:
    run = train(corpus, tmp_path / "run", dataclasses.replace(TRAINING, steps=40, batch=4, warmup=5, precision="bf16"))
    assert run.progress.best < 8
    assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())


def test_training_stops_without_improvement(corpus: Corpus, tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, learning_rate=0.0, validate_every=1, patience=2)
    run = train(corpus, tmp_path / "run", training)
    assert run.progress.step == 3  # the first validation is the best, then two without improvement
    assert progress(tmp_path / "run")["stale"] == 2
    assert train(corpus, tmp_path / "run", training).progress.step == 3, "trained on when it was resumed"


def test_a_full_disk_ends_the_run_in_one_line_and_keeps_the_last_save(corpus: Corpus, tmp_path: Path) -> None:
    """A limit on the file size simulates a full disk: a write fails halfway."""
    folder = tmp_path / "run"
    train(corpus, folder, TRAINING, StopAfter(2))
    before = contents(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["state.safetensors"]) // 2, limits[1]))
    try:
        with pytest.raises(TrainingError, match="cannot be written at step 3") as caught:
            train(corpus, folder, TRAINING, StopAfter(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before
    assert not list(folder.glob("*.part"))
    assert train(corpus, folder, TRAINING).progress.step == TRAINING.steps


def test_too_little_memory_ends_the_run_in_one_line(corpus: Corpus, tmp_path: Path) -> None:
    enormous = dataclasses.replace(TRAINING.segmentation, near=1 << 36)
    with pytest.raises(TrainingError, match="out of memory at step 0: raise --accumulate") as caught:
        train(corpus, tmp_path / "run", dataclasses.replace(TRAINING, segmentation=enormous))
    assert "\n" not in str(caught.value)


def test_a_killed_data_loader_process_ends_the_run_in_one_line(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.segmentation.augment", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(TrainingError, match="a data loader process was killed at step 0") as caught:
        train(corpus, tmp_path / "run", dataclasses.replace(TRAINING, workers=1))
    assert "\n" not in str(caught.value)


def test_training_writes_samples_and_curves(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(corpus, folder, dataclasses.replace(TRAINING, steps=4, validate_every=2, samples=True))
    for step in (2, 4):
        stem = folder / "samples" / f"step-{step:07d}"
        assert any(one.action < NOTE_OFF for one in read_file(stem.with_suffix(".mid")))  # the prompt, at least
        with Image.open(stem.with_suffix(".png")) as image:
            assert len(image.getcolors(1 << 20)) > 3  # background, black keys, notes
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [one.step for one in events.Scalars("training/loss")] == [1, 2, 3, 4]
    assert [one.step for one in events.Scalars("validation/nats an event")] == [2, 4]


def test_a_run_is_initialised_from_a_shallower_checkpoint(corpus: Corpus, uninterrupted: Path, tmp_path: Path) -> None:
    deeper = dataclasses.replace(PRESETS["tiny"], layers=5)
    source = load_model(uninterrupted)
    grown = PerceiverS(deeper)
    initialise(grown, uninterrupted)
    assert score(grown, corpus, TRAINING) == pytest.approx(score(source, corpus, TRAINING), abs=1e-5)
    run = train(corpus, tmp_path / "run", dataclasses.replace(TRAINING, learning_rate=0.0), config=deeper, init=uninterrupted)
    assert run.progress.best == pytest.approx(score(source, corpus, TRAINING), abs=1e-5)
    assert run.progress.earlier_events == progress(uninterrupted)["events"]
    with pytest.raises(CheckpointError, match="only layers can be added"):
        train(corpus, tmp_path / "other", TRAINING, config=dataclasses.replace(deeper, width=32), init=uninterrupted)


@pytest.mark.parametrize("change", ["scales=", "scales=64", "scales=64,24", "combine=sum", "mask=block"])
def test_every_ablation_reduces_the_loss(corpus: Corpus, tmp_path: Path, change: str) -> None:
    training = dataclasses.replace(TRAINING, steps=20, batch=4, warmup=5)
    run = train(corpus, tmp_path / "run", training, config=model_config("tiny", [change]))
    assert run.progress.best < 10  # from 11.5
    config, _ = read_config(tmp_path / "run" / "best")
    assert config == model_config("tiny", [change])


CHANGES = [("depth=3", "the names are"), ("layers", "write name=value"), ("layers=x", "a value")]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_an_invalid_config_change_is_refused_in_one_line(change: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        model_config("tiny", [change])
    assert "\n" not in str(caught.value)
