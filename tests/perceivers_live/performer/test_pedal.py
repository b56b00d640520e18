"""The sustain pedal that human and machine share, and the time at which the listening state is reported."""

from __future__ import annotations

from itertools import pairwise

import pytest

from engine.events import NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.performer.performer import State
from tests.perceivers_live.playing import check, check_at_rest, human_plays, playing
from tests.perceivers_live.toys import steady
from tests.perceivers_live.virtual_session import VirtualSession, phrase


def wait_for_machine_pedal(session: VirtualSession) -> None:
    """Runs until the machine has the pedal down."""
    session.run(session.now + 20, stop=lambda: session.player.ledger.pedal)
    assert session.player.ledger.pedal


@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_the_pedal_is_not_lifted_while_the_human_has_it_down(mode: str) -> None:
    session = playing(mode, steady(9, (72,), pedal=True))
    wait_for_machine_pedal(session)
    session.receive(Timed(session.now, SUSTAIN_DOWN))
    for _ in range(20):
        human_plays(session, 1)
        assert session.port.pedals
    check(session)
    session.receive(Timed(session.now, SUSTAIN_UP))
    assert not session.port.pedals  # it comes up for both
    assert not session.engine.sounding.pedal
    check_at_rest(session)


def test_pedal_held_by_the_human_does_not_prevent_the_end_of_a_turn() -> None:
    session = playing("duet", steady(9, (72,), pedal=True))
    wait_for_machine_pedal(session)
    session.receive(Timed(session.now, SUSTAIN_DOWN))
    session.run(session.now + 30, stop=lambda: not session.replying)
    check(session)
    assert session.engine.sounding.pedal  # the human's foot is still on it
    session.receive(Timed(session.now, SUSTAIN_UP))
    check_at_rest(session)


def test_silencing_the_machine_keeps_the_humans_pedal_in_the_history() -> None:
    session = playing("respond", steady(9, (72,), pedal=True))
    wait_for_machine_pedal(session)
    session.receive(Timed(session.now, SUSTAIN_DOWN))
    session.receive(Timed(session.now + 0.1, NOTE_ON + 40, 80))
    assert session.port.silent
    assert session.engine.sounding.pedal
    check_at_rest(session)


def test_pedal_pressed_by_both_is_one_pedal_in_the_history() -> None:
    session = playing("duet", steady(9, (72,), pedal=True))
    wait_for_machine_pedal(session)
    session.receive(Timed(session.now, SUSTAIN_DOWN), Timed(session.now + 0.3, SUSTAIN_UP))
    pedal = [action for _, action, _ in session.history() if action in (SUSTAIN_DOWN, SUSTAIN_UP)]
    assert all(one != other for one, other in pairwise(pedal))
    assert session.machine[-1].action == SUSTAIN_UP or not session.player.ledger.pedal
    check_at_rest(session)


def test_observers_receive_the_pedal_up_when_the_human_lifts_the_machines_pedal() -> None:
    """Otherwise a recording of the machine's part would keep the pedal down to its end."""
    session = playing("duet", steady(9, (72,), pedal=True))
    wait_for_machine_pedal(session)
    session.receive(Timed(session.now, SUSTAIN_DOWN), Timed(session.now + 0.01, SUSTAIN_UP))
    pedal = [one.action for one in session.machine if one.action in (SUSTAIN_DOWN, SUSTAIN_UP)]
    assert pedal[-1] == SUSTAIN_UP


@pytest.mark.parametrize("end", ["key", "yield", "itself"])
def test_listening_state_is_reported_after_the_machine_is_silent(end: str) -> None:
    sounding: list[bool] = []
    session = VirtualSession(steady(20, pedal=True))
    session.performer._on_state = lambda state: sounding.append(state is State.LISTENING and not session.port.silent)
    session.receive(*phrase(0.0, 8, 0.2))
    session.run(session.now + 20, stop=lambda: session.replying and bool(session.port.sounding) and bool(session.port.pedals))
    assert session.replying
    if end == "key":
        session.receive(Timed(session.now, NOTE_ON + 30, 80))
    elif end == "yield":
        session.performer.yield_turn(session.now)
    else:
        session.run(session.now + 90, stop=lambda: not session.replying)
    assert sounding == [False, False]
