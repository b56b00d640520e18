"""Rendering: the live performer on a virtual clock, repeatable."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engine import Engine
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import message_of
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.session.offline import recent, render
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.toys import Musician, ToyRuntime, improviser, silent, steady
from tests.perceivers_live.virtual_session import note, phrase

CALL = phrase(0.0, 8, 0.2)


def reply_to(
    call: list[Timed],
    musician: Musician = improviser,
    *,
    session: int = 1,
    min_notes: int = 1,
    **controls: object,
) -> list[Timed]:
    engine = Engine(ToyRuntime(musician))
    settings = PhraseSettings(min_notes=min_notes)
    return render(engine, call, Controls(controls), settings, seed=session)


def faults(reply: list[Timed]) -> list[str]:
    return unbalanced(message_of(one.action, one.velocity) for one in reply if one.action < SUSTAIN_DOWN)


def test_the_same_seed_gives_the_same_reply_and_another_does_not() -> None:
    assert reply_to(CALL) == reply_to(CALL) != reply_to(CALL, session=2)


def test_seed_control_overrides_the_seed_of_the_session() -> None:
    assert reply_to(CALL, session=1, seed=7) == reply_to(CALL, session=2, seed=7)


def test_start_time_of_the_call_does_not_matter() -> None:
    there = reply_to([one._replace(time=one.time + 3600) for one in CALL])
    assert [one._replace(time=one.time - 3600) for one in there] == [
        one._replace(time=pytest.approx(one.time, abs=1e-6)) for one in reply_to(CALL)
    ]


@pytest.mark.parametrize("musician", [improviser, steady(), steady(15, pedal=True)])
def test_a_reply_follows_the_call_and_ends_with_nothing_held(musician: Musician) -> None:
    reply = reply_to(CALL, musician)
    times = [one.time for one in reply]
    assert len(reply) > 10
    assert times == sorted(times)
    assert 1.56 < times[0] < 1.56 + 2.5
    assert faults(reply) == []
    pedal = [one.action for one in reply if one.action >= SUSTAIN_DOWN]
    assert pedal[-1:] in ([], [SUSTAIN_UP])


def test_reply_follows_the_whole_call_and_not_its_pauses() -> None:
    call = [*CALL, *phrase(20.0, 8, 0.2)]
    assert reply_to(call)[0].time > call[-1].time


def test_reply_length_follows_the_whole_call_and_not_its_last_phrase() -> None:
    call = [*CALL, *phrase(30.0, 8, 0.2)]
    reply = reply_to(call)
    assert 28 < reply[-1].time - reply[0].time < 40


def test_a_duet_plays_along_and_ends_after_the_call() -> None:
    call = [*phrase(0.0, 60, 0.2), *phrase(30.0, 60, 0.2)]
    duet = reply_to(call, mode="duet")
    assert {int(one.time / 2) for one in duet} >= {1, 2, 3, 4, 16, 17, 18, 19}  # throughout both phrases
    assert not [one for one in duet if 20 < one.time < 30]  # it ends in the pause, as in a live session
    assert call[-1].time < duet[-1].time < call[-1].time + 10
    assert faults(duet) == []


def test_hour_long_call_is_rendered_quickly() -> None:
    begun = time.monotonic()
    reply = reply_to([*phrase(0.0, 4, 0.2), *phrase(3600.0, 4, 0.2)])
    assert reply[0].time > 3600.0
    assert time.monotonic() - begun < 60.0


@pytest.mark.parametrize("controls", [{"mode": "listen"}, {"hold": True}])
def test_listen_mode_and_hold_render_no_notes(controls: dict[str, object]) -> None:
    assert reply_to(CALL, **controls) == []


@pytest.mark.parametrize("call", [[], [Timed(0.0, SUSTAIN_DOWN), Timed(1.0, SUSTAIN_UP)]])
def test_rendering_of_a_call_without_notes_ends(call: list[Timed]) -> None:
    reply_to(call)


def test_finished_call_with_too_few_notes_for_a_phrase_is_answered() -> None:
    assert reply_to(CALL, min_notes=50)


def test_reply_of_a_silent_musician_ends() -> None:
    reply = reply_to(CALL, silent)
    assert len(reply) < 10
    assert faults(reply) == []


def test_a_solo_ends_after_a_minute_with_nothing_held() -> None:
    reply = reply_to(CALL, steady(), mode="solo")
    assert 50 < reply[-1].time - reply[0].time < 70
    assert faults(reply) == []


def test_keys_held_at_the_end_of_the_call_are_not_played() -> None:
    reply = reply_to([Timed(0.0, NOTE_ON + 72, 80), *CALL], steady(6, (72, 74)))
    assert reply
    assert not {NOTE_ON + 72, NOTE_OFF + 72} & {one.action for one in reply}


def test_reply_includes_transposition_and_loudness() -> None:
    plain, moved = reply_to(CALL), reply_to(CALL, transpose=12, loudness=0.5)
    assert [one.action + 12 for one in plain if one.action < SUSTAIN_DOWN] == [
        one.action for one in moved if one.action < SUSTAIN_DOWN
    ]
    pairs = [(one.velocity, other.velocity) for one, other in zip(plain, moved, strict=True) if one.action < NOTE_OFF]
    assert all(softer < louder or louder == 126 for softer, louder in pairs)


@given(
    st.lists(st.tuples(st.floats(0, 1.5), st.floats(0.01, 0.8), st.integers(40, 90)), min_size=1, max_size=15),
    st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_reply_to_any_call_is_balanced_and_follows_the_call(notes: list[tuple[float, float, int]], seed: int) -> None:
    now, call, free = 0.0, list[Timed](), dict[int, float]()
    for wait, duration, pitch in notes:
        now += wait
        if now >= free.get(pitch, 0.0):
            free[pitch] = now + duration
            call += note(now, duration, pitch)
    call.sort(key=lambda one: one.time)
    reply = reply_to(call, session=seed)
    assert faults(reply) == []
    assert all(one.time >= call[-1].time for one in reply)


def test_recent_omits_releases_of_earlier_notes() -> None:
    timed = [Timed(0.0, NOTE_ON + 60, 80), Timed(0.5, SUSTAIN_DOWN), *note(5.0, 1.0, 62)[:1], Timed(5.5, NOTE_OFF + 60)]
    timed += [Timed(5.6, SUSTAIN_UP), Timed(6.0, NOTE_OFF + 62)]
    assert recent(timed, 2.0) == note(5.0, 1.0, 62)
    assert recent(timed, None) == timed
    assert recent([], 1.0) == []
