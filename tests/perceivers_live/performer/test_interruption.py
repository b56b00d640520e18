"""A human who plays interrupts the machine, and their keys and pedal stay theirs."""

from __future__ import annotations

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.performer.performer import State
from tests.perceivers_live.performer.replies import MUSICIANS, check_memory, check_memory_after_interruption, replying
from tests.perceivers_live.toys import Musician, steady
from tests.perceivers_live.virtual_stage import Stage, phrase


@pytest.mark.parametrize("musician", MUSICIANS)
@pytest.mark.parametrize("seconds", [0.0, 0.011, 0.35, 1.0, 2.73])
def test_a_key_press_silences_at_once_and_only_what_sounded_is_remembered(musician: Musician, seconds: float) -> None:
    stage = replying(musician, seconds)
    planned = stage.player.planned()
    stage.hear(Timed(stage.now, NOTE_ON + 30, 80))
    assert stage.port.silent
    assert not stage.replying
    assert stage.player.planned() == 0
    check_memory(stage)
    count = len(stage.machine)
    stage.run(stage.now + 0.3)
    assert len(stage.machine) == count
    assert planned or seconds < 0.1


def test_a_key_that_the_machine_holds_is_released_before_it_is_the_humans() -> None:
    stage = replying(steady(40, (72,)))
    stage.run(stage.now + 5, stop=lambda: 72 in stage.player.ledger.notes)
    stage.hear(Timed(stage.now, NOTE_ON + 72, 80))
    assert [action for _, action, _ in stage.history()[-2:]] == [NOTE_OFF + 72, NOTE_ON + 72]
    check_memory(stage)


def test_an_interruption_that_the_callback_has_made_already_comes_to_the_same() -> None:
    here, before = replying(seconds=0.8), replying(seconds=0.8)
    key = Timed(here.now, NOTE_ON + 30, 80)
    here.hear(key)
    before.player.ledger.keys.apply(key)
    reaction = before.performer.adapt_plan([key])
    before.performer.work(before.now)  # the performer was busy, and does not know yet
    before.performer.absorb_input([reaction])
    before.sounded.append(key)
    assert here.history() == before.history()
    check_memory(before)


def test_the_human_is_answered_again_after_an_interruption() -> None:
    stage = replying(seconds=0.5)
    stage.hear(*phrase(stage.now, 6, 0.2))
    stage.run(stage.now + 30)
    assert stage.states == [State.PLAYING, State.LISTENING, State.PLAYING, State.LISTENING]
    assert stage.port.silent
    check_memory(stage)


@pytest.mark.parametrize("action", [NOTE_OFF + 50, SUSTAIN_DOWN, SUSTAIN_UP])
def test_a_release_or_a_pedal_change_does_not_silence(action: int) -> None:
    stage = Stage(steady(30))
    held = [Timed(0.0, SUSTAIN_DOWN)] if action == SUSTAIN_UP else []
    stage.hear(*held, Timed(0.1, NOTE_ON + 50, 80), *phrase(0.2, 20, 0.2))
    stage.run(30.0, stop=lambda: len(stage.machine) == 5)
    sounding = stage.port.sounding
    assert sounding
    stage.hear(Timed(stage.now + 0.05, action))
    assert stage.replying
    assert stage.port.sounding == sounding
    stage.run(stage.now + 2.0)
    assert len(stage.machine) > 7
    check_memory_after_interruption(stage)


def test_the_humans_keys_are_never_released_or_struck_again() -> None:
    """The odds' masks are checked at every decision by the toy runtime; this is what comes out at the other end."""
    held = (60, 64, 67, 72, 76)
    stage = Stage(steady(6, (*held, 62, 74), chord=4))
    stage.hear(*(Timed(0.01 * i, NOTE_ON + pitch, 80) for i, pitch in enumerate(held)), *phrase(0.2, 12, 0.2, pitch=80))
    stage.run(30.0)
    assert len(stage.machine) > 20
    assert not {one.action % 128 for one in stage.machine if one.action < SUSTAIN_DOWN} & set(held)


def test_keys_held_through_a_reply_can_be_played_by_the_machine_once_released() -> None:
    stage = Stage(steady(6, (72,)), {"register_low": 72, "register_high": 72})
    stage.hear(Timed(0.0, NOTE_ON + 72, 80), *phrase(0.2, 12, 0.2, pitch=40))
    stage.run(30.0, stop=lambda: stage.replying)
    stage.run(stage.now + 0.5)
    assert stage.port.note_ons == []
    stage.hear(Timed(stage.now, NOTE_OFF + 72))
    stage.run(stage.now + 1.0)
    assert set(stage.port.note_ons) == {72}


def test_the_humans_pedal_is_not_the_machines_to_lift() -> None:
    stage = Stage(steady(6, pedal=True))
    stage.hear(Timed(0.0, SUSTAIN_DOWN), *phrase(0.2, 12, 0.2))
    stage.run(30.0)
    assert len(stage.machine) > 10
    assert not [one for one in stage.machine if one.action in (SUSTAIN_DOWN, SUSTAIN_UP)]
