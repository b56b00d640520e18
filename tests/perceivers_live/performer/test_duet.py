"""A duet: the machine plays around the human, neither in the way of the other."""

from __future__ import annotations

import numpy as np
import pytest

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.runtimes import SamplingBias
from perceivers_live.performer.performer import DUET_NOTES, DUET_TAIL, MIN_REPLY, State
from tests.perceivers_live.playing import CLOSING, check, check_at_rest, go_on, musicians, notes, onsets, playing
from tests.perceivers_live.toys import Hidden, Musician, possible, restless, steady
from tests.perceivers_live.virtual_stage import Stage, note, phrase


def test_a_duet_begins_after_a_few_notes() -> None:
    stage = Stage(steady(9), {"mode": "duet"})
    stage.hear(*phrase(0.03, DUET_NOTES - 1, 0.3))
    stage.run(stage.now + 0.2)
    assert stage.states == []
    stage.hear(*note(stage.now, 0.1, 60))
    assert stage.replying
    began = stage.now
    go_on(stage, 6)
    assert onsets(stage)[0].time < began + 1.0


@musicians
def test_in_a_duet_neither_a_key_nor_a_pedal_silences(musician: Musician) -> None:
    stage = playing("duet", musician)
    count = len(onsets(stage))
    for _ in range(12):
        go_on(stage, 1)
        stage.hear(Timed(stage.now, SUSTAIN_DOWN), Timed(stage.now + 0.1, SUSTAIN_UP))
        check(stage)
        assert stage.replying
    assert len(onsets(stage)) > count
    check_at_rest(stage)


@musicians
@pytest.mark.parametrize("action", [NOTE_ON + 30, NOTE_OFF + 31, SUSTAIN_DOWN, SUSTAIN_UP])
@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_the_plan_is_made_anew_after_whatever_the_human_does(mode: str, action: int, musician: Musician) -> None:
    stage = playing(mode, musician, lookahead_ms=1500, pace=0)
    stage.hear(Timed(stage.now, NOTE_ON + 31, 80), *([Timed(stage.now, SUSTAIN_DOWN)] if action == SUSTAIN_UP else []))
    stage.run(stage.now + 0.05)
    assert stage.player.planned() > 1
    count = len(stage.machine)
    stage.run(stage.now + 2.0, stop=lambda: len(stage.machine) > count)
    stage.hear(Timed(stage.now + 0.001, action, 80))
    assert stage.player.planned() == 0
    assert stage.history() == stage.expected()
    stage.run(stage.now + 0.5)
    assert stage.player.planned() > 1
    check_at_rest(stage)


def test_from_the_moment_of_a_key_press_nothing_sounds_that_was_planned_without_it() -> None:
    """The performer is busy; the callback is not."""
    stage = playing("duet", steady(4), lookahead_ms=1500, pace=0)
    count = len(stage.machine)
    stage.run(stage.now + 2.0, stop=lambda: len(stage.machine) > count)  # the next event is further off than decisions take
    stage.strike(Timed(stage.now, NOTE_ON + 30, 80))
    count = len(stage.machine)
    stage.now += 0.3
    stage.player.play_due(stage.now)
    assert len(stage.machine) == count
    stage.catch_up()
    stage.run(stage.now + 0.5)
    assert len(stage.machine) > count
    check_at_rest(stage)


@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_a_key_that_the_machine_holds_is_given_up_before_it_is_struck(mode: str) -> None:
    stage = playing(mode, steady(20, (72, 74)))
    stage.run(stage.now + 5, stop=lambda: 72 in stage.player.ledger.notes)
    stage.hear(Timed(stage.now, NOTE_ON + 72, 80))
    assert notes(stage)[-1][:2] == (0x80, 72)
    assert [action for _, action, _ in stage.history()[-2:]] == [NOTE_OFF + 72, NOTE_ON + 72]
    stage.run(stage.now + 2.0)
    assert {message[1] for message in notes(stage)[-2:]} == {74}  # 72 is the human's from now on
    check_at_rest(stage)


def test_a_key_struck_and_left_while_the_performer_is_busy_is_remembered_in_order() -> None:
    stage = playing("solo", steady(4, (72,)), lookahead_ms=1500)
    stage.run(stage.now + 5, stop=lambda: 72 in stage.player.ledger.notes)
    stage.strike(Timed(stage.now, NOTE_ON + 72, 80))
    stage.now += 0.03
    stage.player.play_due(stage.now)
    stage.strike(Timed(stage.now, NOTE_OFF + 72))
    stage.now += 0.2
    stage.player.play_due(stage.now)
    stage.catch_up()
    check(stage)
    assert stage.history() == stage.expected()
    check_at_rest(stage)


@musicians
def test_a_duet_ends_some_time_after_the_humans_phrase(musician: Musician) -> None:
    stage = playing("duet", musician)
    go_on(stage, 12)
    end = stage.performer._detector.end()
    assert end is not None
    stage.run(stage.now + 30, stop=lambda: not stage.replying)
    assert end < stage.now < end + 2 * DUET_TAIL + CLOSING
    check(stage)
    stage.run(stage.now + 10)
    assert not stage.replying
    check_at_rest(stage)


@musicians
def test_a_duet_ends_although_keys_are_held(musician: Musician) -> None:
    stage = Stage(musician, {"mode": "duet"})
    stage.hear(*(Timed(0.1 * i, NOTE_ON + 40 + i, 80) for i in range(4)), Timed(0.5, SUSTAIN_DOWN))
    assert stage.replying
    stage.run(stage.now + 30, stop=lambda: not stage.replying)
    assert not stage.replying
    check_at_rest(stage)


@musicians
def test_a_duet_is_not_over_while_the_human_plays(musician: Musician) -> None:
    stage = playing("duet", musician)
    for _ in range(30):
        go_on(stage, 1, 0.3)
        stage.run(stage.now + 0.2)
    assert stage.states == [State.PLAYING]
    check_at_rest(stage)


def test_a_machine_that_has_nothing_to_say_for_a_while_is_not_out_of_a_duet() -> None:
    """Its next note would come when the human's phrase might be over; but it is not over yet."""

    def reticent(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
        waits, actions = possible(bias.wait).tolist(), possible(bias.action).tolist()
        own = [action for action in actions if action in (NOTE_OFF + 80, NOTE_OFF + 81)]
        at_once = own or waits[-1] < 90  # it holds a key, or its first note is owed
        return waits[0 if at_once else -1], own[0] if own else 80 + hidden.position % 2, 20

    stage = Stage(reticent, {"mode": "duet"})
    stage.hear(*(one for i in range(40) for one in note(0.03 + 0.3 * i, 0.02, 40)))
    assert onsets(stage)
    assert stage.states == [State.PLAYING]
    check_at_rest(stage)


@musicians
def test_a_duet_goes_on_if_the_human_does(musician: Musician) -> None:
    stage = playing("duet", musician)
    stage.run(stage.now + 30, stop=lambda: stage.performer._turn.closing is not None)
    assert stage.replying
    go_on(stage, 1)
    assert stage.performer._turn.closing is None
    count = len(onsets(stage))
    go_on(stage, 12)
    assert stage.replying
    assert len(onsets(stage)) >= count
    assert stage.states == [State.PLAYING]
    check_at_rest(stage)


@pytest.mark.parametrize("rate", [2.0, 5.0])
def test_a_duet_leaves_the_human_about_as_many_notes_as_it_plays(rate: float) -> None:
    """Left alone, this musician would play 25 notes a second."""
    stage = Stage(steady(2, range(60, 90)), {"mode": "duet"})
    stage.hear(*(one for i in range(round(20 * rate)) for one in note(0.03 + i / rate, 0.01, 40 + i % 12)))
    assert 0.5 * rate < len(onsets(stage)) / 20 < rate + 6


def expectant(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
    """Expects a key to be let go of when one is held, whoever holds it; if it cannot be, or none is, strikes another."""
    waits, actions = possible(bias.wait), possible(bias.action).tolist()
    held = [pitch for pitch in range(PITCHES) if hidden.ages[pitch] >= 0]
    when = int(waits[np.searchsorted(waits, min(33 if held else 99, waits[-1]))])
    return when, next((NOTE_OFF + pitch for pitch in held if NOTE_OFF + pitch in actions), actions[0]), 20


def test_while_the_human_plays_the_keys_they_are_expected_to_let_go_of_are_no_reason_to_strike() -> None:
    """The model's musician has the hands of both. When it waits for one of the human's, nothing is to be done."""
    stage = Stage(expectant, {"mode": "solo", "pace": 0})
    stage.run(0.02, stop=lambda: stage.replying)
    for i in range(20):
        stage.hear(*note(0.55 * i + 0.1, 0.5, 40))
    struck = len(onsets(stage))
    stage.hear(Timed(stage.now + 0.02, NOTE_ON + 40, 80))
    stage.run(stage.now + 6.0)
    assert struck < 3  # the human's key was always about to be let go of
    assert len(onsets(stage)) > 2 * struck  # the human only holds it on: that is no reason to be silent


def test_after_a_duet_has_ended_the_next_phrase_begins_another() -> None:
    stage = playing("duet")
    stage.run(stage.now + 30, stop=lambda: not stage.replying)
    stage.run(stage.now + 5)
    go_on(stage, 2)
    assert not stage.replying
    go_on(stage, 2)
    assert stage.replying


def test_a_duet_is_played_around_keys_that_are_held() -> None:
    held = (60, 64, 67, 72, 76)
    stage = Stage(restless, {"mode": "duet", "register_low": 58, "register_high": 76})
    stage.hear(*(Timed(0.1 + 0.01 * i, NOTE_ON + pitch, 80) for i, pitch in enumerate(held)))
    for _ in range(30):
        go_on(stage, 2, pitch=90)
    assert len(onsets(stage)) > 10
    assert not {one.action % PITCHES for one in stage.machine if one.action < SUSTAIN_DOWN} & set(held)
    check_at_rest(stage)


def test_a_takeover_in_a_duet_plays_for_a_while_even_long_after_the_humans_phrase() -> None:
    stage = Stage(steady(30), {"mode": "duet"})
    stage.hear(*phrase(0.03, 2, 0.3))
    stage.run(5.0)
    stage.command(stage.performer.takeover)
    stage.run(5.0 + MIN_REPLY - 0.5)
    assert stage.replying
    assert onsets(stage)
    stage.run(40.0)
    assert not stage.replying
    check_at_rest(stage)


@pytest.mark.parametrize("silence", [0.05, 10.0])
def test_after_giving_way_a_duet_waits_for_the_next_phrase(silence: float) -> None:
    """Whether the human was in the middle of one, or had not played for long."""
    stage = playing("duet", seconds=0.0)
    stage.command(stage.performer.yield_turn)
    stage.run(stage.now + silence)
    if silence < 1:
        go_on(stage, 12)  # the same phrase goes on
        assert not stage.replying
        stage.run(stage.now + 5)
    assert not stage.replying
    go_on(stage, 4)
    assert stage.replying
