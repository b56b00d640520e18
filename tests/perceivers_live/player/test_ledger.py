"""The ledger's guarantee: whatever happens, each note-on gets one note-off."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, REST, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.player.ledger import Ledger, Sent, Voicing
from tests.perceivers_live.receiver import PortError, Synthesizer, unbalanced

ACTIONS = st.sampled_from(
    [*(NOTE_ON + p for p in range(60, 64)), *(NOTE_OFF + p for p in range(60, 64)), SUSTAIN_DOWN, SUSTAIN_UP]
)
CLOSING = st.sampled_from(["release_machine", "reset"])


@pytest.fixture
def synthesizer() -> Synthesizer:
    return Synthesizer()


@pytest.fixture
def ledger(synthesizer: Synthesizer) -> Ledger:
    return Ledger(synthesizer.send)


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads switch as often as Python allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def model_actions(sent: list[Sent]) -> list[Timed]:
    """The actions in the model's pitches and velocities."""
    return [one.played for one in sent]


def do(ledger: Ledger, what: int | str) -> None:
    if isinstance(what, int):
        ledger.play(what, 80)
    else:
        getattr(ledger, what)()


def test_repeated_note_on_and_note_off_are_sent_once(ledger: Ledger, synthesizer: Synthesizer) -> None:
    assert ledger.play(NOTE_ON + 60, 100)
    assert not ledger.play(NOTE_ON + 60, 50)
    assert ledger.play(NOTE_OFF + 60)
    assert not ledger.play(NOTE_OFF + 60)
    assert not ledger.play(REST)
    assert synthesizer.messages == [(0x90, 60, 100), (0x80, 60, 64)]


def test_everything_is_sent_on_the_chosen_channel(synthesizer: Synthesizer) -> None:
    ledger = Ledger(synthesizer.send, channel=15)
    for action in (NOTE_ON + 60, SUSTAIN_DOWN):
        ledger.play(action, 1)
    ledger.reset()
    assert {message[0] & 0x0F for message in synthesizer.messages} == {15}


def test_close_returns_the_releases_it_sent(ledger: Ledger, synthesizer: Synthesizer) -> None:
    for action in (NOTE_ON + 64, NOTE_ON + 60, SUSTAIN_DOWN):
        ledger.play(action, 80)
    assert model_actions(ledger.release_machine(1.5)) == [
        Timed(1.5, NOTE_OFF + 60),
        Timed(1.5, NOTE_OFF + 64),
        Timed(1.5, SUSTAIN_UP),
    ]
    assert ledger.release_machine(1.6) == []
    assert synthesizer.silent
    assert (ledger.notes, ledger.pedal) == (frozenset(), False)


def test_reset_leaves_any_receiver_silent(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.play(NOTE_ON + 60, 80)
    ledger.reset()
    assert synthesizer.messages[1:] == [(0x80, 60, 64), (0xB0, 64, 0), (0xB0, 123, 0), (0xB0, 121, 0)]


def test_reset_closes_notes_that_were_passed_through(ledger: Ledger, synthesizer: Synthesizer) -> None:
    for message in ((0x90, 60, 80), (0x93, 60, 80), (0x93, 62, 80), (0x93, 62, 0), (0xA3, 60, 5), (0xC3, 1)):
        ledger.thru(message)
    ledger.reset()
    offs = [m for m in synthesizer.messages[6:] if m[0] & 0xF0 == 0x80]
    assert offs == [(0x80, 60, 64), (0x83, 60, 64)]
    synthesizer.messages.clear()
    ledger.reset()
    assert not [m for m in synthesizer.messages if m[0] & 0xF0 == 0x80]


def test_reset_lifts_a_pedal_that_was_passed_through_on_any_channel(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.thru((0xB2, 64, 127))
    assert synthesizer.pedals == {2}
    ledger.reset()
    assert not synthesizer.pedals


def test_failed_note_off_is_sent_at_close(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.play(NOTE_ON + 60, 80)
    synthesizer.fails = lambda _: True
    release = ledger.play(NOTE_OFF + 60)
    assert release is not None
    assert isinstance(release.fault, PortError)
    assert ledger.notes == frozenset()
    synthesizer.fails = lambda _: False
    ledger.release_machine()
    assert not synthesizer.sounding


def test_failed_note_off_is_sent_before_the_next_note_on_of_that_key(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.play(NOTE_ON + 60, 80)
    synthesizer.fails = lambda _: True
    ledger.play(NOTE_OFF + 60)
    synthesizer.fails = lambda _: False
    ledger.play(NOTE_ON + 60, 90)
    assert [message[0] for message in synthesizer.messages] == [0x90, 0x80, 0x90]
    ledger.release_machine()
    ledger.release_machine()
    assert unbalanced(synthesizer.messages) == []


@pytest.mark.parametrize("later", ["play", "thru"])
def test_a_failed_release_is_sent_with_the_next_message(ledger: Ledger, synthesizer: Synthesizer, later: str) -> None:
    ledger.play(NOTE_ON + 60, 80)
    for message in ((0x90, 72, 80), (0x91, 72, 80), (0xB0, 66, 127)):
        ledger.thru(message)
    synthesizer.fails = lambda _: True
    ledger.play(NOTE_OFF + 60)
    for message in ((0x80, 72, 64), (0x91, 72, 0), (0xB0, 66, 0)):
        with pytest.raises(PortError):
            ledger.thru(message)
    synthesizer.fails = lambda _: False
    if later == "play":
        ledger.play(NOTE_ON + 40, 80)
    else:
        ledger.thru((0x90, 40, 80))
    assert synthesizer.sounding == {(0, 40)}
    assert synthesizer.messages[-2] == (0xB0, 66, 0)
    count = len(synthesizer.messages)
    ledger.thru((0x80, 40, 64))
    assert len(synthesizer.messages) <= count + 1, "they are sent once"


def test_a_failed_release_does_not_end_a_note_that_was_struck_again(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.thru((0x90, 72, 80))
    synthesizer.fails = lambda message: message[0] == 0x80
    with pytest.raises(PortError):
        ledger.thru((0x80, 72, 64))
    ledger.thru((0x90, 72, 90))
    synthesizer.fails = lambda _: False
    ledger.thru((0x90, 40, 80))
    assert synthesizer.sounding == {(0, 72), (0, 40)}


def test_a_failed_release_does_not_end_the_machines_next_note_on_that_key(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.play(NOTE_ON + 60, 80)
    synthesizer.fails = lambda message: message[0] == 0x80
    ledger.play(NOTE_OFF + 60)
    ledger.play(NOTE_ON + 60, 90)
    synthesizer.fails = lambda _: False
    ledger.send_unsent()
    assert synthesizer.sounding == {(0, 60)}
    ledger.play(NOTE_OFF + 60)
    assert not synthesizer.sounding


def test_a_failed_channel_mode_message_releases_every_passed_through_note_later(ledger: Ledger, synthesizer: Synthesizer) -> None:
    for pitch in (60, 64, 67):
        ledger.thru((0x90, pitch, 80))
    synthesizer.fails = lambda _: True
    with pytest.raises(PortError):
        ledger.thru((0xB0, 123, 0))
    synthesizer.fails = lambda _: False
    ledger.send_unsent()
    assert not synthesizer.sounding


def test_one_failed_note_off_does_not_prevent_the_others(ledger: Ledger, synthesizer: Synthesizer) -> None:
    for action in (NOTE_ON + 60, NOTE_ON + 64, NOTE_ON + 67, SUSTAIN_DOWN):
        ledger.play(action, 80)
    synthesizer.fails = lambda message: message[1] == 60
    closed = ledger.release_machine()
    assert [one.played.action for one in closed] == [NOTE_OFF + 60, NOTE_OFF + 64, NOTE_OFF + 67, SUSTAIN_UP]
    assert synthesizer.sounding == {(0, 60)}
    assert not synthesizer.pedals


def test_failed_thru_note_off_is_sent_at_reset(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.thru((0x90, 60, 80))
    synthesizer.fails = lambda _: True
    with pytest.raises(PortError):
        ledger.thru((0x80, 60, 0))
    synthesizer.fails = lambda _: False
    ledger.reset()
    assert not synthesizer.sounding


def test_failed_reset_can_be_repeated(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.thru((0x93, 60, 80))
    ledger.thru((0xB3, 64, 127))
    ledger.play(NOTE_ON + 62, 80)
    synthesizer.fails = lambda _: True
    ledger.reset()
    synthesizer.fails = lambda _: False
    ledger.reset()
    assert synthesizer.silent


# --- together with the human ---------------------------------------------------------------------------------------


def human(ledger: Ledger, one: Timed) -> list[Timed]:
    """Applies an action of the human; returns what the machine releases for it."""
    ledger.keys.apply(one)
    return model_actions(ledger.release_for(one))


def test_key_pressed_by_the_human_is_released_and_forbidden_while_held(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.play(NOTE_ON + 60, 80)
    assert human(ledger, Timed(1.0, NOTE_ON + 60, 80)) == [Timed(1.0, NOTE_OFF + 60)]
    assert human(ledger, Timed(1.1, NOTE_ON + 62, 80)) == []
    assert ledger.keys.held == ledger.forbidden == {60, 62}
    assert not ledger.play(NOTE_ON + 60, 80)
    human(ledger, Timed(1.2, NOTE_OFF + 60))
    assert ledger.play(NOTE_ON + 60, 80)
    assert unbalanced([*synthesizer.messages, (0x80, 60, 64)]) == []


def test_shared_pedal_is_lifted_only_when_the_human_lifts_it(ledger: Ledger, synthesizer: Synthesizer) -> None:
    ledger.play(SUSTAIN_DOWN)
    human(ledger, Timed(1.0, SUSTAIN_DOWN))
    assert not ledger.play(SUSTAIN_UP)
    assert synthesizer.pedals
    assert human(ledger, Timed(1.0, SUSTAIN_UP)) == [Timed(1.0, SUSTAIN_UP)]
    assert not synthesizer.pedals
    assert not ledger.pedal


def test_close_lifts_the_machines_pedal_but_not_a_thru_pedal(synthesizer: Synthesizer) -> None:
    for channel in (0, 1):
        ledger = Ledger(synthesizer.send, channel=channel)
        ledger.play(SUSTAIN_DOWN)
        human(ledger, Timed(1.0, SUSTAIN_DOWN))
        ledger.thru((0xB0, 64, 127))
        assert model_actions(ledger.release_machine(2.0)) == [Timed(2.0, SUSTAIN_UP)]
        assert synthesizer.pedals == {0}
        human(ledger, Timed(3.0, SUSTAIN_UP))
        ledger.thru((0xB0, 64, 0))
        assert not synthesizer.pedals


def test_thru_key_outside_the_listening_range_is_forbidden(ledger: Ledger, synthesizer: Synthesizer) -> None:
    """It is outside the listening range, but sounds on the machine's channel."""
    ledger.thru((0x90, 40, 80))
    assert 40 in ledger.forbidden
    assert not ledger.play(NOTE_ON + 40, 80)
    ledger.thru((0x80, 40, 0))
    assert ledger.play(NOTE_ON + 40, 80)
    ledger.thru((0x90, 40, 99))
    assert synthesizer.messages[-2:] == [(0x80, 40, 64), (0x90, 40, 99)]
    count = len(synthesizer.messages)
    assert ledger.play(NOTE_OFF + 40)
    assert len(synthesizer.messages) == count  # the note is now the human's
    ledger.thru((0x80, 40, 0))
    assert unbalanced(synthesizer.messages) == []


def test_note_off_has_the_sent_pitch_and_colliding_notes_are_forbidden(synthesizer: Synthesizer) -> None:
    voicing = [Voicing(0)]
    ledger = Ledger(synthesizer.send, voicing=lambda: voicing[0])
    ledger.play(NOTE_ON + 62, 80)
    assert ledger.forbidden == frozenset()
    voicing[0] = Voicing(2)
    assert ledger.forbidden == {60}
    assert not ledger.play(NOTE_ON + 60, 80)
    assert ledger.play(NOTE_OFF + 62)
    assert ledger.play(NOTE_ON + 60, 80)
    assert [m[:2] for m in synthesizer.messages] == [(0x90, 62), (0x80, 62), (0x90, 62)]


# --- anything, in any order ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(ACTIONS | CLOSING, st.booleans())))
def test_after_a_close_with_a_working_port_nothing_sounds(steps: list[tuple[int | str, bool]]) -> None:
    synthesizer = Synthesizer()
    ledger = Ledger(synthesizer.send)
    for what, works in steps:
        synthesizer.fails = lambda _, works=works: not works
        do(ledger, what)
    synthesizer.fails = lambda _: False
    ledger.release_machine()
    assert synthesizer.silent
    assert ledger.release_machine() == []


@given(st.lists(st.tuples(ACTIONS | CLOSING, st.booleans())))
def test_the_machines_notes_do_not_depend_on_the_port(steps: list[tuple[int | str, bool]]) -> None:
    synthesizer = Synthesizer()
    ledger, other = Ledger(synthesizer.send), Ledger(lambda _: None)
    for what, works in steps:
        synthesizer.fails = lambda _, works=works: not works
        do(ledger, what)
        do(other, what)
        assert (ledger.notes, ledger.pedal) == (other.notes, other.pedal)


@given(st.lists(ACTIONS | CLOSING))
def test_notes_always_balance_with_a_working_port(steps: list[int | str]) -> None:
    synthesizer = Synthesizer()
    ledger = Ledger(synthesizer.send)
    for what in steps:
        do(ledger, what)
        assert {pitch for _, pitch in synthesizer.sounding} == ledger.notes
        assert bool(synthesizer.pedals) == ledger.pedal
    ledger.release_machine()
    assert unbalanced(synthesizer.messages) == []


@given(
    st.lists(st.lists(ACTIONS | CLOSING, min_size=5, max_size=40), min_size=2, max_size=4),
    st.integers(0, 1 << 32),
    st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=30, deadline=None)
def test_notes_balance_under_concurrent_threads(work: list[list[int | str]], seed: int, failing: float) -> None:
    synthesizer, chance = Synthesizer(), random.Random(seed)
    synthesizer.fails = lambda _: chance.random() < failing
    ledger = Ledger(synthesizer.send)
    start = threading.Barrier(len(work))

    def play(steps: list[int | str]) -> Callable[[], None]:
        def run() -> None:
            start.wait()
            for what in steps:
                do(ledger, what)

        return run

    threads = [threading.Thread(target=play(steps)) for steps in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    synthesizer.fails = lambda _: False
    ledger.release_machine()
    assert synthesizer.silent
    if not failing:
        assert unbalanced(synthesizer.messages) == []


@pytest.mark.usefixtures("eager_switching")
def test_notes_balance_under_concurrent_note_ons_and_closes(ledger: Ledger, synthesizer: Synthesizer) -> None:
    stop = threading.Event()

    def play_notes() -> None:
        while not stop.is_set():
            for pitch in range(60, 72):
                ledger.play(NOTE_ON + pitch, 80)

    player = threading.Thread(target=play_notes)
    player.start()
    for _ in range(300):
        ledger.release_machine()
    stop.set()
    player.join()
    ledger.reset()
    assert unbalanced(m for m in synthesizer.messages if m[0] < 0xB0) == []
