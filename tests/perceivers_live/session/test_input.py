"""What comes in, sorted: music, beats, controllers, echoes, and the key that hands over."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN
from perceivers_live.clock.midi_clock import START, STOP, TICK, MidiClock, Transport
from perceivers_live.controls.midi_map import MidiMap
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import MidiSettings
from perceivers_live.midi.echo import PROOF, EchoGuard
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.session.input import NOTHING, InputRouter, Received


class Ear:
    """An input router and the account of the keys, fed at a time that only goes on when told."""

    def __init__(self, *, clock: MidiClock | None = None, midi_map: bool = False, **settings: int) -> None:
        self.now = 100.0
        self.echo = EchoGuard()
        self.controls = Controls()
        self.map = MidiMap(self.controls) if midi_map else None
        self.router = InputRouter(MidiSettings(**settings), self.controls, self.echo, clock=clock, midi_map=self.map)  # type: ignore[arg-type]
        self.keys = HumanKeys()

    def feed(self, *message: int) -> Received:
        return self.router.feed(self.now, message)

    def actions(self, *messages: Sequence[int]) -> list[int]:
        received = [self.feed(*message) for message in messages]
        return [one.action for each in received if each.music is not None for one in self.keys.feed(each.time, each.music)]


def test_whatever_a_channel_says_is_music() -> None:
    ear = Ear()
    for message in ((0x90, 60, 80), (0x90, 60, 0), (0xB0, 64, 127), (0xE0, 0, 64), (0xD0, 50), (0xC0, 1), (0xB0, 1, 5)):
        assert ear.feed(*message) == Received(message, 100.0)
    for message in ((), (0x90, 60), (0x90, 60, 200), (0xF0, 1, 0xF7), (0x60, 1, 2)):
        assert ear.feed(*message) == NOTHING


def test_only_the_chosen_channel_is_heard() -> None:
    ear = Ear(input_channel=3)
    assert ear.feed(0x90, 60, 80) == NOTHING
    assert ear.actions((0x92, 60, 80)) == [NOTE_ON + 60]


def test_the_input_offset_moves_what_is_heard() -> None:
    ear = Ear()
    ear.controls.set("input_offset_ms", -20)
    assert ear.feed(0x90, 60, 80).time == pytest.approx(99.98)


def test_the_key_that_hands_over_is_not_heard() -> None:
    ear = Ear(takeover_key=21)
    assert ear.feed(0x90, 21, 80) == Received(takeover=True)
    assert ear.feed(0x80, 21, 0) == ear.feed(0x90, 21, 0) == Received()


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
    assert ear.controls.get("temperature") == 1.5


def test_what_comes_back_in_a_loop_is_not_music() -> None:
    ear = Ear()
    for pitch in range(60, 60 + PROOF):
        ear.echo.sent(ear.now, (0x90, pitch, 80))
        assert ear.actions((0x90, pitch, 80)) == [NOTE_ON + pitch]  # not proven yet
    ear.echo.sent(ear.now, (0x90, 80, 80))
    assert ear.feed(0x90, 80, 80) == NOTHING


@given(st.lists(st.lists(st.integers(-1, 256), max_size=5), max_size=40))
def test_whatever_comes_in_each_key_is_struck_and_released_in_turn(messages: list[list[int]]) -> None:
    ear = Ear(clock=MidiClock(lambda: 100.0), midi_map=True)
    heard = ear.actions(*messages, (0x90, 60, 1), (0x90, 60, 1))
    heard += [one.action for one in ear.keys.release_all(ear.now)]
    down: set[int] = set()
    for action in heard:
        subject = action % 128 if action < SUSTAIN_DOWN else 128
        assert (subject not in down) == (action < NOTE_OFF or action == SUSTAIN_DOWN)
        down ^= {subject}
    assert not down
