"""Several decisions a round trip give the events of single decisions, whatever happens in between; and fewer round trips."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.ahead import MAX_AHEAD, Following, decide_ahead
from engine.checkpoint import bundled
from engine.engine import Engine
from engine.events import SUSTAIN_DOWN, SUSTAIN_UP, Event
from engine.remote.address import Address, this_machine
from engine.remote.lookahead import Lookahead, answer_values, call_values, parse_answer, parse_call
from engine.remote.runtime import RemoteRuntime
from engine.remote.wire import WireError, decode, encode
from engine.runtimes.choose import open_runtime
from engine.sampling import Steering, sampling_bias
from engine.sounding import Sounding
from tests.music import improvise

ROOT = Path(__file__).parents[3]
DELAY = 0.02  # seconds, each way
MUSIC = improvise(120, seed=3)


def behind_a_line(delay: float) -> RemoteRuntime:
    """The bundled model behind a line."""
    server = this_machine("onnx", bundled(), 1)
    command = (sys.executable, "-m", "tests.engine.remote.delayed", str(delay), *server.command)
    return RemoteRuntime(Address(("env", f"PYTHONPATH={ROOT}", *command), "a far server"), hang=10.0)


@pytest.fixture(scope="module")
def far() -> Iterator[RemoteRuntime]:
    runtime = behind_a_line(DELAY)
    yield runtime
    runtime.close()


def solo(engine: Engine, count: int, *, seed: int = 1, changes: bool = False) -> list[Event]:
    """``count`` events of the machine's. With ``changes``, things happen that were not foreseen: controls are turned, keys are
    pressed, part of the plan is dropped.
    """
    chance, events = np.random.default_rng(seed), []
    own: frozenset[int] = frozenset()
    steering, forbidden = Steering(temperature=1.1), frozenset[int]()
    while len(events) < count:
        if changes and chance.random() < 0.15:
            match int(chance.integers(3)):
                case 0:
                    steering = Steering(temperature=float(chance.uniform(0.8, 1.2)))
                case 1:
                    forbidden = frozenset({int(chance.integers(40, 80))})
                case _:
                    engine.rewind(max(engine.position - int(chance.integers(1, 6)), len(MUSIC) - 1))
        own = frozenset(engine.sounding.held().tolist())
        following = Following(seed, steering, own, engine.sounding.pedal, forbidden - own, ())
        event = engine.decide_following(following)
        events.append(event)
        engine.absorb([event])
    return events


@pytest.fixture
def here() -> Engine:
    return Engine(open_runtime("onnx", bundled(), threads=1))


@pytest.mark.parametrize("changes", [False, True])
def test_events_and_state_are_those_of_single_decisions(far: RemoteRuntime, here: Engine, changes: bool) -> None:
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


def test_a_line_with_delay_takes_several_events_a_round_trip(far: RemoteRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert sent["DECIDE_AHEAD"] < 60, "some events are decided together; how many depends on this machine"


def test_without_a_delay_each_decision_is_a_call() -> None:
    near = RemoteRuntime(this_machine("onnx", bundled(), 1), hang=10.0)
    engine = Engine(near)
    near.ping()
    solo(engine, 5)
    assert near._lookahead.decision(engine.position, Following(1, Steering(), frozenset(), False, frozenset(), ())) is None
    assert near.ahead == 0
    near.close()


def test_all_decided_events_but_the_last_are_absorbed() -> None:
    runtime = open_runtime("onnx", bundled(), threads=1)
    here = Engine(runtime)
    here.absorb(MUSIC[1:])
    following = Following(5, Steering(), frozenset(here.sounding.held().tolist()), False, frozenset(), ())
    events = decide_ahead(runtime, here.position, following, here.sounding, 60.0)
    assert len(events) == MAX_AHEAD
    other = Engine(open_runtime("onnx", bundled(), threads=1))
    other.absorb([*MUSIC[1:], *events[:-1]])
    assert np.allclose(runtime.hidden(other.position), other.hidden(), atol=1e-4)
    assert len(decide_ahead(runtime, here.position, following, here.sounding, 0.0)) == 1


def test_the_bias_that_follows_is_that_of_the_next_situation() -> None:
    sounding = Sounding()
    following = Following(9, Steering(max_polyphony=2), frozenset(), False, frozenset({50}), (60,))
    for event in (Event(0, 64, 10), Event(5, 67, 10), Event(0, SUSTAIN_DOWN), Event(10, 128 + 64), Event(1, SUSTAIN_UP)):
        sounding.apply(event)
        following = following.after(event)
    assert following == Following(9, Steering(max_polyphony=2), frozenset({67}), False, frozenset({50}), (60, 64, 67))
    rng, options = (
        np.random.default_rng((9, 4)),
        {"own": {67}, "own_pedal": False, "strikes": (60, 64, 67), "forbidden": {50, 67}},
    )
    expected = sampling_bias(sounding, Steering(max_polyphony=2), rng, **options)  # type: ignore[arg-type]
    for one, other in zip(following.bias(sounding, 4), expected, strict=True):
        assert np.array_equal(one, other)


def test_calls_and_answers_survive_the_wire() -> None:
    sounding = Sounding()
    for event in MUSIC[:40]:
        sounding.apply(event)
    following = Following(2**40, Steering(temperature=0.9, register_low=20), frozenset({60}), True, frozenset({1, 2}), (60, 61))
    (_, *values) = decode(encode(26, 7, *call_values(following, sounding, 0.01))[8:])
    same, heard, seconds = parse_call(values)
    assert (same, seconds) == (following, 0.01)
    assert np.array_equal(heard.ages(), sounding.ages())
    assert heard.step == sounding.step
    assert parse_answer(decode(encode(2, *answer_values(MUSIC[1:5], 0.5))[8:])) == (MUSIC[1:5], 0.5)
    for wrong in ([], values[:-1], [*values[:2], np.array([400]), *values[3:]], [*values, 1.0]):
        with pytest.raises(ValueError, match="decisions ahead"):
            parse_call(wrong)
    for wrong in ([], [np.zeros((9, 3), np.int64), 0.1], [np.full((1, 3), 999), 0.1]):
        with pytest.raises(WireError):
            parse_answer(wrong)


def test_what_was_done_ahead_no_longer_counts_after_another_event() -> None:
    done, following = Lookahead(), Following(1, Steering(), frozenset(), False, frozenset(), ())
    events = [Event(1, 60, 3), Event(2, 62, 3), Event(3, 64, 3)]
    done.fill(10, following, events)
    second = following.after(events[0])
    assert done.decision(10, following) == events[0]
    assert done.decision(11, second) == events[1]
    assert done.decision(11, following) is None
    assert done.has_absorbed(np.array([events[0]]), 11)
    assert not done.has_absorbed(np.array([events[0]]), 12)
    assert done.decision(11, second) is None
