"""The likelihood is the same in chunks, streamed and with a cut history; the report contains all figures."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tqdm")

from engine.checkpoint import load_model, save_model  # noqa: E402
from engine.config import CheckpointError  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.events import NOTE_OFF  # noqa: E402
from engine.midi_file import write_file  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes.choose import open_runtime  # noqa: E402
from engine.runtimes.onnx import OnnxRuntime  # noqa: E402
from engine.runtimes.pytorch import TorchRuntime  # noqa: E402
from tests.music import improvise_timed  # noqa: E402
from tests.perceivers_live.toys import ToyRuntime, steady  # noqa: E402
from tests.trainer.test_train import music_of  # noqa: E402
from trainer import likelihood  # noqa: E402
from trainer.baselines import baseline  # noqa: E402
from trainer.data import Corpus, DataError, prepare  # noqa: E402
from trainer.evaluate import MAX_RATE, evenly_spaced, report  # noqa: E402
from trainer.export import export  # noqa: E402
from trainer.int8 import add_int8  # noqa: E402
from trainer.likelihood import Sums, cut_losses, forward_losses, piece_events, piece_losses, streamed_losses  # noqa: E402
from trainer.samples import continue_music  # noqa: E402
from trainer.segmentation import Segmentation  # noqa: E402
from trainer.settings import Training, model_config  # noqa: E402
from trainer.train import train  # noqa: E402


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(prepare(music_of(tmp_path_factory.mktemp("data") / "music"), tmp_path_factory.mktemp("cache"), workers=1))


@pytest.fixture(scope="module")
def bundle(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model after a short training."""
    folder = tmp_path_factory.mktemp("model")
    how = Segmentation(latents=32, context=64, near=32, sampled=16)
    settings = Training("tiny", steps=60, batch=4, warmup=5, workers=0, samples=False, segmentation=how)
    train(corpus, folder / "run", settings)
    export(folder / "run" / "best", folder / "bundle")
    return folder / "bundle"


def test_an_export_changes_no_other_files(bundle: Path, tmp_path: Path) -> None:
    """The folder may contain other files, such as those of the run."""
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "secret").touch(mode=0o600)
    export(bundle, tmp_path)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_an_export_that_fails_leaves_the_earlier_bundle_unchanged(bundle: Path, tmp_path: Path) -> None:
    """A limit on the file size simulates a full disk."""
    run, folder = bundle.parent / "run" / "best", tmp_path / "bundle"
    export(run, folder)
    (folder / "step.int8.onnx").write_bytes(b"of the earlier bundle")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["model.safetensors"]) // 2, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot be written") as caught:
            export(run, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    export(run, folder)
    assert not (folder / "step.int8.onnx").exists()


def test_an_export_onto_the_checkpoint_itself_is_refused(bundle: Path) -> None:
    run = bundle.parent / "run" / "best"
    with pytest.raises(CheckpointError, match="is the checkpoint itself"):
        export(run, run)


@pytest.fixture(scope="module")
def model(bundle: Path) -> PerceiverS:
    return load_model(bundle)


@pytest.fixture(scope="module")
def events(corpus: Corpus) -> np.ndarray:
    return piece_events(corpus, corpus.split("validation")[0])


@torch.inference_mode()
def test_a_long_piece_in_chunks_equals_one_forward(
    model: PerceiverS, events: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = forward_losses(model, events, 0, 0, len(events) - 1)
    monkeypatch.setattr(likelihood, "CHUNK", 23)
    assert np.allclose(piece_losses(model, events), whole, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("runtime", ["eager", "onnx"])
def test_streaming_equals_the_full_forward(bundle: Path, model: PerceiverS, events: np.ndarray, runtime: str) -> None:
    engine = Engine(open_runtime(runtime, bundle))
    assert np.allclose(streamed_losses(engine, model, events), piece_losses(model, events), atol=1e-3)


@torch.inference_mode()
def test_a_history_cut_beyond_the_models_reach_equals_the_whole_history(model: PerceiverS, corpus: Corpus) -> None:
    pieces = corpus.split("validation")
    reach = model.config.reach + model.config.window * model.config.layers
    cuts = cut_losses(model, corpus, pieces, (8, reach, None), np.random.default_rng(0), stretches=20, length=10)
    assert cuts[reach] == pytest.approx(cuts[None], abs=1e-4)
    assert abs(cuts[8] - cuts[None]) > 0.01


def test_pieces_shorter_than_the_cut_have_no_figure(model: PerceiverS, corpus: Corpus) -> None:
    assert cut_losses(model, corpus, corpus.split("validation"), (100_000, None), np.random.default_rng(0)) == {}


def test_rates_are_ratios_of_the_totals() -> None:
    events = np.array([[0, 259, 32], [50, 60, 10], [50, NOTE_OFF + 60, 32]])
    sums = Sums()
    sums.add(events, np.array([1.0, 2.0, 3.0]))
    sums.add(events, np.array([0.0, 0.0, 6.0]))
    assert sums.rates() == {
        "nats_per_event": 12 / 4,
        "nats_per_note": 12 / 2,
        "nats_per_second": 12 / 2.0,
        "nats_per_388_token": 12 / 10,  # two shifts, a note-on, a note-off and a velocity each
    }


def test_bigrams_beat_unigrams(corpus: Corpus) -> None:
    pieces = corpus.split("validation")
    unigram, bigram = (baseline(corpus, pieces, bigram=bigram).rates()["nats_per_event"] for bigram in (False, True))
    assert bigram < unigram - 0.5


def test_the_report_is_printed_and_written(
    corpus: Corpus, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.evaluate.CLIP", 8.0)  # the toy music is short
    figures = report(corpus, bundle, split="validation", clips=8, json_file=tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert all(isinstance(value, (int, float, str)) for value in figures.values())  # flat and complete
    assert figures["streaming_nats_per_event"] == pytest.approx(figures["full_forward_nats_per_event"], abs=0.005)
    assert figures["nats_per_event"] < figures["bigram_nats_per_event"]
    assert 0 <= figures["oa_mean"] <= 1
    assert figures["copied_notes_real_max"] > 0
    text = capsys.readouterr().out
    assert f"{figures['nats_per_388_token']:.4f}" in text
    assert "real-real" in text


def test_a_quick_report_contains_only_likelihoods(corpus: Corpus, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = report(corpus, bundle, split="validation", quick=True)
    assert "clips" not in figures
    assert "real-real" not in capsys.readouterr().out


def test_a_split_without_pieces_is_refused(corpus: Corpus, bundle: Path) -> None:
    with pytest.raises(DataError, match="no test pieces, but 2 train, 1 validation; --split all"):
        report(corpus, bundle, split="test")


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_own_files_are_evaluated_completely(
    count: int, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(count):
        write_file(folder / f"{i}.mid", [("piano", improvise_timed(60, seed=i))])
    own = Corpus(prepare(folder, tmp_path / "cache", workers=1))
    figures = report(own, bundle, split="all", clips=3)
    assert figures["pieces"] == count
    assert figures["events"] == sum(len(piece_events(own, piece)) - 1 for piece in range(count))
    assert figures["nats_per_event"] == pytest.approx(figures["streaming_nats_per_event"], abs=1e-3)
    assert not [name for name in figures if name.startswith(("unigram", "bigram", "copied"))], "there is no training split"
    assert f"all: {count} pieces" in capsys.readouterr().out


def test_clips_have_the_length_of_the_real_ones_however_fast_the_model_plays(corpus: Corpus) -> None:
    engine = Engine(ToyRuntime(steady(1)))
    played = continue_music(engine, [], 15.0, np.random.default_rng(0), max_rate=MAX_RATE)
    assert played[-1].time == pytest.approx(15.0, abs=0.05)
    assert len(played) > 1400
    short = continue_music(engine, [], 15.0, np.random.default_rng(0))
    assert short[-1].time == pytest.approx(6.0, abs=0.05)


def test_pieces_shorter_than_a_clip_have_no_clips(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_file(tmp_path / "short.mid", [("piano", [one for one in improvise_timed(200, seed=1) if one.time < 20])])
    own = Corpus(prepare(tmp_path, tmp_path / "cache", workers=1))
    figures = report(own, bundle, split="all", clips=3)
    assert "continuations: no piece is 25 s long" in capsys.readouterr().out
    assert not [name for name in figures if name.startswith(("oa_", "clips"))]


def test_int8_is_measured_one_event_at_a_time(
    bundle: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it plays: the events of a chunk would share the scale of their activations."""
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    sizes: dict[str, set[int]] = {"onnx": set(), "onnx-int8": set()}
    step = OnnxRuntime.step

    def recorded(runtime: OnnxRuntime, events: np.ndarray, *rest: Any) -> None:
        sizes[runtime.name].add(len(events))
        step(runtime, events, *rest)

    monkeypatch.setattr(OnnxRuntime, "step", recorded)
    add_int8(tmp_path, corpus, pieces=1)
    assert sizes["onnx-int8"] == {1}
    assert max(sizes["onnx"]) > 1


def test_int8_weights_need_validation_pieces(bundle: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "split", lambda _: [])
    before = sorted(bundle.iterdir())
    with pytest.raises(DataError, match="no validation pieces"):
        add_int8(bundle, corpus)
    assert sorted(bundle.iterdir()) == before


def test_pieces_are_spread_evenly() -> None:
    assert evenly_spaced(range(10, 20), 3) == [10, 14, 19]
    assert evenly_spaced([1, 2], 5) == evenly_spaced([1, 2], None) == [1, 2]


@pytest.mark.parametrize(("limit", "verdict"), [(0.01, "accepted"), (-1.0, "refused")])
def test_int8_is_kept_only_if_the_loss_of_likelihood_is_within_the_limit(
    bundle: Path, corpus: Corpus, tmp_path: Path, limit: float, verdict: str
) -> None:
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    message = add_int8(tmp_path, corpus, limit=limit)
    assert message.startswith(f"int8 {verdict}")
    assert (tmp_path / "step.int8.onnx").exists() == (verdict == "accepted")
    if verdict == "accepted":
        assert open_runtime("onnx-int8", tmp_path).name == "onnx-int8"


def test_ablations_that_cannot_stream_are_refused_by_the_engine_and_not_exported(tmp_path: Path) -> None:
    model = PerceiverS(model_config("tiny", ["mask=block"]))
    with pytest.raises(ValueError, match="cannot stream"):
        Engine(TorchRuntime(model))
    save_model(model, tmp_path / "run")
    with pytest.raises(ValueError, match="cannot stream"):
        export(tmp_path / "run", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
