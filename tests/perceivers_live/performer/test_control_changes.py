"""The effect of control changes on a reply that is playing."""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest

from engine.events import NOTE_OFF, Timed
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.performer.performer import MIN_KEPT
from tests.perceivers_live.performer.replies import CALL, check_history, check_history_after_interruption, replying
from tests.perceivers_live.playing import check, onsets
from tests.perceivers_live.toys import steady
from tests.perceivers_live.virtual_session import VirtualSession, phrase


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.6), ("density", 1.0), ("register_high", 60), ("seed", 5)])
def test_control_change_drops_the_plan_beyond_a_few_tens_of_milliseconds(name: str, value: float) -> None:
    session = replying(steady(2, range(48, 90)), lookahead_ms=1000)
    plan = list(session.player._plan)
    assert plan[-1].time > session.now + 0.9
    session.controls.set(name, value)
    session.performer.work(session.now)
    kept = [one for one in plan if one.time <= session.now + MIN_KEPT]
    assert list(session.player._plan)[: len(kept)] == kept
    assert session.player.planned() <= len(kept) + 1
    session.run(session.now + 0.5)
    check_history_after_interruption(session)


@pytest.mark.parametrize(("offset", "decision_time"), [(100, 0.01), (200, 0.01), (0, 0.04), (-60, 0.01)])
def test_moving_a_control_does_not_silence_the_machine(offset: float, decision_time: float) -> None:
    """Whatever the output offset, and however long decisions take: enough of the plan stays until new events can be sent."""
    session = VirtualSession(steady(10), {"mode": "solo", "output_offset_ms": offset})
    session.performer.add_decision_time(decision_time)
    session.run(5.0)
    before = len(onsets(session))
    for i in range(500):
        session.controls.set("temperature", 0.9 + 0.002 * (i % 100))
        session.run(session.now + 0.01)
    assert before > 20
    assert len(onsets(session)) - before > 0.8 * before
    check(session)


@pytest.mark.parametrize("name", [control.name for control in CONTROLS.values() if control.affects != "decision"])
def test_controls_that_affect_no_decision_drop_no_planned_event(name: str) -> None:
    """The control changes a hundred times a second during a solo; the plan keeps its length."""
    session, control = VirtualSession(steady(4), {"mode": "solo", "lookahead_ms": 400}), CONTROLS[name]
    session.run(1.0)
    values = [control.low + (control.high - control.low) * (i % 50) / 49 for i in range(200)]
    for value in values:
        session.controls.set(name, round(value) if control.kind in ("choice", "switch") else value)
        session.run(session.now + 0.01)
    assert len(session.observer.plan) > 50
    assert session.observer.dropped_count == 0
    session.controls.set("temperature", 0.5)
    session.run(session.now + 0.01)
    assert session.observer.dropped_count > 0


@pytest.mark.parametrize(("density", "factor"), [(-1.0, 0.5), (0.0, 1.0), (1.0, 2.0)])
def test_density_multiplies_the_rate_of_the_call(density: float, factor: float) -> None:
    """The call has 5 notes a second; so has the toy musician, which does not adapt to the call."""
    session = VirtualSession(steady(10, range(48, 90)), {"density": density, "response_length": 2.0})
    session.receive(*phrase(0.0, 40, 0.2))
    session.run(60.0, stop=lambda: session.replying)
    session.run(60.0, stop=lambda: not session.replying)
    onsets = [one.time for one in session.machine if one.action < NOTE_OFF]
    rate = (len(onsets) - 1) / (onsets[-1] - onsets[0])
    assert rate == pytest.approx(5 * factor, rel=0.25)


def test_dynamics_moves_the_velocity() -> None:
    means = []
    for dynamics in (-1.0, 0.0, 1.0):
        session = VirtualSession(steady(20, range(48, 90)), {"dynamics": dynamics})
        session.receive(*phrase(0.0, 40, 0.2))
        session.run(60.0, stop=lambda session=session: session.replying)
        session.run(60.0, stop=lambda session=session: not session.replying)
        means.append(fmean(one.velocity for one in session.machine if one.action < NOTE_OFF))
    assert means[0] + 8 < means[1] < means[2] - 8


def test_register_limit_takes_effect_at_once() -> None:
    session = replying(steady(4, range(48, 90)), lookahead_ms=2000)
    session.controls.set("register_high", 59)
    when = session.now
    session.run(session.now + 2.0)
    later = [one.action for one in session.machine if one.time > when + MIN_KEPT and one.action < NOTE_OFF]
    assert later
    assert max(later) <= 59


def test_continuous_control_changes_do_not_stop_the_music() -> None:
    session = replying(steady(4))
    count = len(session.machine)
    for i in range(200):
        session.controls.set("temperature", 0.5 + i / 1000)
        session.run(session.now + 0.005)
    assert len(session.machine) > count + 5
    check_history_after_interruption(session)


def test_polyphony_is_limited() -> None:
    session = replying(steady(3, range(40, 80), chord=10), max_polyphony=3)
    highest = max(len(held) for held in itertools.accumulate(session.machine, _held, initial=frozenset[int]()))
    assert highest == 3


def _held(held: frozenset[int], one: Timed) -> frozenset[int]:
    return held | {one.action} if one.action < NOTE_OFF else held - {one.action - NOTE_OFF}


@pytest.mark.parametrize("controls", [{"mode": "listen"}, {"hold": True}])
def test_machine_never_plays_on_hold_or_in_listen_mode(controls: dict[str, object]) -> None:
    session = VirtualSession(controls=controls)
    session.receive(*CALL)
    session.run(10.0)
    session.command(session.performer.takeover)
    session.run(20.0)
    assert not session.port.messages
    check_history(session)


@pytest.mark.parametrize(("name", "value"), [("mode", "listen"), ("hold", True)])
def test_hold_and_listen_mode_silence_a_reply(name: str, value: object) -> None:
    session = replying()
    session.controls.set(name, value)
    session.performer.work(session.now)
    assert session.port.silent
    assert not session.replying
    check_history(session)
    count = len(session.machine)
    session.run(session.now + 10)
    assert len(session.machine) == count
