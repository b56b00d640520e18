"""What sounded, at its steps: without drift, with long silences shortened, and without actions that change nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.codec import LONGEST_SILENCE
from engine.engine import Engine
from engine.events import NO_VELOCITY, NOTE_OFF, NOTE_ON, REST, SUSTAIN_DOWN, SUSTAIN_UP, Event, Timed
from perceivers_live.performer.timeline import Timeline
from tests.perceivers_live.toys import ToyRuntime
from tests.perceivers_live.virtual_session import absolute, note


@pytest.fixture
def timeline() -> Timeline:
    return Timeline(Engine(ToyRuntime()))


def history(timeline: Timeline) -> list[tuple[int, int]]:
    return [(step, action) for step, action, _ in absolute(timeline.engine._history)]


def test_the_first_action_is_at_step_0(timeline: Timeline) -> None:
    timeline.absorb(note(123.456, 0.5, 60))
    assert history(timeline) == [(0, NOTE_ON + 60), (50, NOTE_OFF + 60)]
    assert timeline.time(50) == pytest.approx(123.956)
    assert timeline.step(123.956) == 50


@given(st.lists(st.floats(0.0, 4.0), min_size=1, max_size=50))
def test_steps_match_the_times_within_half_a_step(gaps: list[float]) -> None:
    timeline, now = Timeline(Engine(ToyRuntime())), 50.0
    for i, gap in enumerate(gaps):
        now += gap
        timeline.absorb([Timed(now, NOTE_ON + i, 80)])
        assert abs(timeline.time(timeline.engine.step) - now) <= 0.005 + 1e-9


def test_action_with_an_earlier_time_is_put_at_the_current_step(timeline: Timeline) -> None:
    timeline.absorb([Timed(10.0, NOTE_ON + 60, 80), Timed(10.5, NOTE_ON + 62, 80), Timed(10.2, NOTE_ON + 64, 80)])
    assert [step for step, _ in history(timeline)] == [0, 50, 50]


def test_long_silence_is_shortened_and_later_times_stay_correct(timeline: Timeline) -> None:
    timeline.absorb([*note(10.0, 1.0, 60), *note(5000.0, 1.0, 62)])
    assert [step for step, _ in history(timeline)] == [0, 100, 100 + LONGEST_SILENCE, 200 + LONGEST_SILENCE]
    assert timeline.time(timeline.engine.step) == pytest.approx(5001.0)


def test_long_silence_before_begin_is_shortened(timeline: Timeline) -> None:
    timeline.absorb(note(10.0, 1.0, 60))
    timeline.begin(5000.0)
    assert timeline.step(5000.0) == 100 + LONGEST_SILENCE
    timeline.begin(5001.0)
    assert timeline.step(5001.0) == 100 + LONGEST_SILENCE


def test_time_starts_at_begin_if_nothing_was_absorbed(timeline: Timeline) -> None:
    timeline.begin(77.0)
    assert timeline.step(77.25) == 25


def test_only_a_note_on_has_a_velocity(timeline: Timeline) -> None:
    timeline.absorb([*note(10.0, 1.0, 60, 127), Timed(12.0, SUSTAIN_DOWN, 5)])
    velocities = [event.velocity for event in timeline.engine._history if event.action != REST]
    assert velocities[1:] == [31, NO_VELOCITY, NO_VELOCITY]


def test_actions_that_change_nothing_are_omitted(timeline: Timeline) -> None:
    timeline.absorb([Timed(1.0, NOTE_OFF + 60), Timed(1.0, SUSTAIN_UP)])
    assert timeline.engine.position == 0
    assert timeline.origin is None
    timeline.absorb([Timed(2.0, SUSTAIN_DOWN), Timed(2.1, SUSTAIN_DOWN), *note(2.2, 0.1, 60), Timed(2.4, NOTE_OFF + 60)])
    timeline.absorb([Timed(2.5, SUSTAIN_DOWN), Timed(2.6, SUSTAIN_UP), Timed(2.7, SUSTAIN_UP)])
    assert history(timeline) == [(0, SUSTAIN_DOWN), (20, NOTE_ON + 60), (30, NOTE_OFF + 60), (60, SUSTAIN_UP)]


def test_rewind_keeps_what_sounded(timeline: Timeline) -> None:
    timeline.absorb(note(10.0, 1.0, 60))
    sounded = timeline.engine.position
    timeline.engine.absorb([Event(10, NOTE_ON + 62, 5), Event(10, NOTE_OFF + 62)])  # a plan
    timeline.rewind(sounded + 1)
    assert timeline.engine.position == sounded + 1
    timeline.rewind(1)
    assert timeline.engine.position == sounded
    timeline.rewind(sounded + 99)
    assert timeline.engine.position == sounded


@pytest.mark.parametrize("failing", [False, True])
def test_absorbed_notes_survive_an_engine_failure(timeline: Timeline, failing: bool) -> None:
    runtime = timeline.engine.runtime
    assert isinstance(runtime, ToyRuntime)
    if failing:
        runtime.failures = 1
        with pytest.raises(RuntimeError):
            timeline.absorb(note(10.0, 1.0, 60))
        timeline.engine.rebuild()
    else:
        timeline.absorb(note(10.0, 1.0, 60))
    timeline.rewind(0)
    assert history(timeline) == [(0, NOTE_ON + 60), (100, NOTE_OFF + 60)]


def test_forget_restarts_at_step_0(timeline: Timeline) -> None:
    timeline.absorb(note(10.0, 1.0, 60))
    timeline.forget()
    timeline.absorb(note(99.0, 1.0, 62))
    assert history(timeline) == [(0, NOTE_ON + 62), (100, NOTE_OFF + 62)]


def test_resume_continues_at_the_newest_event_of_a_restored_state(timeline: Timeline) -> None:
    timeline.absorb(note(10.0, 1.0, 60))
    snapshot = timeline.engine.snapshot()
    timeline.absorb(note(20.0, 1.0, 62))
    timeline.engine.restore(snapshot)
    timeline.resume(300.0)
    assert timeline.time(timeline.engine.step) == pytest.approx(300.0)
    timeline.rewind(0)
    timeline.absorb(note(300.5, 0.1, 64))
    assert history(timeline)[1:] == [(100, NOTE_OFF + 60), (150, NOTE_ON + 64), (160, NOTE_OFF + 64)]
