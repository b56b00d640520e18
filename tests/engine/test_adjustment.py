"""Waits and velocities are adjusted towards the requested rate and velocity, and unchanged if the machine has reached them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.adjustment import (
    CHORD_STEPS,
    DEFAULT_RATE,
    MAX_RATE,
    NO_CALL,
    CallStatistics,
    Strike,
    Target,
    chord_steps_left,
    machine_share,
    scaled_waits,
    velocity_shift,
    wait_scale,
)
from engine.events import MAX_WAIT, VELOCITY_BINS, WAITS, velocity_bin


def even(rate: float, seconds: float, begin: float = 0.0, velocity: int = 64) -> list[Strike]:
    """Note-ons at an even rate."""
    return [Strike(round(100 * (begin + (i + 1) / rate)), 60, velocity_bin(velocity)) for i in range(round(rate * seconds))]


def scale_after(strikes: list[Strike], rate: float) -> float:
    """The scale at the last note-on, for a reply that began at 0 to a call at ``rate``."""
    return wait_scale(strikes, 0.0, strikes[-1].time, Target.of(CallStatistics(rate, 64.0), 0.0, 0.0), 1.0)


def test_nothing_is_corrected_before_the_first_note() -> None:
    target = Target.of(CallStatistics(8.0, 70.0), 0.0, 0.0)
    assert wait_scale([], 0.0, 0.0, target, 1.0) == pytest.approx(1)
    assert velocity_shift([], 0.0, 0.0, target) == pytest.approx(0)


@pytest.mark.parametrize("rate", [1.0, 5.0, 20.0])
def test_waits_are_unchanged_if_the_reply_has_the_rate_of_the_call(rate: float) -> None:
    assert abs(math.log(scale_after(even(rate, 10), rate))) < 0.3


def test_waits_are_stretched_if_too_fast_and_shortened_if_too_slow() -> None:
    assert scale_after(even(20, 10), 5.0) > 2
    assert scale_after(even(2, 10), 5.0) < 0.5


def test_the_correction_is_limited() -> None:
    assert scale_after(even(50, 30), 0.1) == pytest.approx(4)
    assert scale_after(even(0.1, 100), 20.0) == pytest.approx(0.25)


def test_silence_shortens_the_waits() -> None:
    strikes, target = even(5, 10), Target.of(CallStatistics(5.0, 64.0), 0.0, 0.0)
    assert wait_scale(strikes, 0.0, strikes[-1].time + 1.0, target, 1.0) < wait_scale(strikes, 0.0, strikes[-1].time, target, 1.0)


def test_velocity_of_the_first_note_does_not_depend_on_the_silence_before_it() -> None:
    target = Target.of(CallStatistics(6.0, 60.0), 0.0, 0.5)
    assert velocity_shift([], 5.0, 4.0, target) == velocity_shift([], 5.0, 5.0, target) == pytest.approx(12)


def test_old_notes_do_not_affect_the_wait_scale() -> None:
    assert abs(math.log(scale_after([*even(20, 10), *even(5, 30, 10.0)], 5.0))) < 0.15


@pytest.mark.parametrize("density", [-1.0, -0.5, 0.5, 1.0])
def test_density_multiplies_the_rate_of_the_call_by_a_power_of_two_at_once(density: float) -> None:
    target = Target.of(CallStatistics(6.0, 64.0), density, 0.0)
    assert target.rate == pytest.approx(6 * 2**density)
    assert wait_scale([], 0.0, 0.0, target, 1.0) == pytest.approx(2**-density)  # the model is still at the call's rate
    played = even(target.rate, 20)
    assert wait_scale(played, 0.0, 20.0, target, 1.0) == pytest.approx(1, abs=0.25)  # it has adapted


def test_limits_of_polyphony_and_keys_lower_the_target_rate() -> None:
    call = CallStatistics(12.0, 64.0, chord=3.0)
    assert Target.of(call, 0.0, 0.0, polyphony=3).rate == 12.0
    assert Target.of(call, 0.0, 0.0, polyphony=1).rate == pytest.approx(4.0)
    assert Target.of(call, 1.0, 0.0, polyphony=1).rate == pytest.approx(20.0 / 3)
    assert Target.of(call, 0.0, 0.0, keys=2).rate == pytest.approx(8.0)
    assert Target.of(call, 0.0, 0.0, keys=1).rate == pytest.approx(4.0)


def test_target_rate_is_limited_unless_the_human_played_faster() -> None:
    assert Target.of(CallStatistics(15.0, 64.0), 1.0, 0.0).rate == MAX_RATE
    assert Target.of(CallStatistics(25.0, 64.0), 1.0, 0.0).rate == 25.0


def test_without_a_call_the_rate_is_kept_near_the_default() -> None:
    target = Target.of(NO_CALL, 0.0, 0.0)
    for rate, expected in ((DEFAULT_RATE * 1.1, 1.0), (DEFAULT_RATE / 1.1, 1.0)):
        assert wait_scale(even(rate, 10), 0.0, 10.0, target, 1.0) == pytest.approx(expected)
    assert wait_scale(even(20, 10), 0.0, 10.0, target, 1.0) > 1.5
    assert wait_scale(even(1, 10), 0.0, 10.0, target, 1.0) < 0.5


@pytest.mark.parametrize("dynamics", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_velocity_shift_approaches_the_target_with_a_model_that_does_not_adapt(dynamics: float) -> None:
    target, strikes = Target.of(CallStatistics(8.0, 60.0), 0.0, dynamics), list[Strike]()
    for i in range(160):  # the model would always play 60
        shift = velocity_shift(strikes, 0.0, i / 8, target)
        strikes.append(Strike(round(100 * i / 8), 60, velocity_bin(round(60 + shift))))
    mean = np.mean([4 * one.velocity + 2 for one in strikes])
    assert abs(mean - 60 - 12 * dynamics) < 4  # half of it in the long run; a model that reads its own output adapts further
    assert all(0 <= one.velocity < VELOCITY_BINS for one in strikes)


def test_scaled_waits_ascend_from_zero_and_leave_chords_unchanged() -> None:
    for scale in (0.25, 0.7, 1.0, 1.9, 4.0):
        for dither in (0.0, 0.5, 0.99):
            steps = scaled_waits(scale, dither, CHORD_STEPS)
            assert len(steps) == WAITS
            assert (np.diff(steps) >= 0).all()
            assert steps[: CHORD_STEPS + 1].tolist() == list(range(CHORD_STEPS + 1))
            assert steps[MAX_WAIT] == pytest.approx(CHORD_STEPS + (MAX_WAIT - CHORD_STEPS) * scale, abs=1)
    assert scaled_waits(1.0, 0.99, 0).tolist() == list(range(WAITS))


def test_dithered_rounding_does_not_change_the_mean_wait() -> None:
    steps = np.mean([scaled_waits(0.5, dither, 0) for dither in np.linspace(0, 0.999, 100)], axis=0)
    assert np.allclose(steps, np.arange(WAITS) / 2, atol=0.02)


def test_a_fast_run_is_not_one_chord() -> None:
    chord = [Strike(100, 60, 16), Strike(102, 64, 16)]
    assert chord_steps_left([], 102) == 0
    assert chord_steps_left(chord, 102) == CHORD_STEPS - 2
    assert chord_steps_left(chord, 120) == 0
    run = [Strike(100 + 2 * i, 60 + i, 16) for i in range(9)]
    left = [chord_steps_left(run[: i + 1], run[i].step) for i in range(9)]
    assert left.count(CHORD_STEPS) > 3  # every second note begins another


def test_machine_share_is_half_at_the_humans_rate() -> None:
    assert machine_share([], 0.0, 0.0, 5.0) == pytest.approx(0.5)
    for rate in (1.0, 5.0, 20.0):
        strikes = even(rate, 10)
        assert machine_share(strikes, 0.0, strikes[-1].time, rate) == pytest.approx(0.5, abs=0.07)


def test_machine_share_rises_with_the_machines_rate_and_falls_to_zero_in_silence() -> None:
    strikes = even(20, 10)
    assert 0.75 < machine_share(strikes, 0.0, strikes[-1].time, 5.0) < 0.85
    assert machine_share(strikes, 0.0, strikes[-1].time + 60, 5.0) < 0.01
