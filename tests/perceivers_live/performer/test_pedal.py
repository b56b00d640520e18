"""A pedal that human and machine share; and when the machine says that it listens."""

from __future__ import annotations

from itertools import pairwise

import pytest

from engine.events import NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.performer.performer import State
from tests.perceivers_live.playing import check, check_at_rest, go_on, playing
from tests.perceivers_live.toys import steady
from tests.perceivers_live.virtual_stage import Stage, phrase


def down(stage: Stage) -> None:
    """Lets the machine play until it has the pedal down."""
    stage.run(stage.now + 20, stop=lambda: stage.player.ledger.pedal)
    assert stage.player.ledger.pedal


@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_the_pedal_is_not_lifted_while_the_human_has_it_down(mode: str) -> None:
    stage = playing(mode, steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN))
    for _ in range(20):
        go_on(stage, 1)
        assert stage.port.pedals
    check(stage)
    stage.hear(Timed(stage.now, SUSTAIN_UP))
    assert not stage.port.pedals  # it comes up for both
    assert not stage.engine.sounding.pedal
    check_at_rest(stage)


def test_a_pedal_that_the_human_has_taken_over_does_not_keep_a_turn_from_ending() -> None:
    stage = playing("duet", steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN))
    stage.run(stage.now + 30, stop=lambda: not stage.replying)
    check(stage)
    assert stage.engine.sounding.pedal  # the human's foot is still on it
    stage.hear(Timed(stage.now, SUSTAIN_UP))
    check_at_rest(stage)


def test_silencing_the_machine_does_not_make_the_memory_forget_the_humans_pedal() -> None:
    stage = playing("respond", steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN))
    stage.hear(Timed(stage.now + 0.1, NOTE_ON + 40, 80))
    assert stage.port.silent
    assert stage.engine.sounding.pedal
    check_at_rest(stage)


def test_a_pedal_pressed_by_both_is_one_pedal_in_the_memory() -> None:
    stage = playing("duet", steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN), Timed(stage.now + 0.3, SUSTAIN_UP))
    pedal = [action for _, action, _ in stage.history() if action in (SUSTAIN_DOWN, SUSTAIN_UP)]
    assert all(one != other for one, other in pairwise(pedal))
    assert stage.machine[-1].action == SUSTAIN_UP or not stage.player.ledger.pedal
    check_at_rest(stage)


def test_who_listens_is_told_when_the_human_lifts_the_machines_pedal() -> None:
    """Or a recording of the machine's part would sound to its end with the pedal down."""
    stage = playing("duet", steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN), Timed(stage.now + 0.01, SUSTAIN_UP))
    pedal = [one.action for one in stage.machine if one.action in (SUSTAIN_DOWN, SUSTAIN_UP)]
    assert pedal[-1] == SUSTAIN_UP


@pytest.mark.parametrize("end", ["key", "yield", "itself"])
def test_it_says_that_it_listens_once_nothing_of_its_own_sounds_any_more(end: str) -> None:
    sounding: list[bool] = []
    stage = Stage(steady(20, pedal=True))
    stage.performer._on_state = lambda state: sounding.append(state is State.LISTENING and not stage.port.silent)
    stage.hear(*phrase(0.0, 8, 0.2))
    stage.run(stage.now + 20, stop=lambda: stage.replying and bool(stage.port.sounding) and bool(stage.port.pedals))
    assert stage.replying
    if end == "key":
        stage.hear(Timed(stage.now, NOTE_ON + 30, 80))
    elif end == "yield":
        stage.performer.yield_turn(stage.now)
    else:
        stage.run(stage.now + 90, stop=lambda: not stage.replying)
    assert sounding == [False, False]
