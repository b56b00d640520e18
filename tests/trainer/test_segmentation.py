"""Effective Segmentation: every event is a target, prefixes of any length are drawn, and all targets are legal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.codec import encode_arrays
from engine.config import PRESETS
from engine.events import END, MAX_WAIT, NOTE_OFF, NOTE_ON, REST, START, START_EVENT, SUSTAIN_DOWN, SUSTAIN_UP
from engine.sounding import ages_of, legal_actions
from tests.music import improvise_timed

pytest.importorskip("tqdm")  # a dependency of the trainer

from trainer.data import Actions, DataError
from trainer.reading import actions_of
from trainer.segmentation import Example, Segmentation, augment, draw
from trainer.settings import changed

PLAIN = Segmentation(latents=16, context=48, near=16, sampled=8, cold=0.0, transpose=0, stretch=0.0, loudness=0)
COLD = dataclasses.replace(PLAIN, cold=1.0)
AUGMENTED = dataclasses.replace(PLAIN, cold=0.3, transpose=4, stretch=0.06, loudness=6)


def piece_of(count: int, *, seed: int) -> Actions:
    timed = improvise_timed(count, seed=seed)
    return Actions(
        np.array([one.time for one in timed]),
        np.array([one.action for one in timed], np.int64),
        np.array([one.velocity for one in timed], np.int64),
    )


@pytest.fixture(scope="module")
def piece() -> Actions:
    return piece_of(180, seed=8)


def draws(piece: Actions, how: Segmentation, count: int, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [draw(piece, how, rng) for _ in range(count)]


def test_no_event_is_drawn_too_rarely_as_a_target(piece: Actions) -> None:
    events = encode_arrays(*piece, end=True)
    counts = np.zeros(len(events), int)
    for example in draws(piece, PLAIN, 2500):
        places = example.positions[-PLAIN.latents :][example.weight > 0] + 1
        counts[places] += 1
    assert counts[0] == 0  # the start is given
    usual = np.median(counts[1:])
    assert counts[1] > 0.75 * usual  # the first note
    assert counts[-1] > 0.75 * usual  # the end
    assert counts[1:].min() > 0.7 * usual
    assert counts[1:].max() < 2.3 * usual  # near the ends, where clipped excerpts accumulate


def test_prefixes_down_to_the_start_event_alone_are_drawn(piece: Actions) -> None:
    shortest = min((example.positions >= 0).sum() - example.weight.sum() for example in draws(piece, PLAIN, 100))
    assert shortest == 0  # the first target is predicted from the start event, which is a latent itself


@pytest.mark.parametrize("how", [PLAIN, AUGMENTED, COLD], ids=["plain", "augmented", "cold"])
def test_targets_are_the_inputs_shifted_by_one(piece: Actions, how: Segmentation) -> None:
    for example in draws(piece, how, 150):
        n = int(example.weight.sum())
        assert np.array_equal(example.events[len(example.events) - n :][1:], example.targets[len(example.targets) - n :][:-1])


def test_examples_without_augmentation_equal_the_piece(piece: Actions) -> None:
    events = encode_arrays(*piece, end=True)
    ages = ages_of(events)
    for example in draws(piece, PLAIN, 200):
        there = example.positions >= 0
        where = example.positions[there]
        assert np.array_equal(example.events[there], events[where])
        assert np.array_equal(example.ages[there], ages[where])
        assert np.array_equal(example.times[there], np.cumsum(events[:, 0])[where])
        last = example.positions[-PLAIN.latents :][example.weight > 0]
        assert np.array_equal(example.targets[example.weight > 0], events[last + 1])


def check_legal(example: Example) -> None:
    """Every target has a positive probability for the model."""
    legals = legal_actions(example.ages[-len(example.targets) :] >= 0)
    for (wait, action, velocity), legal, weight in zip(example.targets.tolist(), legals, example.weight, strict=True):
        if weight:
            assert 0 <= wait <= MAX_WAIT
            assert legal[action], "an action that is illegal with the sounding keys and pedal"
            assert action != START
            assert action != REST or wait == MAX_WAIT, "a rest shorter than the longest wait"
            assert (velocity < 32) == (action < NOTE_OFF)


@pytest.mark.parametrize("how", [PLAIN, AUGMENTED, COLD], ids=["plain", "augmented", "cold"])
def test_all_targets_are_legal(how: Segmentation) -> None:
    for seed in range(4):
        for example in draws(piece_of(180, seed=seed), how, 150, seed):
            check_legal(example)


@pytest.mark.parametrize("how", [PLAIN, AUGMENTED, COLD], ids=["plain", "augmented", "cold"])
def test_positions_ascend_and_padding_is_in_front(piece: Actions, how: Segmentation) -> None:
    for example in draws(piece, how, 150):
        padding = int((example.positions < 0).sum())
        assert (example.positions[:padding] == -1).all()
        assert (np.diff(example.positions[padding:]) > 0).all()
        assert (example.ages[:padding] == -1).all()


def test_every_example_has_the_same_shape(piece: Actions) -> None:
    shapes = {tuple(part.shape for part in example) for example in draws(piece, AUGMENTED, 60)}
    total = AUGMENTED.near + AUGMENTED.sampled + AUGMENTED.latents
    n = AUGMENTED.latents
    assert shapes == {((total, 3), (total, 129), (total,), (total,), (total,), (n, 3), (n,))}


def test_context_is_all_near_events_and_a_sample_of_older_ones_within_reach(piece: Actions) -> None:
    gaps = 0
    for example in draws(piece, PLAIN, 300):
        begin = int(example.positions[-PLAIN.latents])
        before = example.positions[(example.positions >= 0) & (example.positions < begin)]
        assert (before >= begin - PLAIN.context).all()
        assert set(range(max(0, begin - PLAIN.near), begin)) <= set(before.tolist())
        older = before[before < begin - PLAIN.near]
        assert len(older) == min(PLAIN.sampled, max(0, begin - PLAIN.near))
        gaps += bool((np.diff(older) > 1).any())
    assert gaps > 100  # context is dropped at random


def test_a_cold_start_begins_with_the_start_event_and_no_held_keys(piece: Actions) -> None:
    cold = 0
    for example in draws(piece, COLD, 200):
        there = example.positions >= 0
        events = example.events[there]
        assert tuple(events[0]) == START_EVENT
        assert example.positions[there][0] == 0
        assert np.array_equal(example.ages[there], ages_of(events))  # only keys struck since the start sound
        assert (events[1:, 1] != START).all()
        cold += not np.array_equal(events, encode_arrays(*piece, end=True)[: len(events)])
    assert cold > 100


def test_a_cold_start_begins_with_wait_0() -> None:
    # in a live session, the first action defines time zero
    for seed in range(4):
        for example in draws(piece_of(180, seed=seed), COLD, 100, seed):
            if example.weight.any():
                wait, action, _ = example.targets[example.weight > 0][0].tolist()
                assert (wait, action == REST) == (0, False)


def test_the_share_of_cold_starts_is_as_configured(piece: Actions) -> None:
    how = dataclasses.replace(PLAIN, cold=0.25)
    original = encode_arrays(*piece, end=True)
    late = 0
    for example in draws(piece, how, 800):
        events = example.events[example.positions >= 0]
        late += tuple(events[0]) == START_EVENT and not np.array_equal(events, original[: len(events)])
    assert 0.15 < late / 800 < 0.32


def test_short_pieces_are_padded_with_weight_zero() -> None:
    actions = np.array([NOTE_ON + 60, SUSTAIN_DOWN, NOTE_OFF + 60, SUSTAIN_UP])
    piece = Actions(np.array([0.0, 0.5, 0.6, 1.0]), actions, np.array([70, 0, 0, 0]))
    for example in draws(piece, PLAIN, 20):
        assert example.weight.tolist() == [0.0] * 11 + [1.0] * 5
        assert example.targets[-5:, 1].tolist() == [NOTE_ON + 60, SUSTAIN_DOWN, NOTE_OFF + 60, SUSTAIN_UP, END]
        assert example.targets[-5:, 0].tolist() == [0, 50, 10, 40, 0]
        assert example.positions[-5:].tolist() == [0, 1, 2, 3, 4]
        assert (example.positions[:-5] == -1).all()


def test_the_same_seed_gives_the_same_example(piece: Actions) -> None:
    for seed in range(10):
        one, two, other = (draw(piece, AUGMENTED, np.random.default_rng(s)) for s in (seed, seed, seed + 100))
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_augmentation_transposes_stretches_and_stays_in_bounds() -> None:
    piece = piece_of(120, seed=3)
    how = dataclasses.replace(PLAIN, transpose=4, stretch=0.06, loudness=6)
    rng = np.random.default_rng(1)
    notes, struck = piece.actions < SUSTAIN_DOWN, piece.actions < NOTE_OFF
    shifts, speeds, louder = set(), [], set()
    for _ in range(200):
        other = augment(piece, how, rng)
        (shift,) = set((other.actions - piece.actions)[notes].tolist())
        assert np.array_equal(other.actions[~notes], piece.actions[~notes])
        speed = other.times / piece.times
        assert speed.max() - speed.min() < 1e-9
        shifts.add(shift)
        speeds.append(float(speed[0]))
        middle = struck & (piece.velocities > 10) & (piece.velocities < 117)
        louder |= set((other.velocities - piece.velocities)[middle].tolist())
        assert other.velocities[struck].min() >= 1
        assert other.velocities[struck].max() <= 127
    assert shifts == set(range(-4, 5))
    assert louder == set(range(-6, 7))
    assert np.exp(-0.06) <= min(speeds) < 0.96
    assert 1.04 < max(speeds) <= np.exp(0.06)


@pytest.mark.parametrize(
    ("pitches", "lowest", "highest"), [([21, 60], 0, 4), ([60, 108], -4, 0), ([21, 108], 0, 0), ([50, 60], -4, 4)]
)
def test_transposing_never_leaves_the_keyboard(pitches: list[int], lowest: int, highest: int) -> None:
    actions = np.array([NOTE_ON + pitch for pitch in pitches] + [NOTE_OFF + pitch for pitch in pitches])
    piece = Actions(np.arange(4.0), actions, np.full(4, 64))
    how = dataclasses.replace(PLAIN, transpose=4)
    rng = np.random.default_rng(2)
    shifts = {int(augment(piece, how, rng).actions[0]) - pitches[0] for _ in range(100)}
    assert shifts == set(range(lowest, highest + 1))


TRADITIONAL = dataclasses.replace(PLAIN, draw="traditional")


def test_traditional_examples_have_a_full_context_and_omit_the_beginning(piece: Actions) -> None:
    """The traditional loader, kept for comparison, never draws the beginning of a piece as a target."""
    firsts = {int(example.positions[-PLAIN.latents]) for example in draws(piece, TRADITIONAL, 400)}
    assert min(firsts) == PLAIN.context
    assert max(firsts) == len(encode_arrays(*piece, end=True)) - 1 - PLAIN.latents
    short = piece_of(40, seed=1)  # shorter than a context: its last latents
    (first,) = {int(example.positions[-PLAIN.latents]) for example in draws(short, TRADITIONAL, 50)}
    assert first == len(encode_arrays(*short, end=True)) - 1 - PLAIN.latents


@pytest.mark.parametrize("preset", PRESETS)
def test_segmentation_for_a_model_covers_its_reach_and_its_window(preset: str) -> None:
    config = PRESETS[preset]
    how = Segmentation.for_model(config)
    assert how.context == config.reach
    assert how.latents >= max(2 * config.window, how.near)
    assert how.near + how.sampled <= how.context
    block = dataclasses.replace(config, mask="block")
    assert Segmentation.for_model(block).latents <= min(config.scales)


def test_multiplicities_of_sampled_events_add_up_to_the_whole_context() -> None:
    how = Segmentation(latents=64, context=600, near=100, sampled=50, cold=0.0)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        example = draw(actions_of(improvise_timed(900, seed=3)), how, rng)
        there = example.positions >= 0
        begin = int(example.positions[there][-int(example.weight.sum())])  # the first latent
        expected = begin - max(0, begin - how.context)  # every event of the context, sampled or not
        assert example.multiplicity[there].sum() - example.weight.sum() == pytest.approx(expected, rel=1e-4)
        seen.update(np.unique(example.multiplicity.round(3)).tolist())
    assert max(seen) > 5  # some examples did sample


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("draw=efective", "draw is 'efective', allowed are effective, traditional"),
        ("latents=0", "latents is 0, allowed is 1 or more"),
        ("loudness=-1", "loudness is -1"),
        ("stretch=nan", "stretch is nan"),
        ("stretch=inf", "stretch is inf"),
        ("cold=1.5", "cold is 1.5, allowed is 0 to 1"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(change: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as refused:
        changed(Segmentation(), [change])
    assert "\n" not in str(refused.value)
