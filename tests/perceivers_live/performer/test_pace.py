"""A reply comes back to the pace of the call, and is left alone where it keeps it."""

from __future__ import annotations

import pytest

from engine.events import NOTE_ON, Timed
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.pace import MAX_CORRECTION, density_correction, machine_share
from perceivers_live.performer.phrases import PhraseDetector


def even(rate: float, seconds: float, begin: float = 0.0) -> list[float]:
    """Onsets at an even rate."""
    return [begin + (i + 1) / rate for i in range(round(rate * seconds))]


def after(strikes: list[float], rate: float) -> float:
    """The correction at the last onset, for a reply that began at 0."""
    return density_correction(strikes, 0.0, strikes[-1], rate)


def test_nothing_is_corrected_before_the_first_note() -> None:
    assert density_correction([], 0.0, 0.0, 8.0) == pytest.approx(0)


@pytest.mark.parametrize("rate", [1.0, 5.0, 20.0])
def test_a_reply_at_the_pace_of_the_call_is_left_alone(rate: float) -> None:
    assert abs(after(even(rate, 10), rate)) < 0.2


def test_what_is_too_fast_is_held_back_and_what_is_too_slow_is_pushed() -> None:
    assert after(even(20, 10), 5.0) < -0.5
    assert after(even(2, 10), 5.0) > 0.5


def test_it_grows_with_the_time_that_the_pace_is_wrong_up_to_a_limit() -> None:
    corrections = [after(even(10, seconds), 5.0) for seconds in (0.5, 2, 8)]
    assert 0 > corrections[0] > corrections[1] > corrections[2]
    assert after(even(50, 30), 0.1) == -MAX_CORRECTION


def test_what_is_long_ago_is_forgotten() -> None:
    assert abs(after([*even(20, 10), *even(5, 30, 10.0)], 5.0)) < 0.15


def test_silence_makes_it_hurry() -> None:
    assert density_correction(even(5, 3), 0.0, 4.0, 5.0) > after(even(5, 3), 5.0)


def test_the_machines_share_of_the_last_notes_is_half_at_the_humans_rate() -> None:
    assert machine_share([], 0.0, 0.0, 5.0) == pytest.approx(0.5)
    for rate in (1.0, 5.0, 20.0):
        strikes = even(rate, 10)
        assert machine_share(strikes, 0.0, strikes[-1], rate) == pytest.approx(0.5, abs=0.05)


def test_it_follows_what_the_machine_does_and_silence_takes_it_to_nothing() -> None:
    strikes = even(20, 10)
    assert 0.75 < machine_share(strikes, 0.0, strikes[-1], 5.0) < 0.85
    assert machine_share(strikes, 0.0, strikes[-1] + 60, 5.0) < 0.01


def test_the_pace_of_a_phrase_is_its_notes_a_second() -> None:
    detector = PhraseDetector(PhraseSettings())
    assert detector.rate is None
    for i in range(9):
        detector.feed(Timed(10 + i * 0.25, NOTE_ON + 60 + i, 60))
        if i < 4:
            assert detector.rate is None  # too short to tell
    assert detector.rate == pytest.approx(4.0)
    detector.reset()
    assert detector.rate is None
