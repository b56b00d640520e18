"""Calls and replies for the tests of the performer."""

from __future__ import annotations

import numpy as np

from engine.events import NOTE_ON, Timed
from tests.perceivers_live.toys import Musician, improviser, steady
from tests.perceivers_live.virtual_session import VirtualSession, fresh, phrase

CALL = phrase(0.0, 8, 0.2)  # from 0 to 1.56 s; the reply begins at about 2.5 s
END_OF_CALL = 1.4  # the last onset
LONG_CALL = phrase(0.0, 40, 0.2)
MUSICIANS = [improviser, steady(), steady(7, (64, 65, 67, 69), chord=3), steady(15, pedal=True)]


def replying(
    musician: Musician = improviser, seconds: float = 1.0, call: list[Timed] = LONG_CALL, **controls: object
) -> VirtualSession:
    """A session in which the machine has been replying for ``seconds``."""
    session = VirtualSession(musician, controls)
    session.receive(*call)
    session.run(60.0, stop=lambda: session.replying)
    session.run(session.now + seconds)
    assert session.replying
    return session


def check_history(session: VirtualSession) -> None:
    """Checks that the history is what sounded, and that a fresh engine reaches the same state with the same events."""
    assert session.history() == session.expected()
    again = fresh(session.engine._history)
    assert again.position == session.engine.position
    assert again.step == session.engine.step
    assert np.array_equal(again.sounding.since, session.engine.sounding.since)
    assert np.array_equal(again.hidden(), session.engine.hidden())


def check_history_after_interruption(session: VirtualSession) -> None:
    session.receive(Timed(session.now, NOTE_ON + 100, 80))
    check_history(session)
