"""The performer's loop: recovery from faults of the engine."""

from __future__ import annotations

import pytest

from engine.engine import RECENT, EngineError
from engine.events import MAX_WAIT, REST
from engine.rings import MASKED
from engine.runtimes import SamplingBias
from perceivers_live.session.loop import PerformerLoop
from perceivers_live.session.observers import Observers
from tests.perceivers_live.toys import Hidden, steady
from tests.perceivers_live.virtual_session import VirtualSession


def test_a_history_that_does_not_reach_back_far_enough_is_cleared() -> None:
    """The machine has rested for longer than the rings reach, after a recovery that kept only the newest events."""
    play = steady()

    def musician(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
        resting = hidden.position > RECENT + 300 and bias.action[REST] > MASKED / 2 and bias.wait[MAX_WAIT] > MASKED / 2
        return (MAX_WAIT, REST, 0) if resting else play(hidden, bias)

    session = VirtualSession(musician, {"mode": "solo"})
    session.run(1e4, stop=lambda: session.engine.position > RECENT + 100)
    session.performer.recover(session.now)
    session.run(1e4, stop=lambda: session.engine.position > RECENT + 300 + 2 * session.runtime.config.slack)
    with pytest.raises(EngineError, match="cannot rewind"):
        session.performer.recover(session.now)
    loop = PerformerLoop(session.performer, session.player, session.runtime, Observers([]))
    loop._recover()
    assert loop.recoveries == 1
    assert session.engine.position == 0
    assert session.port.silent
