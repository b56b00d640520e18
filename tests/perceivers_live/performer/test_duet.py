"""Duet mode: the machine plays together with the human, and neither blocks the other."""

from __future__ import annotations

import numpy as np
import pytest

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.runtimes import SamplingBias
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.performer import State
from perceivers_live.performer.start import DUET_NOTES, DUET_TAIL, NO_CALL_REPLY
from tests.perceivers_live.playing import CLOSING, check, check_at_rest, human_plays, musicians, notes, onsets, playing
from tests.perceivers_live.toys import Hidden, Musician, improviser, possible, restless, steady
from tests.perceivers_live.virtual_session import VirtualSession, note, phrase


def test_a_duet_begins_after_a_few_notes() -> None:
    session = VirtualSession(steady(9), {"mode": "duet"})
    session.receive(*phrase(0.03, DUET_NOTES - 1, 0.3))
    session.run(session.now + 0.2)
    assert session.states == []
    session.receive(*note(session.now, 0.1, 60))
    assert session.replying
    began = session.now
    human_plays(session, 6)
    assert onsets(session)[0].time < began + 1.0


@musicians
def test_keys_and_pedal_do_not_silence_a_duet(musician: Musician) -> None:
    session = playing("duet", musician)
    count = len(onsets(session))
    for _ in range(12):
        human_plays(session, 1)
        session.receive(Timed(session.now, SUSTAIN_DOWN), Timed(session.now + 0.1, SUSTAIN_UP))
        check(session)
        assert session.replying
    assert len(onsets(session)) > count
    check_at_rest(session)


@musicians
@pytest.mark.parametrize("action", [NOTE_ON + 30, NOTE_OFF + 31, SUSTAIN_DOWN, SUSTAIN_UP])
@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_every_human_action_renews_the_plan(mode: str, action: int, musician: Musician) -> None:
    session = playing(mode, musician, lookahead_ms=1500, pace=0)
    session.receive(Timed(session.now, NOTE_ON + 31, 80), *([Timed(session.now, SUSTAIN_DOWN)] if action == SUSTAIN_UP else []))
    session.run(session.now + 0.05)
    assert session.player.planned() > 1
    count = len(session.machine)
    session.run(session.now + 2.0, stop=lambda: len(session.machine) > count)
    session.receive(Timed(session.now + 0.001, action, 80))
    assert session.player.planned() == 0
    assert session.history() == session.expected()
    session.run(session.now + 0.5)
    assert session.player.planned() > 1
    check_at_rest(session)


@pytest.mark.parametrize("mode", ["duet", "solo"])
@pytest.mark.parametrize("offset", [-100, 100, 200])
def test_a_fast_human_does_not_silence_the_machine_whatever_the_output_offset(mode: str, offset: float) -> None:
    counts = []
    for output_offset_ms in (0, offset):
        session = VirtualSession(controls={"mode": mode, "output_offset_ms": output_offset_ms})
        session.receive(*phrase(0.03, 100, 0.1, 36))
        counts.append(len(onsets(session)))
        check(session)
    assert counts[0] > 30
    assert counts[1] > 0.7 * counts[0]


def test_key_press_stops_the_old_plan_even_while_the_performer_is_busy() -> None:
    """The performer is busy; the input callback is not."""
    session = playing("duet", steady(4), lookahead_ms=1500, pace=0)
    count = len(session.machine)
    session.run(session.now + 2.0, stop=lambda: len(session.machine) > count)  # the next event is further off than decisions take
    session.receive_while_busy(Timed(session.now, NOTE_ON + 30, 80))
    count = len(session.machine)
    session.now += 0.3
    session.player.play_due(session.now)
    assert len(session.machine) == count
    session.catch_up()
    session.run(session.now + 0.5)
    assert len(session.machine) > count
    check_at_rest(session)


@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_machine_releases_its_key_before_the_human_plays_it(mode: str) -> None:
    session = playing(mode, steady(20, (72, 74)))
    session.run(session.now + 5, stop=lambda: 72 in session.player.ledger.notes)
    session.receive(Timed(session.now, NOTE_ON + 72, 80))
    assert notes(session)[-1][:2] == (0x80, 72)
    assert [action for _, action, _ in session.history()[-2:]] == [NOTE_OFF + 72, NOTE_ON + 72]
    session.run(session.now + 2.0)
    assert {message[1] for message in notes(session)[-2:]} == {74}  # 72 is the human's from now on
    check_at_rest(session)


def test_key_press_and_release_while_the_performer_is_busy_are_absorbed_in_order() -> None:
    session = playing("solo", steady(4, (72,)), lookahead_ms=1500)
    session.run(session.now + 5, stop=lambda: 72 in session.player.ledger.notes)
    session.receive_while_busy(Timed(session.now, NOTE_ON + 72, 80))
    session.now += 0.03
    session.player.play_due(session.now)
    session.receive_while_busy(Timed(session.now, NOTE_OFF + 72))
    session.now += 0.2
    session.player.play_due(session.now)
    session.catch_up()
    check(session)
    assert session.history() == session.expected()
    check_at_rest(session)


@musicians
def test_a_duet_ends_some_time_after_the_humans_phrase(musician: Musician) -> None:
    session = playing("duet", musician)
    human_plays(session, 12)
    end = session.performer._detector.reply_due()
    assert end is not None
    session.run(session.now + 30, stop=lambda: not session.replying)
    assert end < session.now < end + 2 * DUET_TAIL + CLOSING
    check(session)
    session.run(session.now + 10)
    assert not session.replying
    check_at_rest(session)


@musicians
def test_a_duet_ends_although_keys_are_held(musician: Musician) -> None:
    session = VirtualSession(musician, {"mode": "duet"})
    session.receive(*(Timed(0.1 * i, NOTE_ON + 40 + i, 80) for i in range(4)), Timed(0.5, SUSTAIN_DOWN))
    assert session.replying
    session.run(session.now + 30, stop=lambda: not session.replying)
    assert not session.replying
    check_at_rest(session)


@musicians
def test_a_duet_is_not_over_while_the_human_plays(musician: Musician) -> None:
    session = playing("duet", musician)
    for _ in range(30):
        human_plays(session, 1, 0.3)
        session.run(session.now + 0.2)
    assert session.states == [State.PLAYING]
    check_at_rest(session)


def test_long_pause_of_the_machine_does_not_end_a_duet() -> None:
    """Its next note is due when the human's phrase might have ended, but has not."""

    def reticent(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
        waits, actions = possible(bias.wait).tolist(), possible(bias.action).tolist()
        own = [action for action in actions if action in (NOTE_OFF + 80, NOTE_OFF + 81)]
        at_once = own or waits[-1] < 90  # it holds a key, or must play its first note
        return waits[0 if at_once else -1], own[0] if own else 80 + hidden.position % 2, 20

    session = VirtualSession(reticent, {"mode": "duet"})
    session.receive(*(one for i in range(40) for one in note(0.03 + 0.3 * i, 0.02, 40)))
    assert onsets(session)
    assert session.states == [State.PLAYING]
    check_at_rest(session)


@musicians
def test_duet_continues_if_the_human_plays_again_while_it_closes(musician: Musician) -> None:
    session = playing("duet", musician)
    session.run(session.now + 30, stop=lambda: session.performer._turn.closing is not None)
    assert session.replying
    human_plays(session, 1)
    assert session.performer._turn.closing is None
    count = len(onsets(session))
    human_plays(session, 12)
    assert session.replying
    assert len(onsets(session)) >= count
    assert session.states == [State.PLAYING]
    check_at_rest(session)


def test_duet_goes_on_when_a_phrase_begins_that_is_too_short_for_a_reply_yet() -> None:
    session = VirtualSession(improviser, {"mode": "duet"}, PhraseSettings(min_notes=4))
    session.receive(*phrase(0.03, 120, 0.2))
    assert session.replying
    session.run(session.now + 30, stop=lambda: session.performer._detector.over_at() < session.now)
    human_plays(session, 1)
    assert session.performer._turn.closing is None
    human_plays(session, 12)
    assert session.states == [State.PLAYING]
    check_at_rest(session)


@pytest.mark.parametrize("rate", [2.0, 5.0])
def test_note_rate_of_a_duet_is_similar_to_the_humans(rate: float) -> None:
    """Alone, this musician would play 25 notes a second."""
    session = VirtualSession(steady(2, range(60, 90)), {"mode": "duet"})
    session.receive(*(one for i in range(round(20 * rate)) for one in note(0.03 + i / rate, 0.01, 40 + i % 12)))
    assert 0.5 * rate < len(onsets(session)) / 20 < rate + 6


def expectant(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
    """Releases a held key, whoever holds it; plays another key if no release is possible."""
    waits, actions = possible(bias.wait), possible(bias.action).tolist()
    held = [pitch for pitch in range(PITCHES) if hidden.ages[pitch] >= 0]
    when = int(waits[np.searchsorted(waits, min(33 if held else 99, waits[-1]))])
    return when, next((NOTE_OFF + pitch for pitch in held if NOTE_OFF + pitch in actions), actions[0]), 20


def test_expected_releases_of_the_humans_keys_cause_no_notes_of_the_machine() -> None:
    """The model predicts both players. While it predicts a release by the human, the machine plays nothing."""
    session = VirtualSession(expectant, {"mode": "solo", "pace": 0})
    session.run(0.02, stop=lambda: session.replying)
    for i in range(20):
        session.receive(*note(0.55 * i + 0.1, 0.5, 40))
    note_count = len(onsets(session))
    session.receive(Timed(session.now + 0.02, NOTE_ON + 40, 80))
    session.run(session.now + 6.0)
    assert note_count < 3  # a release of the human's key was always expected
    assert len(onsets(session)) > 2 * note_count  # a key that stays held does not silence the machine


def test_next_phrase_after_a_duet_begins_another_duet() -> None:
    session = playing("duet")
    session.run(session.now + 30, stop=lambda: not session.replying)
    session.run(session.now + 5)
    human_plays(session, 2)
    assert not session.replying
    human_plays(session, 2)
    assert session.replying


def test_duet_avoids_keys_that_the_human_holds() -> None:
    held = (60, 64, 67, 72, 76)
    session = VirtualSession(restless, {"mode": "duet", "register_low": 58, "register_high": 76})
    session.receive(*(Timed(0.1 + 0.01 * i, NOTE_ON + pitch, 80) for i, pitch in enumerate(held)))
    for _ in range(30):
        human_plays(session, 2, pitch=90)
    assert len(onsets(session)) > 10
    assert not {one.action % PITCHES for one in session.machine if one.action < SUSTAIN_DOWN} & set(held)
    check_at_rest(session)


@pytest.mark.parametrize("notes", [0, 2])
def test_takeover_long_after_the_humans_phrase_plays_as_without_a_phrase(notes: int) -> None:
    session = VirtualSession(steady(30), {"mode": "duet"})
    session.receive(*phrase(0.03, notes, 0.3))
    session.run(5.0)
    session.command(session.performer.takeover)
    session.run(40.0, stop=lambda: not session.replying)
    assert onsets(session)
    assert session.now - 5.0 == pytest.approx(NO_CALL_REPLY, abs=1.5)
    check_at_rest(session)


@pytest.mark.parametrize("silence", [0.05, 10.0])
def test_duet_waits_for_the_next_phrase_after_yield(silence: float) -> None:
    """Both during a phrase, and long after the last one."""
    session = playing("duet", seconds=0.0)
    session.command(session.performer.yield_turn)
    session.run(session.now + silence)
    if silence < 1:
        human_plays(session, 12)  # the same phrase continues
        assert not session.replying
        session.run(session.now + 5)
    assert not session.replying
    human_plays(session, 4)
    assert session.replying
