"""The mode ``respond``: what silences a reply, what is a call, and how long its reply is."""

from __future__ import annotations

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, Timed
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.phrases import BASE_SILENCE, PACE_FACTOR
from tests.perceivers_live.playing import check_at_rest, go_on, playing
from tests.perceivers_live.toys import steady
from tests.perceivers_live.virtual_stage import Stage, phrase


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


@pytest.mark.parametrize("offset", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("action", [NOTE_OFF + 60, SUSTAIN_DOWN])
def test_a_release_or_pedal_just_before_the_reply_does_not_cancel_it(offset: float, action: int) -> None:
    """With a positive input offset it has a time after the end of the phrase."""
    stage = Stage(steady(5))
    stage.hear(*phrase(0.03, 12, 0.2), Timed(2.6, NOTE_ON + 60, 80))
    stage.run(60.0, stop=lambda: stage.performer._detector.end() <= stage.now + 0.04)
    one = Timed(stage.now + offset, action)
    stage.player.ledger.keys.apply(one)
    stage.performer.absorb_input([stage.performer.adapt_plan([one])])
    stage.run(stage.now + 3.0, stop=lambda: stage.replying)
    assert stage.replying


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
