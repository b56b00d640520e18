"""The performer in virtual time: its history is what sounded, and the human always has priority."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import NO_VELOCITY, NOTE_OFF, NOTE_ON, PITCHES, REST, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.performer.performer import State
from tests.perceivers_live.performer.replies import (
    CALL,
    END_OF_CALL,
    LONG_CALL,
    MUSICIANS,
    check_history,
    check_history_after_interruption,
    replying,
)
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.toys import Musician, silent, steady
from tests.perceivers_live.virtual_session import VirtualSession, note, phrase

MODES = st.sampled_from(["respond", "duet", "solo", "listen"])


# --- listening -----------------------------------------------------------------------------------------------------


def test_call_is_absorbed_at_its_steps() -> None:
    session = VirtualSession(controls={"mode": "listen"})
    session.receive(*note(100.0, 0.126, 60, 80), Timed(100.5, SUSTAIN_DOWN), *note(103.004, 0.5, 64, 1), Timed(103.6, SUSTAIN_UP))
    assert session.history() == [
        (0, NOTE_ON + 60, 20),
        (13, NOTE_OFF + 60, NO_VELOCITY),
        (50, SUSTAIN_DOWN, NO_VELOCITY),
        (300, NOTE_ON + 64, 0),
        (350, NOTE_OFF + 64, NO_VELOCITY),
        (360, SUSTAIN_UP, NO_VELOCITY),
    ]
    check_history(session)


def test_steps_do_not_drift_over_a_long_session() -> None:
    session = VirtualSession(controls={"mode": "listen"})
    session.receive(*phrase(0.0, 400, 0.1237))
    assert session.engine.step == round((399 * 0.1237 + 0.1237 * 0.8) * 100)


def test_actions_absorbed_together_equal_actions_absorbed_one_by_one() -> None:
    one_by_one, together = VirtualSession(), VirtualSession()
    one_by_one.receive(*CALL)
    played = []
    for one in CALL:
        together.player.ledger.keys.apply(one)
        played.append(together.performer.adapt_plan([one]))
    together.performer.absorb_input(played)
    assert one_by_one.history() == together.history()
    assert np.array_equal(one_by_one.engine.hidden(), together.engine.hidden())


def test_hour_of_silence_adds_few_steps() -> None:
    session = VirtualSession(controls={"mode": "listen"})
    session.receive(*CALL)
    before = session.runtime.steps
    session.receive(*note(3600.0, 0.2, 60))
    assert session.runtime.steps - before <= 8
    step = session.engine.step
    session.receive(*note(3601.0, 0.2, 60))
    assert session.engine.step == step + 100  # and times are correct again


def test_hour_of_silence_before_a_takeover_adds_few_steps() -> None:
    session = VirtualSession(controls={"mode": "listen"})
    session.receive(*CALL)
    session.now = 3600.0
    before = session.runtime.steps
    session.controls.set("mode", "respond")
    session.command(session.performer.takeover)
    session.run(3601.0)
    assert session.machine
    assert session.runtime.steps - before < 100


def test_hour_of_standstill_during_a_reply_adds_few_steps() -> None:
    """The process was stopped, or the computer slept."""
    session = replying(lookahead_ms=50)
    before = session.runtime.steps
    session.now += 3600.0
    session.player.play_due(session.now)
    session.performer.work(session.now)
    assert session.runtime.steps - before < 100


# --- replying ------------------------------------------------------------------------------------------------------


def test_the_reply_begins_when_the_phrase_has_ended() -> None:
    session = VirtualSession()
    session.receive(*CALL)
    assert session.performer.state is State.LISTENING
    session.run(20.0, stop=lambda: bool(session.machine))
    assert END_OF_CALL + 0.5 <= session.machine[0].time < END_OF_CALL + 2.5
    assert session.states == [State.PLAYING]


def test_nothing_is_played_during_a_running_passage() -> None:
    session = VirtualSession()
    session.receive(*LONG_CALL)
    assert session.machine == []
    assert session.states == []


@pytest.mark.parametrize("musician", MUSICIANS)
@pytest.mark.parametrize("seed", range(3))
def test_a_reply_ends_by_itself_and_leaves_nothing_sounding(musician: Musician, seed: int) -> None:
    session = VirtualSession(musician, seed=seed)
    session.receive(*CALL)
    session.run(40.0)
    assert session.states == [State.PLAYING, State.LISTENING]
    assert session.port.silent
    assert unbalanced(m for m in session.port.messages if m[0] < 0xB0) == []
    assert session.player.held_after_plan() == (frozenset(), False)
    check_history(session)


@pytest.mark.parametrize("musician", [steady(3), steady(0, range(48, 72)), steady(2, (60, 64, 67), chord=3)])
def test_reply_without_a_pause_ends_too(musician: Musician) -> None:
    session = VirtualSession(musician)
    session.receive(*CALL)
    session.run(30.0, stop=lambda: len(session.states) == 2 or session.runtime.decisions > 40_000)
    assert session.states == [State.PLAYING, State.LISTENING]


def test_a_reply_that_falls_silent_ends() -> None:
    session = VirtualSession(silent)
    session.receive(*CALL)
    session.run(60.0)
    assert session.states == [State.PLAYING, State.LISTENING]


def test_reply_that_holds_a_note_plays_again_within_three_seconds() -> None:
    session = VirtualSession(silent)  # without intervention it would hold its first note to the end
    session.receive(*phrase(0.0, 60, 0.2))
    session.run(60.0)
    onsets = [one.time for one in session.machine if one.action < NOTE_OFF]
    assert len(onsets) >= 4
    assert max(later - earlier for earlier, later in itertools.pairwise(onsets)) < 3.0


def test_replies_last_in_proportion_to_the_call() -> None:
    def length(call: list[Timed], **controls: object) -> float:
        session = VirtualSession(steady(15), controls)
        session.receive(*call)
        session.run(120.0)
        return session.machine[-1].time - session.machine[0].time

    short, long = length(phrase(0.0, 20, 0.2)), length(phrase(0.0, 60, 0.2))
    assert 2 * short < long < 5 * short
    assert length(phrase(0.0, 60, 0.2), response_length=0.5) < 0.7 * long


@pytest.mark.parametrize("musician", MUSICIANS)
def test_output_is_in_order_and_neither_early_nor_late_in_virtual_time(musician: Musician) -> None:
    session = VirtualSession(musician)
    session.receive(*CALL)
    session.run(30.0)
    times = [one.time for one in session.machine]
    assert len(times) > 10
    assert times == sorted(times)
    assert all(at >= one.time for at, one in session.sent_at)
    assert session.player.late == 0


def test_output_offset_shifts_the_sound_but_not_the_history() -> None:
    plain, offset = VirtualSession(steady()), VirtualSession(steady(), {"output_offset_ms": 150})
    for session in (plain, offset):
        session.receive(*CALL)
        session.run(6.0)
    assert plain.history() == offset.history()
    assert [one.time + 0.15 for one in plain.machine[:9]] == pytest.approx([one.time for one in offset.machine[:9]])


@pytest.mark.parametrize("lookahead", [50, 400])
def test_a_negative_output_offset_makes_nothing_late_and_leaves_nothing_out(lookahead: int) -> None:
    plain, offset = (
        VirtualSession(steady(2), {"mode": "solo", "output_offset_ms": ms, "lookahead_ms": lookahead}) for ms in (0, -200)
    )
    for session in (plain, offset):
        session.run(6.0)
    assert len(offset.machine) > 0.9 * len(plain.machine) > 50
    assert offset.player.late == 0


def test_a_late_performer_plans_nothing_for_the_past() -> None:
    """The engine took 700 ms, longer than the lookahead; the next events are planned for the time after that."""
    session = replying(lookahead_ms=50)
    for _ in range(5):
        session.now += 0.7
        session.player.play_due(session.now)
        late = session.player.late
        session.run(session.now + 0.3)
        assert session.player.late == late
    check_history_after_interruption(session)


# --- commands ------------------------------------------------------------------------------------------------------


def test_takeover_does_not_wait_for_the_end_of_the_phrase() -> None:
    session = VirtualSession()
    session.receive(*CALL[:-1])
    session.command(session.performer.takeover)
    session.run(session.now + 1.0, stop=lambda: bool(session.machine))
    assert session.machine[0].time < CALL[-1].time + 1.0


def test_takeover_needs_no_call() -> None:
    session = VirtualSession()
    session.now = 1000.0
    session.command(session.performer.takeover)
    session.run(session.now + 20)
    assert session.machine
    assert session.states == [State.PLAYING, State.LISTENING]
    assert session.port.silent
    check_history(session)


def test_takeover_during_a_reply_changes_nothing() -> None:
    one, other = replying(seconds=0.5), replying(seconds=0.5)
    other.command(other.performer.takeover)
    for session in (one, other):
        session.run(session.now + 3)
    assert one.machine == other.machine


@pytest.mark.parametrize("musician", MUSICIANS)
def test_yield_silences_and_the_history_is_what_sounded(musician: Musician) -> None:
    session = replying(musician)
    session.command(session.performer.yield_turn)
    assert session.port.silent
    assert not session.replying
    check_history(session)
    session.run(session.now + 10)
    assert not session.replying  # no phrase, so no reply
    session.receive(*phrase(session.now, 8, 0.2))
    session.run(session.now + 30)
    assert session.port.silent
    assert session.states[-2:] == [State.PLAYING, State.LISTENING]


def test_forget_clears_the_history_and_the_performer_still_replies() -> None:
    session = replying()
    session.command(session.performer.forget)
    assert session.port.silent
    assert session.history() == []
    assert session.engine.position == 0
    session.sounded.clear()
    session.receive(*phrase(session.now + 500.0, 8, 0.2))
    assert session.history()[0][0] == 0
    session.run(session.now + 30)
    assert session.states[-2:] == [State.PLAYING, State.LISTENING]
    check_history(session)


def test_key_held_during_forget_still_belongs_to_the_human() -> None:
    session = VirtualSession(steady(6, (72,)), {"register_low": 72, "register_high": 72})
    session.receive(Timed(0.0, NOTE_ON + 72, 80), *phrase(0.1, 5, 0.1, pitch=40))
    session.command(session.performer.forget)
    session.command(session.performer.takeover)
    session.run(session.now + 2.0)
    assert 72 not in session.port.note_ons


# --- determinism ---------------------------------------------------------------------------------------------------


def test_the_same_seed_plays_the_same_and_another_does_not() -> None:
    played = []
    for seed in (1, 1, 2):
        session = VirtualSession(seed=seed)
        session.receive(*CALL)
        session.run(20.0)
        played.append(session.machine)
    assert played[0] == played[1] != played[2]


def test_the_machines_events_are_coded_like_the_humans() -> None:
    """Only a note-on has a velocity: that is what the model was trained on."""
    session = replying()
    assert {e.velocity for e in session.engine._history if not e.is_note_on} == {NO_VELOCITY}
    assert all(e.velocity < NO_VELOCITY for e in session.engine._history if e.is_note_on)
    assert all(e.wait == 100 for e in session.engine._history if e.action == REST)


# --- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [1, 2, 3, 5])
def test_performer_recovers_from_temporary_runtime_failures(failures: int) -> None:
    """A session calls ``forget`` if a fault soon recurs, as often as necessary."""
    session = replying()
    session.runtime.failures = failures
    for _ in range(20):
        try:
            session.run(session.now + 1.0)
            session.receive(*note(session.now + 0.1, 0.1, 60))
            break
        except RuntimeError:
            try:
                session.performer.forget(session.now)
            except RuntimeError:
                session.now += 1.0
    session.receive(*phrase(session.now + 1.0, 8, 0.2))
    count = len(session.machine)
    session.run(session.now + 20.0)
    assert len(session.machine) > count
    assert session.port.silent


@pytest.mark.parametrize("broken", [True, False])
def test_forget_after_a_fault_leaves_no_sounding_notes(broken: bool) -> None:
    session = replying(steady(30))
    session.runtime.broken, session.runtime.failures = broken, 0 if broken else 1
    with pytest.raises(RuntimeError):
        session.run(session.now + 10.0)
    session.performer.forget(session.now)
    assert session.port.silent
    assert not session.replying


def test_failed_note_off_is_sent_again_at_the_next_silencing() -> None:
    session = replying(steady(10, (60, 64, 67, 71), chord=3))
    session.run(session.now + 5, stop=lambda: len(session.player.ledger.notes) == 3)
    stuck = min(session.player.ledger.notes)
    session.port.fails = lambda message: message[:2] == (0x80, stuck)
    session.receive(Timed(session.now, NOTE_ON + 30, 80), Timed(session.now + 0.1, NOTE_OFF + 30))
    assert {pitch for _, pitch in session.port.sounding} == {stuck}
    assert session.engine.sounding.held().tolist() == []
    session.port.fails = lambda _: False
    session.command(session.performer.yield_turn)
    assert session.port.silent


def test_a_reply_ends_although_the_output_fails() -> None:
    session = VirtualSession()
    session.port.fails = lambda _: True
    session.receive(*phrase())
    session.run(session.now + 30.0)
    assert session.states == [State.PLAYING, State.LISTENING]
    held: set[int] = set()
    for _, action, _ in session.history():
        if action < SUSTAIN_DOWN:
            assert (action % PITCHES in held) == (action >= NOTE_OFF), "a key that is up is not released again"
            held ^= {action % PITCHES}
    assert session.engine.sounding.held().tolist() == []


# --- anything, in any order ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.001, 1.2), st.integers(50, 70)), min_size=1, max_size=30), st.integers(0, 9), MODES)
@settings(max_examples=60, deadline=None)
def test_history_steps_are_the_quantized_times_of_what_sounded(playing: list[tuple[float, int]], seed: int, mode: str) -> None:
    """Without long silences the history is the quantized recording, step for step."""
    session, keys = VirtualSession(controls={"mode": mode}, seed=seed), set[int]()
    for wait, pitch in playing:
        session.run(session.now + wait)
        session.receive(Timed(session.now, NOTE_OFF + pitch) if pitch in keys else Timed(session.now, NOTE_ON + pitch, 64))
        keys ^= {pitch}
    session.command(session.performer.yield_turn)
    check_history(session)
