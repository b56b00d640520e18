"""Virtual sessions in which the machine plays, in any mode, and checks of what must always hold."""

from __future__ import annotations

import numpy as np
import pytest

from engine.events import NOTE_OFF, PITCHES, SUSTAIN_DOWN, Timed
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.toys import Musician, improviser, steady
from tests.perceivers_live.virtual_session import VirtualSession, fresh, phrase

MODES = ["respond", "duet", "solo", "listen"]
PLAYING = ["respond", "duet", "solo"]
MUSICIANS = [improviser, steady(9, (64, 65, 67, 69), chord=3), steady(7, (72, 74), pedal=True)]
NAMES = ["improviser", "chords", "pedal"]
CLOSING = 2.0  # seconds that the last notes may take to be released
musicians = pytest.mark.parametrize("musician", MUSICIANS, ids=NAMES)


def notes(session: VirtualSession) -> list[tuple[int, ...]]:
    return [message for message in session.port.messages if message[0] < 0xB0]


def check(session: VirtualSession) -> None:
    """Checks what must hold at any time."""
    assert [fault for fault in unbalanced(notes(session)) if "never" not in fault] == []
    assert session.violations == []
    assert {pitch for _, pitch in session.port.sounding} == set(session.player.ledger._notes.values())
    assert session.replying or session.port.silent
    times = [one.time for one in session.machine]
    assert times == sorted(times)
    assert all(at >= one.time for at, one in session.sent_at)


def check_at_rest(session: VirtualSession) -> None:
    """Silences the machine, and checks that nothing sounds and that the history is exactly what sounded."""
    session.command(session.performer.yield_turn)
    check(session)
    assert unbalanced(notes(session)) == []
    assert session.history() == session.expected()
    assert np.array_equal(fresh(session.engine._history).hidden(), session.engine.hidden())
    assert set(session.engine.sounding.held().tolist()) == session.keys
    assert session.engine.sounding.pedal == session.pedal


def playing(
    mode: str, musician: Musician = improviser, seconds: float = 0.7, seed: int = 1, **controls: object
) -> VirtualSession:
    """A session in which the human has played a phrase and the machine has been playing for ``seconds``."""
    session = VirtualSession(musician, {"mode": mode, **controls}, seed=seed)
    session.receive(*phrase(0.03, 12, 0.2))
    session.run(60.0, stop=lambda: session.replying)
    session.run(session.now + seconds)
    assert session.replying
    return session


def human_plays(session: VirtualSession, count: int = 4, gap: float = 0.25, pitch: int = 48) -> None:
    """The human plays a phrase, from now."""
    session.receive(*phrase(session.now, count, gap, pitch))


def onsets(session: VirtualSession) -> list[Timed]:
    return [one for one in session.machine if one.action < NOTE_OFF]


def longest_note(session: VirtualSession) -> float:
    """For how long the machine held the longest note, up to now, in seconds."""
    began: dict[int, float] = {}
    longest = 0.0
    for at, one in session.sent_at:
        if one.action < NOTE_OFF:
            began[one.action] = at
        elif one.action < SUSTAIN_DOWN:
            longest = max(longest, at - began.pop(one.action - NOTE_OFF, at))
    return max([longest, *(session.now - at for at in began.values())])


def is_valid_history(session: VirtualSession) -> bool:
    """Whether the history is like the training data: keys are pressed only when up and released only when down."""
    down: set[int] = set()
    for _, action, _ in session.history():
        subject = action % PITCHES if action < SUSTAIN_DOWN else PITCHES
        presses = action < NOTE_OFF or action == SUSTAIN_DOWN
        if presses == (subject in down):
            return False
        down ^= {subject}
    return True
