"""Features equal counts by hand, sets of the same kind of music reach the ceiling, and a difference lowers only the features
that it changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("tqdm")

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN
from trainer.data import Actions
from trainer.overlap import FEATURES, Row, compare, features

SECONDS = 15.0


def clip_of(rows: list[tuple[float, int, int]]) -> Actions:
    rows = sorted(rows, key=lambda row: row[0])
    return Actions(*(np.array([row[i] for row in rows], kind) for i, kind in enumerate((np.float64, np.int64, np.int64))))


def music(seed: int, *, semitones: int = 0, slower: float = 1.0, louder: int = 0) -> Actions:
    """15 seconds in C major with random tempo, register, velocity and articulation."""
    rng = np.random.default_rng(seed)
    beat, middle, touch, legato = rng.uniform(0.15, 0.3), rng.integers(50, 75), rng.integers(40, 80), rng.uniform(0.3, 0.9)
    now, rows = 0.0, []
    while now < SECONDS / slower - beat:
        octave, key = rng.integers(-1, 2), rng.choice([0, 2, 4, 5, 7, 9, 11], p=[0.3, 0.1, 0.2, 0.05, 0.2, 0.1, 0.05])
        pitch = int(middle // 12 * 12 + 12 * octave + key + semitones)
        rows.append((now * slower, NOTE_ON + pitch, int(touch + louder + rng.integers(-12, 13))))
        rows.append(((now + beat * legato) * slower, NOTE_OFF + pitch, 0))
        now += beat * rng.choice([1, 1, 2])
    return clip_of(rows)


REAL = [music(seed) for seed in range(24)]


def rows_of(real: list[Actions], generated: list[Actions], *, seed: int = 0, resamples: int = 20) -> dict[str, Row]:
    rows = compare(real, generated, np.random.default_rng(seed), resamples=resamples, splits=10)
    assert [row.feature for row in rows] == [*FEATURES, "mean"]
    return {row.feature: row for row in rows}


def lowered(rows: dict[str, Row]) -> set[str]:
    """Features with both figures clearly worse than their ceiling."""
    return {
        name
        for name, row in rows.items()
        if row.oa < row.ceiling_oa - 0.15 and row.kld > row.ceiling_kld + 0.1 and name != "mean"
    }


def test_features_equal_counts_by_hand() -> None:
    clip = clip_of(
        [
            (0.0, NOTE_OFF + 50, 0),  # struck before the clip, not counted
            (0.0, SUSTAIN_DOWN, 0),
            (0.002, NOTE_ON + 64, 50),
            (0.004, NOTE_ON + 60, 30),  # the same step: the chord is read C, E
            (1.004, NOTE_OFF + 60, 0),
            (2.002, NOTE_ON + 64, 70),  # struck again: the first one ends here
            (3.002, NOTE_ON + 72, 70),  # held at the end
            (4.0, NOTE_OFF + 64, 0),
        ]
    )
    found = features(clip)
    assert tuple(found) == FEATURES
    assert found["pitch_classes"].tolist() == [0.5, 0, 0, 0, 0.5, 0, 0, 0, 0, 0, 0, 0]
    transitions = found["pitch_class_transitions"].reshape(12, 12)
    assert transitions[0, 4] == transitions[4, 4] == transitions[4, 0] == pytest.approx(1 / 3)
    assert found["mean_pitch"].item() == 65
    assert found["pitch_range"].item() == 12
    assert found["inter_onset"].item() == pytest.approx((1.998 + 1.0) / 2)
    lengths = found["note_lengths"]  # half octaves: 1.0 s; 1.998 s and 2.0 s lie on both sides of an edge
    assert lengths.sum() == pytest.approx(1)
    assert sorted(lengths[lengths > 0].tolist()) == pytest.approx([1 / 3, 2 / 3])
    assert found["velocity"].item() == 55
    assert found["velocity_spread"].item() == pytest.approx(np.std([50, 30, 70, 70]))
    assert found["polyphony"].item() == pytest.approx((1.0 + 2.0 + 1.998 + 0.998) / 4)
    assert found["note_rate"].item() == 4


def one_key(pitch: int) -> Actions:
    return clip_of(
        [(0.0, NOTE_ON + pitch, 64), (1.0, NOTE_OFF + pitch, 0), (2.0, NOTE_ON + pitch, 64), (3.0, NOTE_OFF + pitch, 0)]
    )


def test_the_gap_between_two_notes_of_a_key_is_not_a_note() -> None:
    found = features(one_key(60))
    assert sorted(found["note_lengths"])[-2:] == [0, 1]
    assert found["polyphony"].item() == pytest.approx(2 / 3)


def test_a_clip_without_notes_has_only_a_note_rate() -> None:
    for clip in (clip_of([]), clip_of([(1.0, SUSTAIN_DOWN, 0)]), clip_of([(1.0, NOTE_OFF + 60, 0)])):
        found = features(clip)
        assert found["note_rate"].item() == 0
        assert all(np.isnan(vector).all() for name, vector in found.items() if name != "note_rate")


def test_one_note_has_no_transition_and_no_interval() -> None:
    found = features(clip_of([(1.0, NOTE_ON + 60, 64), (1.5, NOTE_OFF + 60, 0)]))
    missing = {name for name, vector in found.items() if np.isnan(vector).any()}
    assert missing == {"pitch_class_transitions", "inter_onset"}


def kernel_density(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    width = np.std(values, ddof=1) * len(values) ** -0.2
    return np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).mean(1) / (width * np.sqrt(2 * np.pi))


def test_figures_equal_those_of_kernel_densities_of_the_distances() -> None:
    generated = [music(seed, louder=10) for seed in range(100, 130)]
    ours, theirs = (np.array([features(clip)["velocity"].item() for clip in clips]) for clips in (REAL, generated))
    intra = np.abs(ours[:, None] - ours)[np.triu_indices(len(ours), 1)]
    inter = np.abs(ours[:, None] - theirs).ravel()
    grid = np.linspace(-60, 120, 1801)
    p, q = (kernel_density(distances, grid) * (grid[1] - grid[0]) for distances in (intra, inter))
    row = rows_of(REAL, generated)["velocity"]
    assert row.oa == pytest.approx(np.minimum(p, q).sum(), abs=0.01)
    assert row.kld == pytest.approx((p * np.log((p + 1e-12) / (q + 1e-12))).sum(), abs=0.02)


def test_the_same_clips_reach_the_ceiling() -> None:
    for row in rows_of(REAL, REAL).values():
        assert row.oa > row.ceiling_oa - 0.02
        assert row.kld < row.ceiling_kld + 0.02
        assert row.oa > 0.9


def test_more_music_of_the_same_kind_reaches_the_ceiling() -> None:
    rows = rows_of(REAL, [music(seed) for seed in range(100, 124)])
    assert lowered(rows) == set()
    assert rows["mean"].oa == pytest.approx(rows["mean"].ceiling_oa, abs=0.06)


def test_transposing_by_two_octaves_changes_only_the_mean_pitch() -> None:
    assert lowered(rows_of(REAL, [music(seed, semitones=24) for seed in range(100, 124)])) == {"mean_pitch"}


def test_another_key_changes_the_pitch_classes() -> None:
    rows = rows_of(REAL, [music(seed, semitones=6) for seed in range(100, 124)])
    assert lowered(rows) - {"mean_pitch"} == {"pitch_classes", "pitch_class_transitions"}


def test_half_the_tempo_changes_the_features_measured_in_seconds() -> None:
    rows = rows_of(REAL, [music(seed, slower=2.0) for seed in range(100, 124)])
    scattered = {"pitch_classes", "pitch_class_transitions"}  # noisier with half as many notes
    assert lowered(rows) - scattered == {"inter_onset", "note_lengths", "note_rate"}


def test_louder_playing_changes_only_the_velocity() -> None:
    assert lowered(rows_of(REAL, [music(seed, louder=40) for seed in range(100, 124)])) == {"velocity"}


def test_a_larger_difference_gives_worse_figures() -> None:
    rows = [rows_of(REAL, [music(seed, louder=by) for seed in range(100, 124)])["velocity"] for by in (0, 20, 40)]
    assert rows[0].oa > rows[1].oa > rows[2].oa
    assert rows[0].kld < rows[1].kld < rows[2].kld


def test_the_mean_row_is_the_mean_of_the_others() -> None:
    rows = rows_of(REAL, [music(seed, louder=20) for seed in range(100, 124)])
    for field in ("oa", "kld", "ceiling_oa", "ceiling_kld"):
        assert getattr(rows["mean"], field) == pytest.approx(np.mean([getattr(rows[name], field) for name in FEATURES]))


@pytest.mark.parametrize("louder", [0, 40])
def test_confidence_intervals_contain_the_figure_and_stay_in_range(louder: int) -> None:
    for row in rows_of(REAL, [music(seed, louder=louder) for seed in range(100, 124)]).values():
        assert 0 <= row.oa_low <= row.oa <= row.oa_high <= 1
        assert 0 <= row.kld_low <= row.kld <= row.kld_high
        assert row.oa_low < row.oa_high


def test_confidence_intervals_are_narrower_with_more_clips() -> None:
    few, many = (rows_of(REAL[:n], [music(seed) for seed in range(100, 100 + n)], resamples=40)["mean"] for n in (6, 24))
    assert many.oa_high - many.oa_low < few.oa_high - few.oa_low


def test_the_same_seed_gives_the_same_rows() -> None:
    generated = [music(seed) for seed in range(100, 110)]
    assert rows_of(REAL, generated, seed=3) == rows_of(REAL, generated, seed=3)
    assert rows_of(REAL, generated, seed=3) != rows_of(REAL, generated, seed=4)


def test_the_order_of_clips_does_not_matter() -> None:
    generated = [music(seed, louder=10) for seed in range(100, 120)]
    rows, again = rows_of(REAL, generated), rows_of(REAL[::-1], generated[::-1])
    for name in FEATURES:
        assert again[name].oa == pytest.approx(rows[name].oa, abs=1e-9)
        assert again[name].kld == pytest.approx(rows[name].kld, abs=1e-9)


def test_either_set_can_be_the_real_one() -> None:
    generated = [music(seed, louder=40) for seed in range(100, 124)]
    assert lowered(rows_of(generated, REAL)) == {"velocity"}


def test_sets_may_differ_in_size() -> None:
    assert lowered(rows_of(REAL, [music(seed) for seed in range(100, 110)])) == set()


def test_equal_distances_give_full_overlap_and_resampled_copies_form_no_pairs() -> None:
    """All pairs of different clips have the same distance in pitch classes; a pair of copies would have the distance 0."""
    rows = rows_of([one_key(60 + i) for i in range(6)], [one_key(66 + i) for i in range(6)])
    for name in ("pitch_classes", "pitch_class_transitions", "velocity", "polyphony"):
        row = dataclasses.astuple(rows[name])
        assert row[1:] == pytest.approx((1, 1, 1, 0, 0, 0, 1, 0))


def test_identical_real_clips_and_different_generated_ones_do_not_overlap() -> None:
    row = rows_of([one_key(60)] * 6, [one_key(72 + i) for i in range(6)])["mean_pitch"]
    assert row.oa == pytest.approx(0, abs=1e-3)
    assert 5 < row.kld < 20
    assert row.ceiling_oa == 1


def test_fewer_than_three_clips_have_no_figures() -> None:
    for real, generated in ((REAL, REAL[:2]), (REAL[:2], REAL), ([], []), (REAL, [])):
        for row in rows_of(real, generated).values():
            assert all(np.isnan(dataclasses.astuple(row)[1:]))


def test_three_clips_have_figures_but_no_ceiling() -> None:
    for row in rows_of(REAL[:3], REAL[10:13], resamples=60).values():
        assert 0 <= row.oa_low <= row.oa <= row.oa_high <= 1
        assert np.isnan([row.ceiling_oa, row.ceiling_kld]).all()


def test_without_resamples_figures_have_no_confidence_intervals() -> None:
    row = rows_of(REAL, REAL[:5], resamples=0)["mean"]
    assert row.oa > 0.5
    assert np.isnan([row.oa_low, row.oa_high, row.kld_low, row.kld_high]).all()


def test_clips_without_notes_count_only_for_the_note_rate() -> None:
    generated, silent = [music(seed) for seed in range(100, 112)], clip_of([])
    rows, with_silence = rows_of(REAL, generated), rows_of(REAL, [silent, *generated, silent, silent])
    for name in FEATURES:
        same = with_silence[name].oa == pytest.approx(rows[name].oa, abs=1e-9)
        assert same == (name != "note_rate")
    assert with_silence["note_rate"].oa < rows["note_rate"].oa


def test_a_feature_that_few_clips_have_is_left_out_of_the_mean() -> None:
    rows = rows_of(REAL, [clip_of([])] * 6)
    assert all(np.isnan(rows[name].oa) for name in FEATURES if name != "note_rate")
    assert rows["mean"].oa == rows["note_rate"].oa < 0.2
