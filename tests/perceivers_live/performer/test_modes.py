"""Each mode, and each way from one to another, on the virtual clock: nothing hangs, nothing of the human's is touched, and the
memory is what sounded.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, pairwise, permutations, takewhile

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed, subject
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.performer import State
from perceivers_live.performer.phrases import BASE_SILENCE, PACE_FACTOR
from tests.perceivers_live.playing import MODES, MUSICIANS, PLAYING, check, check_at_rest, go_on, musicians, onsets, playing
from tests.perceivers_live.toys import Musician, steady
from tests.perceivers_live.virtual_stage import Stage, phrase

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


# --- respond -------------------------------------------------------------------------------------------------------


def test_a_key_that_is_struck_as_the_reply_begins_silences_it() -> None:
    """The callback heard it while the machine listened; the performer began before it was told."""
    stage = Stage(steady(5))
    stage.hear(*phrase(0.03, 12, 0.2))
    stage.run(60.0, stop=lambda: stage.performer._detector.end() <= stage.now + 0.001)
    stage.strike(Timed(stage.now, NOTE_ON + 40, 80))
    stage.now += 0.002
    for _ in range(9):
        stage.performer.work(stage.now)
    assert stage.replying
    stage.catch_up()
    assert not stage.replying
    stage.run(stage.now + 0.4)
    assert stage.machine == []
    check_at_rest(stage)


def test_a_key_press_after_which_the_machine_was_told_to_respond_is_remembered_in_order() -> None:
    """When it was struck the machine was not to be silenced for it; when the performer hears of it, it is."""
    stage = playing("solo", steady(20))
    stage.run(stage.now + 5, stop=lambda: bool(stage.port.sounding))
    stage.strike(Timed(stage.now, NOTE_ON + 40, 80))
    stage.controls.set("mode", "respond")
    stage.catch_up()
    assert not stage.replying
    check_at_rest(stage)


def test_whatever_else_silences_the_machine_at_a_key_press_only_what_sounded_is_remembered() -> None:
    """The callback has silenced the machine; before the performer is told, it has a reason of its own to."""
    stage = playing("respond", steady(5))
    stage.strike(Timed(stage.now, NOTE_ON + 40, 80))
    stage.controls.set("hold", True)
    stage.performer.work(stage.now)
    stage.catch_up()
    check_at_rest(stage)


def test_a_panic_just_before_a_reply_began_silences_it() -> None:
    stage = Stage(steady(5))
    stage.hear(*phrase(0.03, 12, 0.2))
    hushed = stage.performer.interrupt(stage.now)
    stage.run(60.0, stop=lambda: stage.player.planned() > 3)
    stage.performer.absorb_input([hushed])
    stage.run(stage.now + 1.0)
    check_at_rest(stage)


def test_after_a_takeover_a_key_press_silences_as_ever() -> None:
    stage = Stage(steady(9))
    stage.command(stage.performer.takeover)
    stage.run(1.0, stop=lambda: bool(stage.port.sounding))
    assert stage.port.sounding
    stage.hear(Timed(stage.now, NOTE_ON + 40, 80))
    assert stage.port.silent
    check_at_rest(stage)


def test_what_the_last_turn_played_is_not_forgotten_when_the_next_begins() -> None:
    """A strike that the performer learns of late ends a turn that had nothing sounding any more."""
    stage = Stage(steady(12, (72, 74, 76)))
    stage.hear(*phrase(0.0, 4))
    stage.now += 0.1
    stage.strike(Timed(stage.now, NOTE_ON + 50, 80))
    stage.strike(Timed(stage.now, NOTE_OFF + 50))
    stage.command(stage.performer.takeover)
    stage.run(stage.now + 5, stop=lambda: len(stage.machine) >= 4 and not stage.player.ledger.notes)
    stage.catch_up()
    assert not stage.replying
    before = stage.history()
    stage.command(stage.performer.takeover)
    for _ in range(2):
        stage.performer.work(stage.now)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN))
    assert stage.history()[: len(before)] == before


@pytest.mark.parametrize("patience", [0.5, 1.0, 2.0])
def test_patience_can_be_turned_while_the_machine_waits(patience: float) -> None:
    stage = Stage(controls={"patience": 4.0}, phrase=PhraseSettings(max_silence_ms=30_000), seed=1)
    stage.hear(*phrase(0.03, 12, 0.2))
    stage.run(stage.now + 0.3)
    stage.controls.set("patience", patience)
    stage.run(60.0, stop=lambda: stage.replying)
    assert stage.now - 2.3 == pytest.approx(patience * (BASE_SILENCE + PACE_FACTOR * 0.2), rel=0.35)


def test_a_reply_is_as_long_as_the_phrase_and_not_as_the_time_since() -> None:
    stage = Stage(controls={"hold": True}, seed=1)
    stage.hear(*phrase(0.03, 12, 0.2))
    stage.run(120.0)
    stage.controls.set("hold", False)
    stage.run(121.0)
    stage.command(stage.performer.takeover)
    stage.run(300.0, stop=lambda: stage.replying)
    stage.run(300.0, stop=lambda: not stage.replying)
    assert stage.machine[0].time > 120
    assert stage.machine[-1].time - stage.machine[0].time < 10


def test_the_release_of_a_key_does_not_change_the_length_of_such_a_phrase() -> None:
    stage = Stage(controls={"hold": True}, seed=1)
    stage.hear(*phrase(0.03, 40, 0.2)[:-1])  # the last key is still down
    stage.controls.set("hold", False)
    stage.run(8.1)
    stage.hear(phrase(0.03, 40, 0.2)[-1]._replace(time=stage.now))
    stage.run(stage.now + 1.0)
    assert not stage.machine
    stage.command(stage.performer.takeover)
    stage.run(60.0, stop=lambda: not stage.replying)
    assert stage.machine[-1].time - stage.machine[0].time > 4


@pytest.mark.parametrize(
    ("barred", "free"),
    [({"hold": True}, {"hold": False}), ({"mode": "listen"}, {"mode": "respond"}), ({"mode": "listen"}, {"mode": "duet"})],
)
@pytest.mark.parametrize("silence", [0.1, 60.0], ids=["while the phrase goes on", "long after it"])
def test_what_was_played_while_the_machine_could_not_play_is_no_call(
    barred: dict[str, object], free: dict[str, object], silence: float
) -> None:
    stage = Stage(controls=barred, seed=1)
    stage.hear(*phrase(0.03, 12, 0.2))
    stage.run(stage.now + silence)
    for name, value in free.items():
        stage.controls.set(name, value)
    stage.run(stage.now + 20.0)
    assert not stage.machine
    go_on(stage)
    stage.run(stage.now + 5.0)
    assert stage.machine


def test_a_key_held_since_then_is_no_call_when_it_is_released() -> None:
    stage = Stage(controls={"mode": "listen"}, seed=1)
    stage.hear(Timed(0.03, NOTE_ON + 40, 70))
    stage.run(1.0)
    stage.controls.set("mode", "respond")
    stage.run(30.0)
    assert not stage.machine
    stage.hear(Timed(stage.now, NOTE_OFF + 40))
    stage.run(60.0)
    assert not stage.machine


@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_a_phrase_that_was_over_in_another_mode_is_no_call(mode: str) -> None:
    stage = Stage(controls={"mode": mode}, seed=1)
    stage.command(stage.performer.yield_turn)
    stage.hear(*phrase(stage.now + 0.03, 2, 0.2))  # too short for a duet
    stage.run(stage.now + 60.0)
    assert not stage.machine
    stage.controls.set("mode", "respond")
    stage.run(stage.now + 20.0)
    assert not stage.machine
    go_on(stage)
    stage.run(stage.now + 5.0)
    assert stage.machine


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


# --- the pedal -----------------------------------------------------------------------------------------------------


def down(stage: Stage) -> None:
    """Lets the machine play until it has the pedal down."""
    stage.run(stage.now + 20, stop=lambda: stage.player.ledger.pedal)
    assert stage.player.ledger.pedal


@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_the_pedal_is_not_lifted_while_the_human_has_it_down(mode: str) -> None:
    stage = playing(mode, steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN))
    for _ in range(20):
        go_on(stage, 1)
        assert stage.port.pedals
    check(stage)
    stage.hear(Timed(stage.now, SUSTAIN_UP))
    assert not stage.port.pedals  # it comes up for both
    assert not stage.engine.sounding.pedal
    check_at_rest(stage)


def test_a_pedal_that_the_human_has_taken_over_does_not_keep_a_turn_from_ending() -> None:
    stage = playing("duet", steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN))
    stage.run(stage.now + 30, stop=lambda: not stage.replying)
    check(stage)
    assert stage.engine.sounding.pedal  # the human's foot is still on it
    stage.hear(Timed(stage.now, SUSTAIN_UP))
    check_at_rest(stage)


def test_silencing_the_machine_does_not_make_the_memory_forget_the_humans_pedal() -> None:
    stage = playing("respond", steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN))
    stage.hear(Timed(stage.now + 0.1, NOTE_ON + 40, 80))
    assert stage.port.silent
    assert stage.engine.sounding.pedal
    check_at_rest(stage)


def test_a_pedal_pressed_by_both_is_one_pedal_in_the_memory() -> None:
    stage = playing("duet", steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN), Timed(stage.now + 0.3, SUSTAIN_UP))
    pedal = [action for _, action, _ in stage.history() if action in (SUSTAIN_DOWN, SUSTAIN_UP)]
    assert all(one != other for one, other in pairwise(pedal))
    assert stage.machine[-1].action == SUSTAIN_UP or not stage.player.ledger.pedal
    check_at_rest(stage)


def test_who_listens_is_told_when_the_human_lifts_the_machines_pedal() -> None:
    """Or a recording of the machine's part would sound to its end with the pedal down."""
    stage = playing("duet", steady(9, (72,), pedal=True))
    down(stage)
    stage.hear(Timed(stage.now, SUSTAIN_DOWN), Timed(stage.now + 0.01, SUSTAIN_UP))
    pedal = [one.action for one in stage.machine if one.action in (SUSTAIN_DOWN, SUSTAIN_UP)]
    assert pedal[-1] == SUSTAIN_UP


@pytest.mark.parametrize("end", ["key", "yield", "itself"])
def test_it_says_that_it_listens_once_nothing_of_its_own_sounds_any_more(end: str) -> None:
    sounding: list[bool] = []
    stage = Stage(steady(20, pedal=True))
    stage.performer._on_state = lambda state: sounding.append(state is State.LISTENING and not stage.port.silent)
    stage.hear(*phrase(0.0, 8, 0.2))
    stage.run(stage.now + 20, stop=lambda: stage.replying and bool(stage.port.sounding) and bool(stage.port.pedals))
    assert stage.replying
    if end == "key":
        stage.hear(Timed(stage.now, NOTE_ON + 30, 80))
    elif end == "yield":
        stage.performer.yield_turn(stage.now)
    else:
        stage.run(stage.now + 90, stop=lambda: not stage.replying)
    assert sounding == [False, False]
