"""Each mode and each switch between modes, in virtual time: no note hangs, the human's keys are untouched, and the history is
what sounded.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, permutations, takewhile

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed, subject
from perceivers_live.performer.performer import State
from tests.perceivers_live.playing import MODES, MUSICIANS, PLAYING, check, check_at_rest, human_plays, musicians, onsets, playing
from tests.perceivers_live.toys import Musician, improviser
from tests.perceivers_live.virtual_session import VirtualSession, phrase

# --- every mode, and every switch between modes --------------------------------------------------------------------


def listening(session: VirtualSession) -> None:
    human_plays(session, 2)


def in_a_phrase(session: VirtualSession) -> None:
    human_plays(session, 8, 0.15)


def after_a_phrase(session: VirtualSession) -> None:
    human_plays(session, 8, 0.15)
    session.run(session.now + 1.5)


def with_keys_held(session: VirtualSession) -> None:
    human_plays(session, 8, 0.15)
    session.receive(*(Timed(session.now, NOTE_ON + pitch, 70) for pitch in (64, 67, 72)), Timed(session.now, SUSTAIN_DOWN))
    session.run(session.now + 1.0)


def with_keys_held_after_a_phrase(session: VirtualSession) -> None:
    with_keys_held(session)
    session.run(session.now + 3.0)


SITUATIONS = [listening, in_a_phrase, after_a_phrase, with_keys_held, with_keys_held_after_a_phrase]


SWITCHES = [(*modes, situation) for modes in permutations(MODES, 2) for situation in SITUATIONS]


@pytest.mark.parametrize(  # each switch with one musician; over all switches each situation meets each musician
    ("before", "after", "situation", "musician"),
    [(*switch, musician) for switch, musician in zip(SWITCHES, cycle(MUSICIANS), strict=False)],
)
def test_mode_switch_leaves_no_hanging_note_and_a_correct_history(
    before: str, after: str, situation: Callable[[VirtualSession], None], musician: Musician
) -> None:
    session = VirtualSession(musician, {"mode": before})
    situation(session)
    check(session)
    session.controls.set("mode", after)
    session.run(session.now + 0.6)
    check(session)
    assert after != "listen" or not session.replying
    human_plays(session)
    check(session)
    session.receive(*(Timed(session.now, NOTE_OFF + pitch) for pitch in sorted(session.keys)))
    session.receive(*[Timed(session.now, SUSTAIN_UP)] * session.pedal)
    session.run(session.now + 1.1)
    check_at_rest(session)


@musicians
@pytest.mark.parametrize("mode", PLAYING)
def test_hold_silences_and_the_machine_plays_again_afterwards(mode: str, musician: Musician) -> None:
    session = playing(mode, musician)
    session.controls.set("hold", True)
    session.performer.work(session.now)
    assert session.port.silent
    human_plays(session)
    count = len(session.machine)
    session.run(session.now + 0.4)
    assert len(session.machine) == count
    check(session)
    session.controls.set("hold", False)
    human_plays(session)
    session.run(session.now + 3.0)
    assert len(session.machine) > count
    check_at_rest(session)


@musicians
@pytest.mark.parametrize("mode", PLAYING)
def test_release_for_another_output_keeps_the_turn_and_the_unaffected_plan(mode: str, musician: Musician) -> None:
    session = playing(mode, musician, lookahead_ms=300)
    session.run(session.now + 2.0, stop=lambda: bool(session.player.ledger.notes))
    planned = list(session.player._plan)
    released = session.performer.release_all(session.now)
    assert session.port.silent
    assert released.released
    moved = {subject(one.action) for one in released.released}
    kept = list(takewhile(lambda one: subject(one.action) not in moved, planned))
    assert list(session.player._plan) == kept
    session.performer.absorb_input([released])
    assert list(session.player._plan)[: len(kept)] == kept
    assert session.replying
    count = len(onsets(session))
    session.run(session.now + 3.0, stop=lambda: len(onsets(session)) > count + 2)
    assert len(onsets(session)) > count
    check(session)
    check_at_rest(session)


@pytest.mark.parametrize("mode", MODES)
def test_only_solo_begins_without_a_human(mode: str) -> None:
    session = VirtualSession(controls={"mode": mode})
    session.run(5.0)
    assert bool(session.machine) == (mode == "solo")


# --- solo ----------------------------------------------------------------------------------------------------------


@musicians
def test_solo_continues_whatever_the_human_does(musician: Musician) -> None:
    session = VirtualSession(musician, {"mode": "solo"})
    session.run(40.0)
    human_plays(session, 12)
    session.receive(*(Timed(session.now, NOTE_ON + pitch, 70) for pitch in (40, 47)), Timed(session.now, SUSTAIN_DOWN))
    for _ in range(8):
        count = len(onsets(session))
        session.run(session.now + 10.0)
        assert len(onsets(session)) > count
        check(session)
    assert session.states == [State.PLAYING]


@pytest.mark.parametrize("way", ["takeover", "mode"])
def test_solo_waits_after_yield_for_takeover_or_a_mode_change(way: str) -> None:
    session = playing("solo")
    session.command(session.performer.yield_turn)
    for _ in range(3):  # the human's phrases do not restart it
        session.run(session.now + 5.0)
        human_plays(session, 6)
    assert not session.replying
    check(session)
    if way == "takeover":
        session.command(session.performer.takeover)
    else:
        session.controls.set("mode", "listen")
        session.performer.work(session.now)
        session.controls.set("mode", "solo")
    session.run(session.now + 1.0)
    assert session.replying
    check_at_rest(session)


@musicians
def test_solo_ends_after_a_switch_to_respond(musician: Musician) -> None:
    session = playing("solo", musician, 20.0)
    session.controls.set("mode", "respond")
    session.run(session.now + 30, stop=lambda: not session.replying)
    assert not session.replying
    session.run(session.now + 10)
    assert not session.replying
    check_at_rest(session)


@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_switch_to_respond_with_a_key_held_keeps_the_phrase(mode: str) -> None:
    session = VirtualSession(improviser, {"mode": mode})
    session.receive(*phrase(0.03, 8, 0.2), Timed(1.7, NOTE_ON + 60, 80))
    session.run(2.0, stop=lambda: bool(onsets(session)))
    assert session.replying
    session.controls.set("mode", "respond")
    session.run(session.now + 0.05)
    assert not session.replying
    session.receive(Timed(session.now + 0.1, NOTE_OFF + 60))
    session.run(session.now + 5.0, stop=lambda: session.replying)
    assert session.replying, "the phrase gets its reply"
