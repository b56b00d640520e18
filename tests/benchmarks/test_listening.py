"""From a folder of music to a table: calls, replies, figures, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.calls import MIN_NOTES, SEARCH, cut_calls, excerpt
from benchmarks.listening import main
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi_file import write_file
from trainer.data import Corpus, DataError, prepare
from trainer.reading import actions_of

SECONDS = 3.0


def tune(seed: int, length: float) -> list[Timed]:
    rng = np.random.default_rng(seed)
    now, timed = 0.0, [Timed(0.0, SUSTAIN_DOWN)]
    while now < length:
        pitch = int(rng.integers(48, 80))
        timed += [Timed(now, NOTE_ON + pitch, int(rng.integers(30, 100))), Timed(now + 0.08, NOTE_OFF + pitch)]
        now += 0.1 if rng.random() < 0.95 else 0.7
    return [*timed, Timed(now, SUSTAIN_UP)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("music")
    for i in range(40):
        write_file(folder / f"piece-{i:02}.mid", [("piano", tune(i, 2 * SECONDS + SEARCH + 4))])
    return Corpus(prepare(folder, tmp_path_factory.mktemp("cache"), workers=1))


def test_calls_end_at_a_wide_gap_where_their_continuations_begin(corpus: Corpus) -> None:
    calls = cut_calls(corpus, "train", 20, SECONDS, seed=3)
    assert len({one.piece for one in calls}) == 20
    gaps = []
    for one in calls:
        first = one.continuation[1] if one.continuation[0].action == SUSTAIN_DOWN else one.continuation[0]
        assert first.action < NOTE_OFF
        assert one.call[-1].time <= first.time
        assert one.call[-1].time - one.call[0].time <= SECONDS + 1e-6
        assert sum(event.action < NOTE_OFF for event in one.call) >= MIN_NOTES
        gaps.append(first.time - max(event.time for event in one.call if event.action < NOTE_OFF))
    assert np.median(gaps) > 0.5  # most gaps are 0.1 s


def test_the_same_seed_cuts_the_same_calls_and_another_does_not(corpus: Corpus) -> None:
    assert cut_calls(corpus, "train", 5, SECONDS, seed=3) == cut_calls(corpus, "train", 5, SECONDS, seed=3)
    assert cut_calls(corpus, "train", 5, SECONDS, seed=3) != cut_calls(corpus, "train", 5, SECONDS, seed=4)


def test_several_calls_are_cut_from_one_piece_if_there_are_few_pieces(corpus: Corpus) -> None:
    assert len(corpus.split("validation")) == 2
    assert len(cut_calls(corpus, "validation", 5, SECONDS, seed=0)) == 5


def test_pieces_that_are_too_short_are_refused_in_one_line(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="0 pieces of the train split are long enough"):
        cut_calls(corpus, "train", 5, 60.0, seed=0)


def test_an_excerpt_keeps_the_pedal_and_releases_everything_at_its_end() -> None:
    music = actions_of(
        [
            Timed(0.0, SUSTAIN_DOWN),
            Timed(1.0, NOTE_ON + 60, 64),
            Timed(2.5, NOTE_OFF + 60),
            Timed(3.0, NOTE_ON + 64, 64),
            Timed(5.0, NOTE_OFF + 64),
        ]
    )
    assert excerpt(music, 2.0, 4.0) == [
        Timed(2.0, SUSTAIN_DOWN),
        Timed(3.0, NOTE_ON + 64, 64),
        Timed(4.0, NOTE_OFF + 64),
        Timed(4.0, SUSTAIN_UP),
    ]


def test_the_command_writes_replies_scores_and_figures(corpus: Corpus, tmp_path: Path) -> None:
    def run(*more: str) -> str:
        asked = [str(corpus.folder), "--calls", "3", "--seconds", str(SECONDS), "--split", "train", *more]
        result = CliRunner().invoke(main, asked, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    first, second = tmp_path / "one.json", tmp_path / "two.json"
    output = run("--json", str(first), "--out", str(tmp_path / "out"))
    assert "mean" in output
    assert "faults" in output
    assert {"scores.png", "rolls-0.png", "reply-2.mid"} <= {path.name for path in (tmp_path / "out").iterdir()}
    figures = json.loads(first.read_text())
    assert len(figures["faults"]) == len(figures["distances"]["key"]["reply"]) == 3
    again = run("--json", str(second), "--workers", "2", "--beside", str(first), "--set", "temperature=1")
    assert json.loads(second.read_text())["distances"] == figures["distances"]
    mean = next(line for line in again.splitlines() if line.startswith("mean"))
    assert "+0.000" in mean


def test_unknown_controls_and_other_calls_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, [str(corpus.folder), "--set", "temprature=1"])
    assert refused.exit_code == 1
    assert "nearest is temperature" in refused.output
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"names": ["x"]}))
    asked = [str(corpus.folder), "--split", "train", "--calls", "2", "--seconds", str(SECONDS), "--beside", str(other)]
    refused = CliRunner().invoke(main, asked)
    assert refused.exit_code == 1
    assert "was made with other calls" in refused.output
