"""What comes in, sorted: music, beats, controllers, echoes, and the key that hands over."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.clock.midi_clock import START, STOP, TICK, MidiClock, Transport
from perceivers_live.controls.midi_map import MidiMap
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import MidiSettings
from perceivers_live.midi.echo import TELLING, EchoGuard
from perceivers_live.session.input import NOTHING, Hearing, Received


class Ear:
    """A hearing and what it hangs on, fed at a time that only goes on when told."""

    def __init__(self, *, clock: MidiClock | None = None, midi_map: bool = False, **settings: int) -> None:
        self.now = 100.0
        self.echo = EchoGuard()
        self.controls = Controls()
        self.map = MidiMap(self.controls) if midi_map else None
        self.hearing = Hearing(MidiSettings(**settings), self.controls, self.echo, clock=clock, midi_map=self.map)  # type: ignore[arg-type]

    def feed(self, *message: int) -> Received:
        return self.hearing.feed(self.now, message)

    def actions(self, *messages: Sequence[int]) -> list[int]:
        return [one.action for message in messages for one in self.feed(*message).actions]

    def sent(self, *message: int) -> None:
        self.echo.sent(self.now, message)


def test_notes_and_pedal_are_music_and_may_be_passed_on() -> None:
    ear = Ear()
    assert ear.feed(0x90, 60, 80) == Received([Timed(100.0, NOTE_ON + 60, 80)], thru=True)
    assert ear.feed(0x90, 60, 0) == Received([Timed(100.0, NOTE_OFF + 60)], thru=True)
    assert ear.actions((0xB0, 64, 127), (0xB0, 64, 0)) == [SUSTAIN_DOWN, SUSTAIN_UP]


def test_wheels_and_pressure_are_no_music_but_may_be_passed_on() -> None:
    ear = Ear()
    for message in ((0xE0, 0, 64), (0xD0, 50), (0xC0, 1), (0xB0, 1, 5)):
        assert ear.feed(*message) == Received([], thru=True)


def test_only_the_chosen_channel_is_heard() -> None:
    ear = Ear(input_channel=3)
    assert ear.feed(0x90, 60, 80) == NOTHING
    assert ear.actions((0x92, 60, 80)) == [NOTE_ON + 60]


def test_the_input_offset_moves_what_is_heard() -> None:
    ear = Ear()
    ear.controls.set("input_offset_ms", -20)
    assert ear.feed(0x90, 60, 80).actions[0].time == pytest.approx(99.98)


def test_the_key_that_hands_over_is_not_heard() -> None:
    ear = Ear(takeover_key=21)
    assert ear.feed(0x90, 21, 80) == Received(takeover=True)
    assert ear.feed(0x80, 21, 0) == ear.feed(0x90, 21, 0) == Received()


def test_only_keys_within_the_range_are_listened_to() -> None:
    ear = Ear()
    ear.controls.set("listen_low", 60)
    ear.controls.set("listen_high", 72)
    assert ear.actions((0x90, 59, 80), (0x90, 60, 80), (0x90, 72, 80), (0x90, 73, 80)) == [NOTE_ON + 60, NOTE_ON + 72]
    assert ear.feed(0x80, 59, 0) == Received([], thru=True)
    assert ear.actions((0x80, 60, 0), (0x80, 73, 0), (0x80, 72, 0)) == [NOTE_OFF + 60, NOTE_OFF + 72]


def test_a_key_is_released_as_it_was_struck_if_the_range_moves_meanwhile() -> None:
    ear = Ear()
    ear.feed(0x90, 60, 80)
    ear.controls.set("listen_low", 70)
    ear.feed(0x90, 65, 80)
    ear.controls.set("listen_low", 0)
    assert ear.actions((0x80, 60, 0), (0x80, 65, 0)) == [NOTE_OFF + 60]


def test_the_transport_tells_what_it_changed_and_is_no_music() -> None:
    ear = Ear(clock=MidiClock(lambda: ear.now))
    assert ear.feed(START) == Received(transport=Transport.STARTED)
    assert ear.feed(TICK) == NOTHING
    assert ear.feed(STOP) == Received(transport=Transport.STOPPED)


def test_without_a_clock_its_messages_say_nothing() -> None:
    ear = Ear()
    assert ear.feed(START) == ear.feed(TICK) == ear.feed(STOP) == ear.feed(0xF0, 1, 2, 0xF7) == NOTHING


def test_a_bound_controller_does_not_reach_the_music() -> None:
    ear = Ear(midi_map=True)
    assert ear.map is not None
    ear.map.learn("temperature", ear.now)
    ear.feed(0xB0, 20, 0)
    ear.feed(0xB0, 20, 127)
    assert ear.feed(0xB0, 20, 127) == NOTHING
    assert ear.controls.get("temperature") == 2.0


def test_when_the_input_is_lost_what_was_held_is_let_go() -> None:
    ear = Ear()
    ear.controls.set("listen_low", 60)
    ear.actions((0x90, 50, 80), (0x90, 60, 80), (0xB0, 64, 127))
    assert ear.hearing.close(101.0) == [Timed(101.0, NOTE_OFF + 60), Timed(101.0, SUSTAIN_UP)]
    assert ear.hearing.close(102.0) == []
    assert ear.actions((0x90, 60, 80), (0x80, 60, 0)) == [NOTE_ON + 60, NOTE_OFF + 60]


# --- echoes --------------------------------------------------------------------------------------------------------


def test_what_the_machine_plays_is_not_heard_when_it_comes_back() -> None:
    ear = Ear()
    for message in ((0x90, 60, 80), (0x80, 60, 64), (0xB0, 64, 127), (0xB0, 64, 0)):
        ear.sent(*message)
        assert ear.feed(*message) == NOTHING


@pytest.mark.parametrize("listen_low", [0, 70])
def test_the_humans_release_is_heard_although_the_machine_released_the_same_key(listen_low: int) -> None:
    """The machine gave the key up a moment ago. The key counts even if it is not listened to: it may be passed on."""
    ear = Ear()
    ear.controls.set("listen_low", listen_low)
    ear.sent(0x80, 60, 64)
    ear.feed(0x90, 60, 80)
    ear.sent(0x80, 60, 64)
    assert ear.feed(0x80, 60, 64).thru
    ear.feed(0x90, 60, 80)
    assert ear.actions((0x80, 60, 64)) == ([NOTE_OFF + 60] if listen_low == 0 else [])


def test_the_human_lifting_the_pedal_is_heard_although_the_machine_lifted_its_own() -> None:
    ear = Ear()
    ear.feed(0xB0, 64, 127)
    ear.sent(0xB0, 64, 0)
    assert ear.actions((0xB0, 64, 0)) == [SUSTAIN_UP]


def test_a_wheel_that_springs_back_is_passed_on_although_it_was_passed_on_before() -> None:
    ear = Ear()
    for message in ((0xE0, 0, 64), (0xE0, 0, 90), (0xE0, 0, 64), (0xD0, 0), (0xD0, 9), (0xD0, 0)):
        assert ear.feed(*message).thru
        ear.sent(*message)


def test_in_a_loop_the_release_of_a_key_that_was_given_up_is_not_the_humans() -> None:
    ear = Ear()
    for pitch in range(TELLING):
        ear.sent(0x90, pitch, 1)
        assert ear.feed(0x90, pitch, 1) == NOTHING
    ear.feed(0x90, 60, 80)
    ear.sent(0x80, 60, 64)
    assert ear.feed(0x80, 60, 64) == NOTHING
    assert ear.actions((0x80, 60, 64)) == [NOTE_OFF + 60]


def test_a_loop_of_what_is_passed_on_comes_to_an_end() -> None:
    ear = Ear()
    ear.sent(0xE0, 0, 90)
    rounds = 0
    while ear.feed(0xE0, 0, 90).thru:
        ear.sent(0xE0, 0, 90)
        rounds += 1
        assert rounds < 2 * TELLING


@given(st.lists(st.lists(st.integers(-1, 256), max_size=5), max_size=40))
def test_whatever_comes_in_each_key_is_struck_and_released_in_turn(messages: list[list[int]]) -> None:
    ear = Ear(clock=MidiClock(lambda: 100.0), midi_map=True)
    heard = ear.actions(*messages, (0x90, 60, 1), (0x90, 60, 1))
    heard += [one.action for one in ear.hearing.close(ear.now)]
    down: set[int] = set()
    for action in heard:
        subject = action % 128 if action < SUSTAIN_DOWN else 128
        assert (subject not in down) == (action < NOTE_OFF or action == SUSTAIN_DOWN)
        down ^= {subject}
    assert not down
