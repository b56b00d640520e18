"""Several decisions a round trip give the same events as single decisions, whatever happens in between."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.adjustment import NO_CALL, CallStatistics, Goal, Strike, Target
from engine.ahead import MAX_AHEAD, DecisionRequest, decide_ahead
from engine.checkpoint import bundled
from engine.engine import Engine
from engine.events import SUSTAIN_DOWN, SUSTAIN_UP, Event
from engine.grid import PulseGrid
from engine.remote.address import Address, this_computer
from engine.remote.decided_ahead import DecidedAhead, answer_values, call_values, parse_answer, parse_call
from engine.remote.runtime import RemoteRuntime
from engine.remote.wire import WireError, decode, encode
from engine.runtimes.choose import open_runtime
from engine.sampling import SamplingControls
from engine.sounding import Sounding
from tests.music import improvise

ROOT = Path(__file__).parents[3]
DELAY = 0.02  # seconds, each way
MUSIC = improvise(120, seed=3)


def delayed_runtime(delay: float) -> RemoteRuntime:
    """The bundled model behind a connection with delay."""
    server = this_computer("onnx", bundled(), 1)
    command = (sys.executable, "-m", "tests.engine.remote.delayed", str(delay), *server.command)
    return RemoteRuntime(Address(("env", f"PYTHONPATH={ROOT}", *command), "a far server"), timeout=10.0)


@pytest.fixture(scope="module")
def far() -> Iterator[RemoteRuntime]:
    runtime = delayed_runtime(DELAY)
    yield runtime
    runtime.close()


def request_of(**changed: object) -> DecisionRequest:
    """A decision at the beginning of a turn, with some values changed."""
    goal = Goal(0.0, Target.of(NO_CALL, 0.5, 0.5), 2.0)
    plain = DecisionRequest(1, SamplingControls(), frozenset(), False, frozenset(), (), goal, 0)
    return dataclasses.replace(plain, **changed)  # type: ignore[arg-type]


def solo(engine: Engine, count: int, *, seed: int = 1, changes: bool = False) -> list[Event]:
    """``count`` events of the machine. With ``changes``, controls change, keys are pressed and part of the plan is dropped in
    between.
    """
    chance, events = np.random.default_rng(seed), []
    own: frozenset[int] = frozenset()
    sampling, forbidden, strikes = SamplingControls(temperature=1.1), frozenset[int](), list[Strike]()
    goal = Goal(engine.step / 100, Target.of(CallStatistics(12.0, 90.0), 0.5, -0.5), 2.0)
    while len(events) < count:
        if changes and chance.random() < 0.15:
            match int(chance.integers(4)):
                case 0:
                    grid = PulseGrid(float(chance.uniform(0, 6)), 0.4, 5.0) if chance.random() < 0.7 else None
                    goal = dataclasses.replace(goal, grid=grid)
                case 3:
                    sampling = SamplingControls(temperature=float(chance.uniform(0.8, 1.2)))
                case 1:
                    forbidden = frozenset({int(chance.integers(40, 80))})
                case _:
                    engine.rewind(max(engine.position - int(chance.integers(1, 6)), len(MUSIC) - 1))
                    strikes = [one for one in strikes if one.step <= engine.step]
        own = frozenset(engine.sounding.held().tolist())
        request = DecisionRequest(seed, sampling, own, engine.sounding.pedal, forbidden - own, tuple(strikes), goal, engine.step)
        event = engine.decide_request(request)
        events.append(event)
        engine.absorb([event])
        if event.is_note_on:
            strikes.append(Strike(engine.step, event.pitch, event.velocity))
    return events


@pytest.fixture
def here() -> Engine:
    return Engine(open_runtime("onnx", bundled(), threads=1))


@pytest.mark.parametrize("changes", [False, True])
def test_events_and_state_equal_those_of_single_decisions(far: RemoteRuntime, here: Engine, changes: bool) -> None:
    there = Engine(far)
    for engine in (there, here):
        engine.forget()
        engine.absorb(MUSIC[1:])
    assert solo(there, 80, changes=changes) == solo(here, 80, changes=changes)
    assert there.position == here.position
    assert np.allclose(there.hidden(), here.hidden(), atol=1e-4)
    snapshot = there.snapshot()
    there.absorb(MUSIC[1:20])
    there.restore(snapshot)
    assert solo(there, 10, seed=2) == solo(here, 10, seed=2)


def test_a_connection_with_delay_takes_several_events_a_round_trip(far: RemoteRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: Counter[str] = Counter()
    send = far._send
    monkeypatch.setattr(far, "_send", lambda kind, *values: (sent.update([kind.name]), send(kind, *values)))
    engine = Engine(far)
    engine.absorb(MUSIC[1:])
    engine.hidden()
    far.ping()
    assert far._delay > 2 * DELAY * 0.9
    sent.clear()
    solo(engine, 60)
    assert sent["DECIDE"] == 0
    assert sent["DECIDE_AHEAD"] < 60, "some events are decided together; how many depends on this computer"


def test_without_delay_each_decision_is_a_separate_call() -> None:
    near = RemoteRuntime(this_computer("onnx", bundled(), 1), timeout=10.0)
    engine = Engine(near)
    near.ping()
    solo(engine, 5)
    assert near._decided_ahead.decision(engine.position, request_of()) is None
    assert near.ahead == 0
    near.close()


def test_all_events_decided_ahead_but_the_last_are_absorbed() -> None:
    runtime = open_runtime("onnx", bundled(), threads=1)
    here = Engine(runtime)
    here.absorb(MUSIC[1:])
    request = request_of(seed=5, own=frozenset(here.sounding.held().tolist()), step=here.step)
    events = decide_ahead(runtime, here.position, request, here.sounding, 60.0)
    assert len(events) == MAX_AHEAD
    other = Engine(open_runtime("onnx", bundled(), threads=1))
    other.absorb([*MUSIC[1:], *events[:-1]])
    assert np.allclose(runtime.hidden(other.position), other.hidden(), atol=1e-4)
    assert len(decide_ahead(runtime, here.position, request, here.sounding, 0.0)) == 1


def test_the_next_request_includes_the_effects_of_the_event() -> None:
    sounding = Sounding()
    first = request_of(sampling=SamplingControls(max_polyphony=2), forbidden=frozenset({50}), strikes=(Strike(0, 60, 9),))
    request = first
    for event in (Event(0, 64, 10), Event(5, 67, 11), Event(0, SUSTAIN_DOWN), Event(10, 128 + 64), Event(1, SUSTAIN_UP)):
        sounding.apply(event)
        request = request.next(event)
    strikes = (Strike(0, 60, 9), Strike(0, 64, 10), Strike(5, 67, 11))
    assert request == dataclasses.replace(first, own=frozenset({67}), strikes=strikes, step=16)
    assert request.step == sounding.step


@pytest.mark.parametrize("grid", [None, PulseGrid(1.0, 0.2, 3.0)])
def test_calls_and_answers_are_transferred_exactly_and_invalid_ones_refused(grid: PulseGrid | None) -> None:
    sounding = Sounding()
    for event in MUSIC[:40]:
        sounding.apply(event)
    request = request_of(
        seed=2**40,
        sampling=SamplingControls(temperature=0.9, register_low=20),
        own=frozenset({60}),
        own_pedal=True,
        forbidden=frozenset({1, 2}),
        strikes=(Strike(3, 60, 4), Strike(5, 61, 6)),
        goal=Goal(-2.5, Target.of(CallStatistics(5.0, 70.0), -0.5, 1.0), 3.0, grid),
        step=sounding.step,
    )
    (_, *values) = decode(encode(26, 7, *call_values(request, sounding, 0.01))[8:])
    same, received, seconds = parse_call(values)
    assert (same, seconds) == (request, 0.01)
    assert np.array_equal(received.ages(), sounding.ages())
    assert received.step == sounding.step
    assert parse_answer(decode(encode(2, *answer_values(MUSIC[1:5], 0.5))[8:])) == (MUSIC[1:5], 0.5)
    no_rate = [*values[:-8], 0.0, *values[-7:]] if values[-9] == 3.0 else []
    for wrong in (
        [],
        values[:-1],
        [*values[:3], np.array([400]), *values[4:]],
        [*values, 1.0],
        [*values[:-1], math.nan],
        no_rate,
    ):
        with pytest.raises(ValueError, match="decisions ahead"):
            parse_call(wrong)
    for wrong in ([], [np.zeros((9, 3), np.int64), 0.1], [np.full((1, 3), 999), 0.1]):
        with pytest.raises(WireError):
            parse_answer(wrong)


def test_decisions_ahead_are_discarded_after_another_event() -> None:
    ahead, request = DecidedAhead(), request_of()
    events = [Event(1, 60, 3), Event(2, 62, 3), Event(3, 64, 3)]
    ahead.fill(10, request, events)
    second = request.next(events[0])
    assert ahead.decision(10, request) == events[0]
    assert ahead.decision(11, second) == events[1]
    assert ahead.decision(11, request) is None
    assert ahead.has_absorbed(np.array([events[0]]), 11)
    assert not ahead.has_absorbed(np.array([events[0]]), 12)
    assert ahead.decision(11, second) is None
