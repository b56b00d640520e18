"""Decisions that a server makes ahead are the same as those made one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.adjustment import CallStatistics, Strike
from engine.checkpoint import bundled
from engine.engine import Engine
from engine.events import Event
from engine.runtimes.choose import open_runtime
from perceivers_live.controls.registry import Controls
from perceivers_live.performer import decision
from perceivers_live.performer.decision import Situation, decide
from tests.music import improvise


def solo(engine: Engine, count: int) -> list[Event]:
    """Events that the machine plays by itself, in reply to a slow and soft call."""
    controls, events, strikes = Controls({"mode": "solo", "density": 0.5}).snapshot(), list[Event](), list[Strike]()
    engine.forget()
    engine.absorb(improvise(60, seed=2)[1:])
    start = engine.step / 100
    for _ in range(count):
        own, pedal = frozenset(engine.sounding.held().tolist()), engine.sounding.pedal
        at = Situation(own, pedal, own, 0, False, False, False, False, strikes, start, CallStatistics(3.0, 40.0), None)
        event = decide(engine, controls, at, seed=4)
        engine.absorb([event])
        events.append(event)
        if event.is_note_on:
            strikes = [*strikes, Strike(engine.step, event.pitch, event.velocity)]
    return events


def test_decisions_made_ahead_equal_those_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, following_events = Engine(open_runtime("onnx", bundled(), threads=1)), list[object]()
    following: Callable[..., object] = decision._request
    monkeypatch.setattr(decision, "_request", lambda *given: following_events.append(one := following(*given)) or one)
    ahead = solo(engine, 120)
    assert len(following_events) == 120
    assert None not in following_events
    monkeypatch.setattr(decision, "_request", lambda *_: None)
    assert solo(engine, 120) == ahead
