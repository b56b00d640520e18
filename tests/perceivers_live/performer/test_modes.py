"""Each mode, and each way from one to another, on the virtual clock: nothing hangs, nothing of the human's is touched, and the
memory is what sounded.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, permutations, takewhile

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed, subject
from perceivers_live.performer.performer import State
from tests.perceivers_live.playing import MODES, MUSICIANS, PLAYING, check, check_at_rest, go_on, musicians, onsets, playing
from tests.perceivers_live.toys import Musician
from tests.perceivers_live.virtual_stage import Stage

# --- every mode, and every way to another --------------------------------------------------------------------------


def listening(stage: Stage) -> None:
    go_on(stage, 2)


def in_a_phrase(stage: Stage) -> None:
    go_on(stage, 8, 0.15)


def after_a_phrase(stage: Stage) -> None:
    go_on(stage, 8, 0.15)
    stage.run(stage.now + 1.5)


def with_keys_held(stage: Stage) -> None:
    go_on(stage, 8, 0.15)
    stage.hear(*(Timed(stage.now, NOTE_ON + pitch, 70) for pitch in (64, 67, 72)), Timed(stage.now, SUSTAIN_DOWN))
    stage.run(stage.now + 1.0)


def with_keys_held_after_a_phrase(stage: Stage) -> None:
    with_keys_held(stage)
    stage.run(stage.now + 3.0)


SITUATIONS = [listening, in_a_phrase, after_a_phrase, with_keys_held, with_keys_held_after_a_phrase]


SWITCHES = [(*modes, situation) for modes in permutations(MODES, 2) for situation in SITUATIONS]


@pytest.mark.parametrize(  # each switch with one musician: five situations and three musicians meet in every order
    ("before", "after", "situation", "musician"),
    [(*switch, musician) for switch, musician in zip(SWITCHES, cycle(MUSICIANS), strict=False)],
)
def test_a_switch_of_modes_leaves_nothing_hanging_and_the_memory_right(
    before: str, after: str, situation: Callable[[Stage], None], musician: Musician
) -> None:
    stage = Stage(musician, {"mode": before})
    situation(stage)
    check(stage)
    stage.controls.set("mode", after)
    stage.run(stage.now + 0.6)
    check(stage)
    assert after != "listen" or not stage.replying
    go_on(stage)
    check(stage)
    stage.hear(*(Timed(stage.now, NOTE_OFF + pitch) for pitch in sorted(stage.keys)))
    stage.hear(*[Timed(stage.now, SUSTAIN_UP)] * stage.pedal)
    stage.run(stage.now + 1.1)
    check_at_rest(stage)


@musicians
@pytest.mark.parametrize("mode", PLAYING)
def test_holding_silences_and_letting_go_of_it_lets_play_again(mode: str, musician: Musician) -> None:
    stage = playing(mode, musician)
    stage.controls.set("hold", True)
    stage.performer.work(stage.now)
    assert stage.port.silent
    go_on(stage)
    count = len(stage.machine)
    stage.run(stage.now + 0.4)
    assert len(stage.machine) == count
    check(stage)
    stage.controls.set("hold", False)
    go_on(stage)
    stage.run(stage.now + 3.0)
    assert len(stage.machine) > count
    check_at_rest(stage)


@musicians
@pytest.mark.parametrize("mode", PLAYING)
def test_what_is_released_for_another_output_leaves_the_turn_and_the_plan_that_does_not_concern_it(
    mode: str, musician: Musician
) -> None:
    stage = playing(mode, musician, lookahead_ms=300)
    stage.run(stage.now + 2.0, stop=lambda: bool(stage.player.ledger.notes))
    planned = list(stage.player._plan)
    released = stage.performer.release_all(stage.now)
    assert stage.port.silent
    assert released.released
    moved = {subject(one.action) for one in released.released}
    kept = list(takewhile(lambda one: subject(one.action) not in moved, planned))
    assert list(stage.player._plan) == kept
    stage.performer.absorb_input([released])
    assert list(stage.player._plan)[: len(kept)] == kept
    assert stage.replying
    count = len(onsets(stage))
    stage.run(stage.now + 3.0, stop=lambda: len(onsets(stage)) > count + 2)
    assert len(onsets(stage)) > count
    check(stage)
    check_at_rest(stage)


@pytest.mark.parametrize("mode", MODES)
def test_only_solo_begins_without_a_human(mode: str) -> None:
    stage = Stage(controls={"mode": mode})
    stage.run(5.0)
    assert bool(stage.machine) == (mode == "solo")


# --- solo ----------------------------------------------------------------------------------------------------------


@musicians
def test_a_solo_goes_on_for_ever_whatever_the_human_does(musician: Musician) -> None:
    stage = Stage(musician, {"mode": "solo"})
    stage.run(40.0)
    go_on(stage, 12)
    stage.hear(*(Timed(stage.now, NOTE_ON + pitch, 70) for pitch in (40, 47)), Timed(stage.now, SUSTAIN_DOWN))
    for _ in range(8):
        count = len(onsets(stage))
        stage.run(stage.now + 10.0)
        assert len(onsets(stage)) > count
        check(stage)
    assert stage.states == [State.PLAYING]


@pytest.mark.parametrize("way", ["takeover", "mode"])
def test_a_solo_that_has_given_way_waits_to_be_asked(way: str) -> None:
    stage = playing("solo")
    stage.command(stage.performer.yield_turn)
    for _ in range(3):  # phrases of the human's are no reason
        stage.run(stage.now + 5.0)
        go_on(stage, 6)
    assert not stage.replying
    check(stage)
    if way == "takeover":
        stage.command(stage.performer.takeover)
    else:
        stage.controls.set("mode", "listen")
        stage.performer.work(stage.now)
        stage.controls.set("mode", "solo")
    stage.run(stage.now + 1.0)
    assert stage.replying
    check_at_rest(stage)


@musicians
def test_a_solo_that_is_to_respond_from_now_on_comes_to_an_end(musician: Musician) -> None:
    stage = playing("solo", musician, 20.0)
    stage.controls.set("mode", "respond")
    stage.run(stage.now + 30, stop=lambda: not stage.replying)
    assert not stage.replying
    stage.run(stage.now + 10)
    assert not stage.replying
    check_at_rest(stage)
