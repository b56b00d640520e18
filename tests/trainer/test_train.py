"""Training learns, resumes to the bit, and never loses a good checkpoint."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

pytest.importorskip("symusic")

from engine.checkpoint import load_model  # noqa: E402
from engine.config import PRESETS, CheckpointError  # noqa: E402
from engine.events import NOTE_OFF, NOTE_ON, Timed  # noqa: E402
from engine.midi import write_file  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from trainer.data import Corpus, DataError, prepare  # noqa: E402
from trainer.segmentation import Segmentation  # noqa: E402
from trainer.train import Training, train, validate  # noqa: E402

TRAINING = Training(
    preset="tiny",
    steps=8,
    batch=2,
    warmup=3,
    validate_every=1000,
    validation_batches=2,
    save_every=1000,
    segmentation=Segmentation(latents=32, context=64, near=32, sampled=16),
)
FILES = ("config.json", "model.safetensors", "state.safetensors")


class StopAfter(threading.Event):
    """Set once it has been asked ``count`` times, as if interrupted in that step."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    def is_set(self) -> bool:
        self._left -= 1
        return self._left <= 0


def scales(turn: int) -> list[Timed]:
    """Up and down in an even rhythm: easy to learn."""
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
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def unbroken(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    torch.set_num_threads(1)
    train(corpus, folder, TRAINING)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def progress(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "config.json").read_text())["progress"]
    return found


def finite(folder: Path) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in load_model(folder).parameters())


def test_the_loss_falls(corpus: Corpus, tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, steps=40, batch=4, warmup=5)
    torch.manual_seed(training.seed)
    before = validate(PerceiverS(PRESETS["tiny"]), corpus, training)
    run = train(corpus, tmp_path / "run", training)
    after = validate(run.model, corpus, training)
    assert before > 8
    assert after < before - 3
    assert run.best == pytest.approx(after)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["validation"] for row in log if "validation" in row] == [pytest.approx(after, abs=1e-3)]


def test_a_finished_run_is_a_checkpoint_and_so_is_its_best(corpus: Corpus, unbroken: Path) -> None:
    assert progress(unbroken)["step"] == TRAINING.steps
    assert finite(unbroken)
    assert load_model(unbroken / "best").config == PRESETS["tiny"]
    assert validate(load_model(unbroken / "best"), corpus, TRAINING) == pytest.approx(progress(unbroken)["best"])


@pytest.mark.parametrize("interruptions", [(1,), (3,), (2, 2, 1)], ids=str)
def test_an_interrupted_run_goes_on_to_the_bit(
    corpus: Corpus, unbroken: Path, tmp_path: Path, interruptions: tuple[int, ...]
) -> None:
    folder, done = tmp_path / "run", 0
    for count in interruptions:
        done += count
        assert train(corpus, folder, TRAINING, StopAfter(count)).step == done
        assert progress(folder)["step"] == done
    assert train(corpus, folder, TRAINING).step == TRAINING.steps
    for name in ("model.safetensors", "state.safetensors"):
        resumed, whole = load_file(folder / name), load_file(unbroken / name)
        assert resumed.keys() == whole.keys()
        assert all(torch.equal(resumed[key], whole[key]) for key in whole), name
    assert {k: v for k, v in progress(folder).items() if k != "seconds"} == {
        k: v for k, v in progress(unbroken).items() if k != "seconds"
    }


def test_another_seed_is_another_run(corpus: Corpus, unbroken: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "run", dataclasses.replace(TRAINING, seed=1))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != (unbroken / "model.safetensors").read_bytes()


def test_a_finished_run_is_left_as_it_is(corpus: Corpus, unbroken: Path) -> None:
    before = contents(unbroken)
    assert train(corpus, unbroken, TRAINING).step == TRAINING.steps
    assert contents(unbroken) == before


@pytest.mark.parametrize("written", [0, 1, 2], ids=["nothing", "state", "state and weights"])
def test_a_run_killed_while_it_saves_can_be_resumed(corpus: Corpus, unbroken: Path, tmp_path: Path, written: int) -> None:
    folder = tmp_path / "run"
    train(corpus, folder, TRAINING, StopAfter(4))
    (folder / "state.part").write_bytes(b"half a state")
    in_the_order_of_saving = ("state.safetensors", "model.safetensors", "config.json")
    for name in in_the_order_of_saving[:written]:
        shutil.copy(unbroken / name, folder / name)
    assert train(corpus, folder, TRAINING).step == TRAINING.steps


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_state_is_refused_in_one_line(corpus: Corpus, unbroken: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder)
    path = folder / "state.safetensors"
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    with pytest.raises(CheckpointError) as caught:
        train(corpus, folder, dataclasses.replace(TRAINING, steps=10))
    assert "\n" not in str(caught.value)


def test_a_bundle_that_is_no_run_is_refused_in_one_line(corpus: Corpus, unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken / "best", folder)  # weights and config, no optimizer
    with pytest.raises(CheckpointError):
        train(corpus, folder, dataclasses.replace(TRAINING, steps=10))


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(corpus, folder, TRAINING, StopAfter(2))
    before = contents(folder)
    with pytest.raises(FloatingPointError, match=r"loss is .*nan|loss is .*inf") as caught:
        train(corpus, folder, dataclasses.replace(TRAINING, learning_rate=1e38, weight_decay=1.0))
    assert str(folder) in str(caught.value)
    assert contents(folder) == before
    assert train(corpus, folder, TRAINING).step == TRAINING.steps


def test_weights_that_are_no_numbers_are_never_saved(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(corpus, folder, TRAINING, StopAfter(2))
    with pytest.raises(FloatingPointError):
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
