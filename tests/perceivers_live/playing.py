"""A stage on which the machine plays, in whatever mode, and what must hold there at any time."""

from __future__ import annotations

import numpy as np
import pytest

from engine.events import NOTE_OFF, PITCHES, SUSTAIN_DOWN, Timed
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.toys import Musician, improviser, steady
from tests.perceivers_live.virtual_stage import Stage, fresh, phrase

MODES = ["respond", "duet", "solo", "listen"]
PLAYING = ["respond", "duet", "solo"]
MUSICIANS = [improviser, steady(9, (64, 65, 67, 69), chord=3), steady(7, (72, 74), pedal=True)]
NAMES = ["improviser", "chords", "pedal"]
CLOSING = 2.0  # seconds that the last notes may take to be released
musicians = pytest.mark.parametrize("musician", MUSICIANS, ids=NAMES)


def notes(stage: Stage) -> list[tuple[int, ...]]:
    return [message for message in stage.port.messages if message[0] < 0xB0]


def check(stage: Stage) -> None:
    """What must hold at any time."""
    assert [fault for fault in unbalanced(notes(stage)) if "never" not in fault] == []
    assert stage.trespasses == []
    assert {pitch for _, pitch in stage.port.sounding} == set(stage.player.ledger._notes.values())
    assert stage.replying or stage.port.silent
    times = [one.time for one in stage.machine]
    assert times == sorted(times)
    assert all(at >= one.time for at, one in stage.sent_at)


def check_at_rest(stage: Stage) -> None:
    """What must hold once the machine has been silenced: nothing sounds, and the memory is exactly what sounded."""
    stage.command(stage.performer.yield_turn)
    check(stage)
    assert unbalanced(notes(stage)) == []
    assert stage.history() == stage.expected()
    assert np.array_equal(fresh(stage.engine._history).hidden(), stage.engine.hidden())
    assert set(stage.engine.sounding.held().tolist()) == stage.keys
    assert stage.engine.sounding.pedal == stage.pedal


def playing(mode: str, musician: Musician = improviser, seconds: float = 0.7, seed: int = 1, **controls: object) -> Stage:
    """A stage on which the machine has been playing for so long, the human having played a phrase."""
    stage = Stage(musician, {"mode": mode, **controls}, seed=seed)
    stage.hear(*phrase(0.03, 12, 0.2))
    stage.run(60.0, stop=lambda: stage.replying)
    stage.run(stage.now + seconds)
    assert stage.replying
    return stage


def go_on(stage: Stage, count: int = 4, gap: float = 0.25, pitch: int = 48) -> None:
    """The human plays on, from now."""
    stage.hear(*phrase(stage.now, count, gap, pitch))


def onsets(stage: Stage) -> list[Timed]:
    return [one for one in stage.machine if one.action < NOTE_OFF]


def legal(stage: Stage) -> bool:
    """Whether the memory is music as the model was trained on: struck when up, released when down."""
    down: set[int] = set()
    for _, action, _ in stage.history():
        subject = action % PITCHES if action < SUSTAIN_DOWN else PITCHES
        presses = action < NOTE_OFF or action == SUSTAIN_DOWN
        if presses == (subject in down):
            return False
        down ^= {subject}
    return True
