"""Musical states, saved and gone on from: exact, and nothing hangs."""

from __future__ import annotations

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from tests.perceivers_live.playing import MODES, PLAYING, check, check_at_rest, go_on, legal, musicians, notes, playing
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.toys import Musician
from tests.perceivers_live.virtual_stage import Stage, note, phrase


def since(stage: Stage, count: int, now: float) -> list[tuple[float, int, int]]:
    """What the machine played after its first ``count`` actions, counted from ``now``."""
    return [(round(one.time - now, 6), one.action, one.velocity) for one in stage.machine[count:]]


@musicians
@pytest.mark.parametrize("pause", [0.0, 0.3, 1.7])
def test_what_is_recalled_goes_on_exactly_as_it_went_on_when_it_was_saved(pause: float, musician: Musician) -> None:
    stage = playing("respond", musician)
    stage.command(stage.performer.yield_turn)
    stage.run(stage.now + pause + 0.0123)
    saved_state, takes = stage.performer.saved_state(stage.now), []
    for _ in range(2):
        count, began = len(stage.machine), stage.now
        stage.command(stage.performer.takeover)
        stage.run(stage.now + 1.5)
        takes.append(since(stage, count, began))
        stage.command(stage.performer.yield_turn)
        go_on(stage, 5)
        stage.run(stage.now + 0.77)
        stage.performer.recall(saved_state, stage.now)
        assert stage.engine.position == saved_state.snapshot.position
    assert len(takes[0]) > 5
    assert takes[0] == takes[1]


@musicians
@pytest.mark.parametrize("mode", PLAYING)
def test_saving_does_not_disturb_the_music(mode: str, musician: Musician) -> None:
    left, saved = playing(mode, musician), playing(mode, musician)
    for _ in range(60):
        saved.performer.saved_state(saved.now)
        saved.run(saved.now + 0.0371)
    left.run(saved.now)
    assert saved.machine == left.machine
    assert saved.history() == left.history()
    check_at_rest(saved)


@musicians
@pytest.mark.parametrize("mode", PLAYING)
def test_what_is_saved_while_the_machine_plays_is_what_sounded(mode: str, musician: Musician) -> None:
    stage = playing(mode, musician, 0.1, seed=2, lookahead_ms=1500)
    saved_state, sounded = stage.performer.saved_state(stage.now), stage.expected()
    assert stage.player.planned()
    other = Stage()
    other.performer.recall(saved_state, 50.0)
    history = other.history()
    assert history[: len(sounded)] == sounded
    assert all(action >= NOTE_OFF for _, action, _ in history[len(sounded) :])  # only releases of what sounded then


@musicians
@pytest.mark.parametrize("mode", MODES)
def test_a_recall_while_it_plays_leaves_nothing_hanging(mode: str, musician: Musician) -> None:
    stage = Stage(musician, {"mode": "solo"})
    stage.hear(*phrase(0.03, 12, 0.2))
    stage.run(stage.now + 20, stop=lambda: bool(stage.port.sounding))
    stage.hear(Timed(stage.now, NOTE_ON + 30, 70), Timed(stage.now, SUSTAIN_DOWN))
    saved_state = stage.performer.saved_state(stage.now)
    stage.run(stage.now + 1.0)
    stage.hear(Timed(stage.now, NOTE_OFF + 30), Timed(stage.now, NOTE_ON + 33, 70), Timed(stage.now, SUSTAIN_UP))
    stage.controls.set("mode", mode)
    stage.run(stage.now + 0.5)
    stage.performer.recall(saved_state, stage.now)
    check(stage)
    assert stage.port.silent
    assert stage.engine.sounding.held().tolist() == []
    assert not stage.engine.sounding.pedal
    go_on(stage, 4)
    stage.hear(Timed(stage.now, NOTE_OFF + 33))
    stage.run(stage.now + 3.0)
    check(stage)
    assert mode != "solo" or stage.replying
    stage.command(stage.performer.yield_turn)
    assert unbalanced(notes(stage)) == []
    assert stage.engine.sounding.held().tolist() == []
    assert legal(stage)


def test_the_humans_pedal_is_down_after_a_recall_as_before() -> None:
    stage = Stage(controls={"mode": "listen"})
    stage.hear(*phrase(0.03, 4, 0.2), Timed(1.0, SUSTAIN_DOWN))
    saved_state = stage.performer.saved_state(stage.now)
    stage.run(3.0)
    stage.performer.recall(saved_state, stage.now)
    assert stage.engine.sounding.pedal
    stage.hear(Timed(stage.now, SUSTAIN_UP))
    assert not stage.engine.sounding.pedal


def test_a_release_of_what_was_struck_before_everything_was_forgotten_is_no_part_of_the_memory() -> None:
    stage = Stage(controls={"mode": "listen"})
    stage.hear(Timed(0.1, NOTE_ON + 60, 80), Timed(0.2, SUSTAIN_DOWN))
    stage.command(stage.performer.forget)
    stage.hear(Timed(0.5, NOTE_OFF + 60), Timed(0.6, SUSTAIN_UP), *note(1.0, 0.5, 62))
    assert [action for _, action, _ in stage.history()] == [NOTE_ON + 62, NOTE_OFF + 62]


def test_a_memory_of_nothing_can_be_recalled() -> None:
    stage = Stage(controls={"mode": "listen"})
    stage.now = 100.0
    saved_state = stage.performer.saved_state(stage.now)
    stage.hear(*phrase(101.0, 4, 0.2))
    stage.performer.recall(saved_state, stage.now)
    assert stage.history() == []
    stage.hear(*note(stage.now + 0.1, 0.2, 60))
    assert stage.history()[0][0] <= 10


def test_a_recalled_state_brings_its_seed() -> None:
    one, other = Stage(seed=1), Stage(seed=2)
    one.hear(*phrase(0.03, 8, 0.2))
    other.performer.recall(one.performer.saved_state(one.now), other.now)
    for stage in (one, other):
        stage.command(stage.performer.yield_turn)
    takes = []
    for stage in (one, other):
        now = stage.now
        stage.command(stage.performer.takeover)
        stage.run(now + 1.0)
        takes.append(since(stage, 0, now))
    assert takes[0] == takes[1] != []
