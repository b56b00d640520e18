"""Routing of the input: music, clock, controllers, echoes and the takeover key."""

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


class RouterHarness:
    """An input router and the human's keys, on a manually advanced clock."""

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


def test_valid_channel_messages_are_music() -> None:
    harness = RouterHarness()
    for message in ((0x90, 60, 80), (0x90, 60, 0), (0xB0, 64, 127), (0xE0, 0, 64), (0xD0, 50), (0xC0, 1), (0xB0, 1, 5)):
        assert harness.feed(*message) == Received(message, 100.0)
    for message in ((), (0x90, 60), (0x90, 60, 200), (0xF0, 1, 0xF7), (0x60, 1, 2)):
        assert harness.feed(*message) == NOTHING


def test_only_the_chosen_channel_is_received() -> None:
    harness = RouterHarness(input_channel=3)
    assert harness.feed(0x90, 60, 80) == NOTHING
    assert harness.actions((0x92, 60, 80)) == [NOTE_ON + 60]


def test_input_offset_shifts_the_time_of_the_input() -> None:
    harness = RouterHarness()
    harness.controls.set("input_offset_ms", -20)
    assert harness.feed(0x90, 60, 80).time == pytest.approx(99.98)


def test_takeover_key_is_not_music() -> None:
    harness = RouterHarness(takeover_key=21)
    assert harness.feed(0x90, 21, 80) == Received(takeover=True)
    assert harness.feed(0x80, 21, 0) == harness.feed(0x90, 21, 0) == Received()


def test_transport_changes_are_reported_and_are_not_music() -> None:
    harness = RouterHarness(clock=MidiClock(lambda: harness.now))
    assert harness.feed(START) == Received(transport=Transport.STARTED)
    assert harness.feed(TICK) == NOTHING
    assert harness.feed(STOP) == Received(transport=Transport.STOPPED)


def test_clock_messages_are_ignored_without_a_clock() -> None:
    harness = RouterHarness()
    assert harness.feed(START) == harness.feed(TICK) == harness.feed(STOP) == harness.feed(0xF0, 1, 2, 0xF7) == NOTHING


def test_a_bound_controller_does_not_reach_the_music() -> None:
    harness = RouterHarness(midi_map=True)
    assert harness.map is not None
    harness.map.learn("temperature", harness.now)
    harness.feed(0xB0, 20, 0)
    harness.feed(0xB0, 20, 127)
    assert harness.feed(0xB0, 20, 127).music is None
    assert harness.controls.get("temperature") == 1.5


def test_echo_in_a_proven_loop_is_not_music() -> None:
    harness = RouterHarness()
    for pitch in range(60, 60 + PROOF):
        harness.echo.sent(harness.now, (0x90, pitch, 80))
        assert harness.actions((0x90, pitch, 80)) == [NOTE_ON + pitch]  # not proven yet
    harness.echo.sent(harness.now, (0x90, 80, 80))
    assert harness.feed(0x90, 80, 80) == NOTHING


@given(st.lists(st.lists(st.integers(-1, 256), max_size=5), max_size=40))
def test_presses_and_releases_alternate_for_any_input(messages: list[list[int]]) -> None:
    harness = RouterHarness(clock=MidiClock(lambda: 100.0), midi_map=True)
    received_actions = harness.actions(*messages, (0x90, 60, 1), (0x90, 60, 1))
    received_actions += [one.action for one in harness.keys.release_all(harness.now)]
    down: set[int] = set()
    for action in received_actions:
        subject = action % 128 if action < SUSTAIN_DOWN else 128
        assert (subject not in down) == (action < NOTE_OFF or action == SUSTAIN_DOWN)
        down ^= {subject}
    assert not down
