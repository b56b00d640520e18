"""The performer on a virtual clock: what it remembers is what sounded, and the human always comes first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import NO_VELOCITY, NOTE_OFF, NOTE_ON, REST, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.performer.performer import State
from tests.perceivers_live.performer.replies import (
    CALL,
    END_OF_CALL,
    LONG_CALL,
    MUSICIANS,
    check_memory,
    check_memory_after_interruption,
    replying,
)
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.toys import Musician, silent, steady
from tests.perceivers_live.virtual_stage import Stage, note, phrase

MODES = st.sampled_from(["respond", "duet", "solo", "listen"])


# --- listening -----------------------------------------------------------------------------------------------------


def test_a_call_is_remembered_at_its_steps() -> None:
    stage = Stage(controls={"mode": "listen"})
    stage.hear(*note(100.0, 0.126, 60, 80), Timed(100.5, SUSTAIN_DOWN), *note(103.004, 0.5, 64, 1), Timed(103.6, SUSTAIN_UP))
    assert stage.history() == [
        (0, NOTE_ON + 60, 20),
        (13, NOTE_OFF + 60, NO_VELOCITY),
        (50, SUSTAIN_DOWN, NO_VELOCITY),
        (300, NOTE_ON + 64, 0),
        (350, NOTE_OFF + 64, NO_VELOCITY),
        (360, SUSTAIN_UP, NO_VELOCITY),
    ]
    check_memory(stage)


def test_steps_do_not_drift_over_a_long_session() -> None:
    stage = Stage(controls={"mode": "listen"})
    stage.hear(*phrase(0.0, 400, 0.1237))
    assert stage.engine.step == round((399 * 0.1237 + 0.1237 * 0.8) * 100)


def test_actions_heard_together_are_remembered_as_if_one_by_one() -> None:
    one_by_one, together = Stage(), Stage()
    one_by_one.hear(*CALL)
    played = []
    for one in CALL:
        together.player.ledger.keys.apply(one)
        played.append(together.performer.adapt_plan([one]))
    together.performer.absorb_input(played)
    assert one_by_one.history() == together.history()
    assert np.array_equal(one_by_one.engine.hidden(), together.engine.hidden())


def test_an_hour_of_silence_does_not_flood_the_memory() -> None:
    stage = Stage(controls={"mode": "listen"})
    stage.hear(*CALL)
    before = stage.runtime.steps
    stage.hear(*note(3600.0, 0.2, 60))
    assert stage.runtime.steps - before <= 8
    step = stage.engine.step
    stage.hear(*note(3601.0, 0.2, 60))
    assert stage.engine.step == step + 100  # and the clock is right again


def test_an_hour_of_silence_before_a_takeover_does_not_either() -> None:
    stage = Stage(controls={"mode": "listen"})
    stage.hear(*CALL)
    stage.now = 3600.0
    before = stage.runtime.steps
    stage.controls.set("mode", "respond")
    stage.command(stage.performer.takeover)
    stage.run(3601.0)
    assert stage.machine
    assert stage.runtime.steps - before < 100


def test_an_hour_of_standstill_in_a_reply_does_not_either() -> None:
    """The process was stopped, or the machine slept."""
    stage = replying(lookahead_ms=50)
    before = stage.runtime.steps
    stage.now += 3600.0
    stage.player.play_due(stage.now)
    stage.performer.work(stage.now)
    assert stage.runtime.steps - before < 100


# --- replying ------------------------------------------------------------------------------------------------------


def test_the_reply_begins_when_the_phrase_has_ended() -> None:
    stage = Stage()
    stage.hear(*CALL)
    assert stage.performer.state is State.LISTENING
    stage.run(20.0, stop=lambda: bool(stage.machine))
    assert END_OF_CALL + 0.5 <= stage.machine[0].time < END_OF_CALL + 2.5
    assert stage.states == [State.PLAYING]


def test_nothing_is_played_during_a_running_passage() -> None:
    stage = Stage()
    stage.hear(*LONG_CALL)
    assert stage.machine == []
    assert stage.states == []


@pytest.mark.parametrize("musician", MUSICIANS)
@pytest.mark.parametrize("seed", range(3))
def test_a_reply_ends_by_itself_and_leaves_nothing_sounding(musician: Musician, seed: int) -> None:
    stage = Stage(musician, seed=seed)
    stage.hear(*CALL)
    stage.run(40.0)
    assert stage.states == [State.PLAYING, State.LISTENING]
    assert stage.port.silent
    assert unbalanced(m for m in stage.port.messages if m[0] < 0xB0) == []
    assert stage.player.held_after_plan() == (frozenset(), False)
    check_memory(stage)


@pytest.mark.parametrize("musician", [steady(3), steady(0, range(48, 72)), steady(2, (60, 64, 67), chord=3)])
def test_a_reply_without_a_pause_ends_all_the_same(musician: Musician) -> None:
    stage = Stage(musician)
    stage.hear(*CALL)
    stage.run(30.0, stop=lambda: len(stage.states) == 2 or stage.runtime.decisions > 40_000)
    assert stage.states == [State.PLAYING, State.LISTENING]


def test_a_reply_that_falls_silent_ends() -> None:
    stage = Stage(silent)
    stage.hear(*CALL)
    stage.run(60.0)
    assert stage.states == [State.PLAYING, State.LISTENING]


def test_a_reply_that_holds_a_note_strikes_again_before_it_seems_to_have_ended() -> None:
    stage = Stage(silent)  # left alone it would hold its first note to the end
    stage.hear(*phrase(0.0, 60, 0.2))
    stage.run(60.0)
    onsets = [one.time for one in stage.machine if one.action < NOTE_OFF]
    assert len(onsets) >= 4
    assert max(later - earlier for earlier, later in itertools.pairwise(onsets)) < 3.0


def test_replies_last_in_proportion_to_the_call() -> None:
    def length(call: list[Timed], **controls: object) -> float:
        stage = Stage(steady(15), controls)
        stage.hear(*call)
        stage.run(120.0)
        return stage.machine[-1].time - stage.machine[0].time

    short, long = length(phrase(0.0, 20, 0.2)), length(phrase(0.0, 60, 0.2))
    assert 2 * short < long < 5 * short
    assert length(phrase(0.0, 60, 0.2), response_length=0.5) < 0.7 * long


@pytest.mark.parametrize("musician", MUSICIANS)
def test_output_is_in_order_never_early_and_never_late_on_an_ideal_machine(musician: Musician) -> None:
    stage = Stage(musician)
    stage.hear(*CALL)
    stage.run(30.0)
    times = [one.time for one in stage.machine]
    assert len(times) > 10
    assert times == sorted(times)
    assert all(at >= one.time for at, one in stage.sent_at)
    assert stage.player.late == 0


def test_an_output_offset_moves_the_sound_and_not_the_memory() -> None:
    plain, offset = Stage(steady()), Stage(steady(), {"output_offset_ms": 150})
    for stage in (plain, offset):
        stage.hear(*CALL)
        stage.run(6.0)
    assert plain.history() == offset.history()
    assert [one.time + 0.15 for one in plain.machine[:9]] == pytest.approx([one.time for one in offset.machine[:9]])


def test_a_negative_output_offset_makes_nothing_late() -> None:
    stage = Stage(steady(), {"output_offset_ms": -200})
    stage.hear(*CALL)
    stage.run(6.0)
    assert stage.machine
    assert stage.player.late == 0


def test_a_late_performer_plans_nothing_for_the_past() -> None:
    """The engine took 700 ms, more than the lookahead: what comes next is for the time after that."""
    stage = replying(lookahead_ms=50)
    for _ in range(5):
        stage.now += 0.7
        stage.player.play_due(stage.now)
        late = stage.player.late
        stage.run(stage.now + 0.3)
        assert stage.player.late == late
    check_memory_after_interruption(stage)


# --- commands ------------------------------------------------------------------------------------------------------


def test_takeover_does_not_wait_for_the_end_of_the_phrase() -> None:
    stage = Stage()
    stage.hear(*CALL[:-1])
    stage.command(stage.performer.takeover)
    stage.run(stage.now + 1.0, stop=lambda: bool(stage.machine))
    assert stage.machine[0].time < CALL[-1].time + 1.0


def test_takeover_needs_no_call() -> None:
    stage = Stage()
    stage.now = 1000.0
    stage.command(stage.performer.takeover)
    stage.run(stage.now + 20)
    assert stage.machine
    assert stage.states == [State.PLAYING, State.LISTENING]
    assert stage.port.silent
    check_memory(stage)


def test_takeover_during_a_reply_changes_nothing() -> None:
    one, other = replying(seconds=0.5), replying(seconds=0.5)
    other.command(other.performer.takeover)
    for stage in (one, other):
        stage.run(stage.now + 3)
    assert one.machine == other.machine


@pytest.mark.parametrize("musician", MUSICIANS)
def test_giving_way_silences_and_remembers_what_sounded(musician: Musician) -> None:
    stage = replying(musician)
    stage.command(stage.performer.yield_turn)
    assert stage.port.silent
    assert not stage.replying
    check_memory(stage)
    stage.run(stage.now + 10)
    assert not stage.replying  # no phrase, so no reply
    stage.hear(*phrase(stage.now, 8, 0.2))
    stage.run(stage.now + 30)
    assert stage.port.silent
    assert stage.states[-2:] == [State.PLAYING, State.LISTENING]


def test_forgetting_leaves_an_empty_memory_and_a_playing_performer() -> None:
    stage = replying()
    stage.command(stage.performer.forget)
    assert stage.port.silent
    assert stage.history() == []
    assert stage.engine.position == 0
    stage.sounded.clear()
    stage.hear(*phrase(stage.now + 500.0, 8, 0.2))
    assert stage.history()[0][0] == 0
    stage.run(stage.now + 30)
    assert stage.states[-2:] == [State.PLAYING, State.LISTENING]
    check_memory(stage)


def test_a_key_held_while_everything_is_forgotten_is_still_the_humans() -> None:
    stage = Stage(steady(6, (72,)), {"register_low": 72, "register_high": 72})
    stage.hear(Timed(0.0, NOTE_ON + 72, 80), *phrase(0.1, 5, 0.1, pitch=40))
    stage.command(stage.performer.forget)
    stage.command(stage.performer.takeover)
    stage.run(stage.now + 2.0)
    assert 72 not in stage.port.note_ons


# --- determinism ---------------------------------------------------------------------------------------------------


def test_the_same_seed_plays_the_same_and_another_does_not() -> None:
    played = []
    for seed in (1, 1, 2):
        stage = Stage(seed=seed)
        stage.hear(*CALL)
        stage.run(20.0)
        played.append(stage.machine)
    assert played[0] == played[1] != played[2]


def test_the_machines_events_are_coded_like_the_humans() -> None:
    """Only a note-on has a velocity: that is what the model was trained on."""
    stage = replying()
    assert {e.velocity for e in stage.engine._history if not e.is_note_on} == {NO_VELOCITY}
    assert all(e.velocity < NO_VELOCITY for e in stage.engine._history if e.is_note_on)
    assert all(e.wait == 100 for e in stage.engine._history if e.action == REST)


# --- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [1, 2, 3, 5])
def test_a_runtime_that_fails_for_a_while_is_recovered_from(failures: int) -> None:
    """``forget`` is what the session does if a fault comes again soon, as often as it must."""
    stage = replying()
    stage.runtime.failures = failures
    for _ in range(20):
        try:
            stage.run(stage.now + 1.0)
            stage.hear(*note(stage.now + 0.1, 0.1, 60))
            break
        except RuntimeError:
            try:
                stage.performer.forget(stage.now)
            except RuntimeError:
                stage.now += 1.0
    stage.hear(*phrase(stage.now + 1.0, 8, 0.2))
    count = len(stage.machine)
    stage.run(stage.now + 20.0)
    assert len(stage.machine) > count
    assert stage.port.silent


@pytest.mark.parametrize("broken", [True, False])
def test_a_fault_leaves_nothing_sounding_once_forgotten(broken: bool) -> None:
    stage = replying(steady(30))
    stage.runtime.broken, stage.runtime.failures = broken, 0 if broken else 1
    with pytest.raises(RuntimeError):
        stage.run(stage.now + 10.0)
    stage.performer.forget(stage.now)
    assert stage.port.silent
    assert not stage.replying


def test_a_failed_release_is_sent_again_by_the_next_silence() -> None:
    stage = replying(steady(10, (60, 64, 67, 71), chord=3))
    stage.run(stage.now + 5, stop=lambda: len(stage.player.ledger.notes) == 3)
    stuck = min(stage.player.ledger.notes)
    stage.port.fails = lambda message: message[:2] == (0x80, stuck)
    stage.hear(Timed(stage.now, NOTE_ON + 30, 80), Timed(stage.now + 0.1, NOTE_OFF + 30))
    assert {pitch for _, pitch in stage.port.sounding} == {stuck}
    assert stage.engine.sounding.held().tolist() == []
    stage.port.fails = lambda _: False
    stage.command(stage.performer.yield_turn)
    assert stage.port.silent


def test_a_reply_ends_although_the_output_fails() -> None:
    stage = Stage()
    stage.port.fails = lambda _: True
    stage.hear(*phrase())
    stage.run(stage.now + 30.0)
    assert stage.states == [State.PLAYING, State.LISTENING]
    held = set()
    for _, action, _ in stage.history():
        assert (action in held) == (NOTE_OFF <= action < SUSTAIN_DOWN), "a key that is up is not released again"
        if action < SUSTAIN_DOWN:
            held ^= {action ^ NOTE_OFF}
    assert stage.engine.sounding.held().tolist() == []


# --- anything, in any order ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.001, 1.2), st.integers(50, 70)), min_size=1, max_size=30), st.integers(0, 9), MODES)
@settings(max_examples=60, deadline=None)
def test_steps_are_the_times_that_things_sounded(playing: list[tuple[float, int]], seed: int, mode: str) -> None:
    """Without long silences the memory is the quantised recording, step for step."""
    stage, keys = Stage(controls={"mode": mode}, seed=seed), set[int]()
    for wait, pitch in playing:
        stage.run(stage.now + wait)
        stage.hear(Timed(stage.now, NOTE_OFF + pitch) if pitch in keys else Timed(stage.now, NOTE_ON + pitch, 64))
        keys ^= {pitch}
    stage.command(stage.performer.yield_turn)
    check_memory(stage)
