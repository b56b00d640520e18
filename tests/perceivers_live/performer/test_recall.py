"""Saving and recalling musical states: the music continues exactly, and no note hangs."""

from __future__ import annotations

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from tests.perceivers_live.playing import (
    MODES,
    PLAYING,
    check,
    check_at_rest,
    human_plays,
    is_valid_history,
    musicians,
    notes,
    playing,
)
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.toys import Musician
from tests.perceivers_live.virtual_session import VirtualSession, note, phrase


def since(session: VirtualSession, count: int, now: float) -> list[tuple[float, int, int]]:
    """What the machine played after its first ``count`` actions, with times relative to ``now``."""
    return [(round(one.time - now, 6), one.action, one.velocity) for one in session.machine[count:]]


@musicians
@pytest.mark.parametrize("pause", [0.0, 0.3, 1.7])
def test_recalled_state_continues_exactly_as_it_did_when_saved(pause: float, musician: Musician) -> None:
    session = playing("respond", musician)
    session.command(session.performer.yield_turn)
    session.run(session.now + pause + 0.0123)
    saved_state, takes = session.performer.saved_state(session.now), []
    for _ in range(2):
        count, began = len(session.machine), session.now
        session.command(session.performer.takeover)
        session.run(session.now + 1.5)
        takes.append(since(session, count, began))
        session.command(session.performer.yield_turn)
        human_plays(session, 5)
        session.run(session.now + 0.77)
        session.performer.recall(saved_state, session.now)
        assert session.engine.position == saved_state.snapshot.position
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
def test_state_saved_during_a_turn_contains_only_what_sounded(mode: str, musician: Musician) -> None:
    session = playing(mode, musician, 0.1, seed=2, lookahead_ms=1500)
    saved_state, sounded = session.performer.saved_state(session.now), session.expected()
    assert session.player.planned()
    other = VirtualSession()
    other.performer.recall(saved_state, 50.0)
    history = other.history()
    assert history[: len(sounded)] == sounded
    assert all(action >= NOTE_OFF for _, action, _ in history[len(sounded) :])  # only releases of notes that sounded then


@musicians
@pytest.mark.parametrize("mode", MODES)
def test_recall_during_a_turn_leaves_no_hanging_note(mode: str, musician: Musician) -> None:
    session = VirtualSession(musician, {"mode": "solo"})
    session.receive(*phrase(0.03, 12, 0.2))
    session.run(session.now + 20, stop=lambda: bool(session.port.sounding))
    session.receive(Timed(session.now, NOTE_ON + 30, 70), Timed(session.now, SUSTAIN_DOWN))
    saved_state = session.performer.saved_state(session.now)
    session.run(session.now + 1.0)
    session.receive(Timed(session.now, NOTE_OFF + 30), Timed(session.now, NOTE_ON + 33, 70), Timed(session.now, SUSTAIN_UP))
    session.controls.set("mode", mode)
    session.run(session.now + 0.5)
    session.performer.recall(saved_state, session.now)
    check(session)
    assert session.port.silent
    assert session.engine.sounding.held().tolist() == []
    assert not session.engine.sounding.pedal
    human_plays(session, 4)
    session.receive(Timed(session.now, NOTE_OFF + 33))
    session.run(session.now + 3.0)
    check(session)
    assert mode != "solo" or session.replying
    session.command(session.performer.yield_turn)
    assert unbalanced(notes(session)) == []
    assert session.engine.sounding.held().tolist() == []
    assert is_valid_history(session)


def test_recall_keeps_the_humans_pedal_down() -> None:
    session = VirtualSession(controls={"mode": "listen"})
    session.receive(*phrase(0.03, 4, 0.2), Timed(1.0, SUSTAIN_DOWN))
    saved_state = session.performer.saved_state(session.now)
    session.run(3.0)
    session.performer.recall(saved_state, session.now)
    assert session.engine.sounding.pedal
    session.receive(Timed(session.now, SUSTAIN_UP))
    assert not session.engine.sounding.pedal


def test_releases_of_notes_from_before_forget_are_not_in_the_history() -> None:
    session = VirtualSession(controls={"mode": "listen"})
    session.receive(Timed(0.1, NOTE_ON + 60, 80), Timed(0.2, SUSTAIN_DOWN))
    session.command(session.performer.forget)
    session.receive(Timed(0.5, NOTE_OFF + 60), Timed(0.6, SUSTAIN_UP), *note(1.0, 0.5, 62))
    assert [action for _, action, _ in session.history()] == [NOTE_ON + 62, NOTE_OFF + 62]


def test_empty_state_can_be_recalled() -> None:
    session = VirtualSession(controls={"mode": "listen"})
    session.now = 100.0
    saved_state = session.performer.saved_state(session.now)
    session.receive(*phrase(101.0, 4, 0.2))
    session.performer.recall(saved_state, session.now)
    assert session.history() == []
    session.receive(*note(session.now + 0.1, 0.2, 60))
    assert session.history()[0][0] <= 10


def test_recall_restores_the_seed() -> None:
    one, other = VirtualSession(seed=1), VirtualSession(seed=2)
    one.receive(*phrase(0.03, 8, 0.2))
    other.performer.recall(one.performer.saved_state(one.now), other.now)
    for session in (one, other):
        session.command(session.performer.yield_turn)
    takes = []
    for session in (one, other):
        now = session.now
        session.command(session.performer.takeover)
        session.run(now + 1.0)
        takes.append(since(session, 0, now))
    assert takes[0] == takes[1] != []
