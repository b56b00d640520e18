"""Calls and replies for the tests of the performer."""

from __future__ import annotations

import numpy as np

from engine.events import NOTE_ON, Timed
from tests.perceivers_live.toys import Musician, improviser, steady
from tests.perceivers_live.virtual_stage import Stage, fresh, phrase

CALL = phrase(0.0, 8, 0.2)  # from 0 to 1.56 s; the reply begins at about 2.5 s
END_OF_CALL = 1.4  # the last onset
LONG_CALL = phrase(0.0, 40, 0.2)
MUSICIANS = [improviser, steady(), steady(7, (64, 65, 67, 69), chord=3), steady(15, pedal=True)]


def replying(musician: Musician = improviser, seconds: float = 1.0, call: list[Timed] = LONG_CALL, **controls: object) -> Stage:
    """A stage whose machine has been replying for so long."""
    stage = Stage(musician, controls)
    stage.hear(*call)
    stage.run(60.0, stop=lambda: stage.replying)
    stage.run(stage.now + seconds)
    assert stage.replying
    return stage


def check_memory(stage: Stage) -> None:
    """The engine is exactly where a fresh one is after absorbing the same events, and those are what sounded."""
    assert stage.history() == stage.expected()
    again = fresh(stage.engine._history)
    assert again.position == stage.engine.position
    assert again.step == stage.engine.step
    assert np.array_equal(again.sounding.since, stage.engine.sounding.since)
    assert np.array_equal(again.hidden(), stage.engine.hidden())


def check_memory_after_interruption(stage: Stage) -> None:
    stage.hear(Timed(stage.now, NOTE_ON + 100, 80))
    check_memory(stage)
