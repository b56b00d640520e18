"""Respond mode: what silences a reply, what counts as a call, and how long the reply is."""

from __future__ import annotations

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, Timed
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.phrases import BASE_SILENCE, PACE_FACTOR
from perceivers_live.performer.turns import MIN_REPLY
from tests.perceivers_live.playing import check_at_rest, human_plays, playing
from tests.perceivers_live.toys import steady
from tests.perceivers_live.virtual_session import VirtualSession, note, phrase


def test_key_press_at_the_start_of_a_reply_silences_it() -> None:
    """The callback received the key while the machine listened; the performer began the reply before it processed the key."""
    session = VirtualSession(steady(5))
    session.receive(*phrase(0.03, 12, 0.2))
    session.run(60.0, stop=lambda: session.performer._detector.reply_due() <= session.now + 0.001)
    session.receive_while_busy(Timed(session.now, NOTE_ON + 40, 80))
    session.now += 0.002
    for _ in range(9):
        session.performer.work(session.now)
    assert session.replying
    session.catch_up()
    assert not session.replying
    session.run(session.now + 0.4)
    assert session.machine == []
    check_at_rest(session)


def test_note_before_the_first_note_of_a_reply_continues_the_phrase() -> None:
    """With slow decisions there is some time between the decision to reply and the first note."""
    session = VirtualSession(steady(5))
    session.performer.add_decision_time(0.04)
    session.receive(*phrase(0.03, 40, 0.2))
    session.run(60.0, stop=lambda: session.replying)
    resumed = session.now + 0.05
    session.receive(*note(resumed, 0.05, 72))
    assert session.machine == []
    session.run(60.0, stop=lambda: session.replying)
    assert session.performer._turn.length == pytest.approx(resumed, abs=0.2)


@pytest.mark.parametrize("seed", [-1, 3])
def test_reply_that_begins_late_is_not_shorter(seed: int) -> None:
    """The performer waited for a model that did not answer."""
    session = VirtualSession(steady(20), {"seed": seed})
    session.receive(*phrase(0.03, 6, 0.2))
    session.now += 10.0
    began = session.now
    session.run(60.0, stop=lambda: not session.replying and session.now > began + 1.0)
    assert sum(one.action < NOTE_OFF for one in session.machine) > 4
    assert session.now > began + MIN_REPLY - 0.5


def test_key_press_before_a_switch_to_respond_is_absorbed_in_order() -> None:
    """The key does not silence the machine when it is pressed, but does when the performer processes it."""
    session = playing("solo", steady(20))
    session.run(session.now + 5, stop=lambda: bool(session.port.sounding))
    session.receive_while_busy(Timed(session.now, NOTE_ON + 40, 80))
    session.controls.set("mode", "respond")
    session.catch_up()
    assert not session.replying
    check_at_rest(session)


def test_history_is_what_sounded_if_hold_is_set_during_a_key_press() -> None:
    """The callback has silenced the machine; before the performer processes the key, hold silences it as well."""
    session = playing("respond", steady(5))
    session.receive_while_busy(Timed(session.now, NOTE_ON + 40, 80))
    session.controls.set("hold", True)
    session.performer.work(session.now)
    session.catch_up()
    check_at_rest(session)


@pytest.mark.parametrize("offset", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("action", [NOTE_OFF + 60, SUSTAIN_DOWN])
def test_a_release_or_pedal_just_before_the_reply_does_not_cancel_it(offset: float, action: int) -> None:
    """With a positive input offset its time is after the end of the phrase."""
    session = VirtualSession(steady(5))
    session.receive(*phrase(0.03, 12, 0.2), Timed(2.6, NOTE_ON + 60, 80))
    session.run(60.0, stop=lambda: session.performer._detector.reply_due() <= session.now + 0.04)
    one = Timed(session.now + offset, action)
    session.player.ledger.keys.apply(one)
    session.performer.absorb_input([session.performer.adapt_plan([one])])
    session.run(session.now + 3.0, stop=lambda: session.replying)
    assert session.replying


def test_panic_just_before_a_reply_silences_it() -> None:
    session = VirtualSession(steady(5))
    session.receive(*phrase(0.03, 12, 0.2))
    interruption = session.performer.interrupt(session.now)
    session.run(60.0, stop=lambda: session.player.planned() > 3)
    session.performer.absorb_input([interruption])
    session.run(session.now + 1.0)
    check_at_rest(session)


def test_key_press_after_a_takeover_silences() -> None:
    session = VirtualSession(steady(9))
    session.command(session.performer.takeover)
    session.run(1.0, stop=lambda: bool(session.port.sounding))
    assert session.port.sounding
    session.receive(Timed(session.now, NOTE_ON + 40, 80))
    assert session.port.silent
    check_at_rest(session)


def test_history_of_the_last_turn_is_kept_when_the_next_begins() -> None:
    """A key press that the performer processes late ends a turn in which nothing sounds any more."""
    session = VirtualSession(steady(12, (72, 74, 76)))
    session.receive(*phrase(0.0, 4))
    session.now += 0.1
    session.receive_while_busy(Timed(session.now, NOTE_ON + 50, 80))
    session.receive_while_busy(Timed(session.now, NOTE_OFF + 50))
    session.command(session.performer.takeover)
    session.run(session.now + 5, stop=lambda: len(session.machine) >= 4 and not session.player.ledger.notes)
    session.catch_up()
    assert not session.replying
    before = session.history()
    session.command(session.performer.takeover)
    for _ in range(2):
        session.performer.work(session.now)
    session.receive(Timed(session.now, SUSTAIN_DOWN))
    assert session.history()[: len(before)] == before


@pytest.mark.parametrize("patience", [0.5, 1.0, 2.0])
def test_patience_can_be_changed_while_the_machine_waits(patience: float) -> None:
    session = VirtualSession(controls={"patience": 4.0}, phrase=PhraseSettings(max_silence_ms=30_000), seed=1)
    session.receive(*phrase(0.03, 12, 0.2))
    session.run(session.now + 0.3)
    session.controls.set("patience", patience)
    session.run(60.0, stop=lambda: session.replying)
    assert session.now - 2.3 == pytest.approx(patience * (BASE_SILENCE + PACE_FACTOR * 0.2), rel=0.35)


def test_reply_length_follows_the_phrase_and_not_the_time_since() -> None:
    session = VirtualSession(controls={"hold": True}, seed=1)
    session.receive(*phrase(0.03, 12, 0.2))
    session.run(120.0)
    session.controls.set("hold", False)
    session.run(121.0)
    session.command(session.performer.takeover)
    session.run(300.0, stop=lambda: session.replying)
    session.run(300.0, stop=lambda: not session.replying)
    assert session.machine[0].time > 120
    assert session.machine[-1].time - session.machine[0].time < 10


def test_key_release_after_hold_does_not_change_the_phrase_length() -> None:
    session = VirtualSession(controls={"hold": True}, seed=1)
    session.receive(*phrase(0.03, 40, 0.2)[:-1])  # the last key is still down
    session.controls.set("hold", False)
    session.run(8.1)
    session.receive(phrase(0.03, 40, 0.2)[-1]._replace(time=session.now))
    session.run(session.now + 1.0)
    assert not session.machine
    session.command(session.performer.takeover)
    session.run(60.0, stop=lambda: not session.replying)
    assert session.machine[-1].time - session.machine[0].time > 4


@pytest.mark.parametrize(
    ("blocked", "free"),
    [({"hold": True}, {"hold": False}), ({"mode": "listen"}, {"mode": "respond"}), ({"mode": "listen"}, {"mode": "duet"})],
)
@pytest.mark.parametrize("silence", [0.1, 60.0], ids=["while the phrase goes on", "long after it"])
def test_phrase_played_on_hold_or_in_listen_mode_is_not_answered(
    blocked: dict[str, object], free: dict[str, object], silence: float
) -> None:
    session = VirtualSession(controls=blocked, seed=1)
    session.receive(*phrase(0.03, 12, 0.2))
    session.run(session.now + silence)
    for name, value in free.items():
        session.controls.set(name, value)
    session.run(session.now + 20.0)
    assert not session.machine
    human_plays(session)
    session.run(session.now + 5.0)
    assert session.machine


def test_release_of_a_key_pressed_in_listen_mode_is_not_answered() -> None:
    session = VirtualSession(controls={"mode": "listen"}, seed=1)
    session.receive(Timed(0.03, NOTE_ON + 40, 70))
    session.run(1.0)
    session.controls.set("mode", "respond")
    session.run(30.0)
    assert not session.machine
    session.receive(Timed(session.now, NOTE_OFF + 40))
    session.run(60.0)
    assert not session.machine


@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_phrase_that_ended_in_another_mode_is_not_answered(mode: str) -> None:
    session = VirtualSession(controls={"mode": mode}, seed=1)
    session.command(session.performer.yield_turn)
    session.receive(*phrase(session.now + 0.03, 2, 0.2))  # too short for a duet
    session.run(session.now + 60.0)
    assert not session.machine
    session.controls.set("mode", "respond")
    session.run(session.now + 20.0)
    assert not session.machine
    human_plays(session)
    session.run(session.now + 5.0)
    assert session.machine


def test_stray_notes_minutes_apart_are_no_phrase() -> None:
    session = VirtualSession(steady(5), phrase=PhraseSettings(min_notes=2))
    for start in (0.5, 200.0, 400.0):
        session.receive(*note(start, 0.1, 60))
        session.run(start + 100.0)
    assert session.machine == []
    session.receive(*note(600.0, 0.1, 60), *note(600.3, 0.1, 62))
    session.run(620.0)
    assert session.machine
    assert session.machine[-1].time < 606.0, "as long as the two notes together, not as all of them"
