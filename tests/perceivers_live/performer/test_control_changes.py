"""What a changed control does to a reply that is playing."""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest

from engine.events import NOTE_OFF, Timed
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.performer.performer import KEEP_ON_CONTROL_CHANGE
from tests.perceivers_live.performer.replies import CALL, check_memory, check_memory_after_interruption, replying
from tests.perceivers_live.toys import steady
from tests.perceivers_live.virtual_stage import Stage, phrase


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.6), ("density", 1.0), ("register_high", 60), ("seed", 5)])
def test_a_turned_control_drops_the_plan_beyond_a_few_tens_of_milliseconds(name: str, value: float) -> None:
    stage = replying(steady(2, range(48, 90)), lookahead_ms=1000)
    plan = list(stage.player._plan)
    assert plan[-1].time > stage.now + 0.9
    stage.controls.set(name, value)
    stage.performer.work(stage.now)
    kept = [one for one in plan if one.time <= stage.now + KEEP_ON_CONTROL_CHANGE]
    assert list(stage.player._plan)[: len(kept)] == kept
    assert stage.player.planned() <= len(kept) + 1
    stage.run(stage.now + 0.5)
    check_memory_after_interruption(stage)


@pytest.mark.parametrize("name", [control.name for control in CONTROLS.values() if control.affects != "decision"])
def test_a_fader_that_changes_no_decision_costs_no_planned_event(name: str) -> None:
    """Moved a hundred times a second in a solo. The plan stays as long as ever."""
    stage, control = Stage(steady(4), {"mode": "solo", "lookahead_ms": 400}), CONTROLS[name]
    stage.run(1.0)
    values = [control.low + (control.high - control.low) * (i % 50) / 49 for i in range(200)]
    for value in values:
        stage.controls.set(name, round(value) if control.kind in ("choice", "switch") else value)
        stage.run(stage.now + 0.01)
    assert len(stage.watcher.plan) > 50
    assert stage.watcher.taken == 0
    stage.controls.set("temperature", 0.5)
    stage.run(stage.now + 0.01)
    assert stage.watcher.taken > 0


@pytest.mark.parametrize(("density", "factor"), [(-1.0, 0.5), (0.0, 1.0), (1.0, 2.0)])
def test_density_multiplies_the_rate_of_the_call(density: float, factor: float) -> None:
    """The call has 5 notes a second. So has the toy, which does not adapt to what it plays."""
    stage = Stage(steady(10, range(48, 90)), {"density": density, "response_length": 2.0})
    stage.hear(*phrase(0.0, 40, 0.2))
    stage.run(60.0, stop=lambda: stage.replying)
    stage.run(60.0, stop=lambda: not stage.replying)
    onsets = [one.time for one in stage.machine if one.action < NOTE_OFF]
    rate = (len(onsets) - 1) / (onsets[-1] - onsets[0])
    assert rate == pytest.approx(5 * factor, rel=0.25)


def test_dynamics_moves_the_velocity() -> None:
    means = []
    for dynamics in (-1.0, 0.0, 1.0):
        stage = Stage(steady(20, range(48, 90)), {"dynamics": dynamics})
        stage.hear(*phrase(0.0, 40, 0.2))
        stage.run(60.0, stop=lambda stage=stage: stage.replying)
        stage.run(60.0, stop=lambda stage=stage: not stage.replying)
        means.append(fmean(one.velocity for one in stage.machine if one.action < NOTE_OFF))
    assert means[0] + 8 < means[1] < means[2] - 8


def test_a_register_limit_is_heard_at_once() -> None:
    stage = replying(steady(4, range(48, 90)), lookahead_ms=2000)
    stage.controls.set("register_high", 59)
    when = stage.now
    stage.run(stage.now + 2.0)
    later = [one.action for one in stage.machine if one.time > when + KEEP_ON_CONTROL_CHANGE and one.action < NOTE_OFF]
    assert later
    assert max(later) <= 59


def test_turning_a_control_for_a_long_time_does_not_stop_the_music() -> None:
    stage = replying(steady(4))
    count = len(stage.machine)
    for i in range(200):
        stage.controls.set("temperature", 0.5 + i / 1000)
        stage.run(stage.now + 0.005)
    assert len(stage.machine) > count + 5
    check_memory_after_interruption(stage)


def test_polyphony_is_limited() -> None:
    stage = replying(steady(3, range(40, 80), chord=10), max_polyphony=3)
    highest = max(len(held) for held in itertools.accumulate(stage.machine, _held, initial=frozenset[int]()))
    assert highest == 3


def _held(held: frozenset[int], one: Timed) -> frozenset[int]:
    return held | {one.action} if one.action < NOTE_OFF else held - {one.action - NOTE_OFF}


@pytest.mark.parametrize("controls", [{"mode": "listen"}, {"hold": True}])
def test_it_never_plays_while_it_is_to_hold_or_only_to_listen(controls: dict[str, object]) -> None:
    stage = Stage(controls=controls)
    stage.hear(*CALL)
    stage.run(10.0)
    stage.command(stage.performer.takeover)
    stage.run(20.0)
    assert not stage.port.messages
    check_memory(stage)


@pytest.mark.parametrize(("name", "value"), [("mode", "listen"), ("hold", True)])
def test_it_falls_silent_when_told_to_hold_or_only_to_listen(name: str, value: object) -> None:
    stage = replying()
    stage.controls.set(name, value)
    stage.performer.work(stage.now)
    assert stage.port.silent
    assert not stage.replying
    check_memory(stage)
    count = len(stage.machine)
    stage.run(stage.now + 10)
    assert len(stage.machine) == count
