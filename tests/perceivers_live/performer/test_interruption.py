"""The human's playing interrupts the machine, which never touches the human's keys and pedal."""

from __future__ import annotations

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.performer.performer import State
from tests.perceivers_live.performer.replies import MUSICIANS, check_history, check_history_after_interruption, replying
from tests.perceivers_live.toys import Musician, steady
from tests.perceivers_live.virtual_session import VirtualSession, phrase


@pytest.mark.parametrize("musician", MUSICIANS)
@pytest.mark.parametrize("seconds", [0.0, 0.011, 0.35, 1.0, 2.73])
def test_key_press_silences_at_once_and_the_history_is_what_sounded(musician: Musician, seconds: float) -> None:
    session = replying(musician, seconds)
    planned = session.player.planned()
    session.receive(Timed(session.now, NOTE_ON + 30, 80))
    assert session.port.silent
    assert not session.replying
    assert session.player.planned() == 0
    check_history(session)
    count = len(session.machine)
    session.run(session.now + 0.3)
    assert len(session.machine) == count
    assert planned or seconds < 0.1


def test_machine_releases_its_key_before_the_human_plays_it() -> None:
    session = replying(steady(40, (72,)))
    session.run(session.now + 5, stop=lambda: 72 in session.player.ledger.notes)
    session.receive(Timed(session.now, NOTE_ON + 72, 80))
    assert [action for _, action, _ in session.history()[-2:]] == [NOTE_OFF + 72, NOTE_ON + 72]
    check_history(session)


def test_interruption_by_the_input_callback_gives_the_same_history() -> None:
    here, before = replying(seconds=0.8), replying(seconds=0.8)
    key = Timed(here.now, NOTE_ON + 30, 80)
    here.receive(key)
    before.player.ledger.keys.apply(key)
    reaction = before.performer.adapt_plan([key])
    before.performer.work(before.now)  # the performer was busy, and does not know yet
    before.performer.absorb_input([reaction])
    before.sounded.append(key)
    assert here.history() == before.history()
    check_history(before)


def test_the_human_is_answered_again_after_an_interruption() -> None:
    session = replying(seconds=0.5)
    session.receive(*phrase(session.now, 6, 0.2))
    session.run(session.now + 30)
    assert session.states == [State.PLAYING, State.LISTENING, State.PLAYING, State.LISTENING]
    assert session.port.silent
    check_history(session)


@pytest.mark.parametrize("action", [NOTE_OFF + 50, SUSTAIN_DOWN, SUSTAIN_UP])
def test_release_or_pedal_change_does_not_silence_a_reply(action: int) -> None:
    session = VirtualSession(steady(30))
    held = [Timed(0.0, SUSTAIN_DOWN)] if action == SUSTAIN_UP else []
    session.receive(*held, Timed(0.1, NOTE_ON + 50, 80), *phrase(0.2, 20, 0.2))
    session.run(30.0, stop=lambda: len(session.machine) == 5)
    sounding = session.port.sounding
    assert sounding
    session.receive(Timed(session.now + 0.05, action))
    assert session.replying
    assert session.port.sounding == sounding
    session.run(session.now + 2.0)
    assert len(session.machine) > 7
    check_history_after_interruption(session)


def test_machine_never_plays_keys_that_the_human_holds() -> None:
    """The toy runtime checks the masks at each decision; this test checks the output."""
    held = (60, 64, 67, 72, 76)
    session = VirtualSession(steady(6, (*held, 62, 74), chord=4))
    session.receive(*(Timed(0.01 * i, NOTE_ON + pitch, 80) for i, pitch in enumerate(held)), *phrase(0.2, 12, 0.2, pitch=80))
    session.run(30.0)
    assert len(session.machine) > 20
    assert not {one.action % 128 for one in session.machine if one.action < SUSTAIN_DOWN} & set(held)


def test_machine_may_play_a_key_once_the_human_releases_it() -> None:
    session = VirtualSession(steady(6, (72,)), {"register_low": 72, "register_high": 72})
    session.receive(Timed(0.0, NOTE_ON + 72, 80), *phrase(0.2, 12, 0.2, pitch=40))
    session.run(30.0, stop=lambda: session.replying)
    session.run(session.now + 0.5)
    assert session.port.note_ons == []
    session.receive(Timed(session.now, NOTE_OFF + 72))
    session.run(session.now + 1.0)
    assert set(session.port.note_ons) == {72}


def test_machine_does_not_move_a_pedal_that_the_human_holds() -> None:
    session = VirtualSession(steady(6, pedal=True))
    session.receive(Timed(0.0, SUSTAIN_DOWN), *phrase(0.2, 12, 0.2))
    session.run(30.0)
    assert len(session.machine) > 10
    assert not [one for one in session.machine if one.action in (SUSTAIN_DOWN, SUSTAIN_UP)]
