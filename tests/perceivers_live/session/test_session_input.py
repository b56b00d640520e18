"""What a session hears, ignores and passes through."""

from __future__ import annotations

import dataclasses
import logging
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP
from perceivers_live.controls.settings import MidiSettings
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.sessions import SETTINGS, Stage, notes_only, running
from tests.perceivers_live.toys import steady


def test_other_channels_are_not_heard_when_one_is_chosen() -> None:
    settings = dataclasses.replace(SETTINGS, midi=MidiSettings(input_channel=3))
    stage = Stage(settings=settings)
    stage.hear((0x90, 60, 80), (0x92, 62, 80), (0x9F, 64, 80))
    assert [one.action for one in stage.human] == [NOTE_ON + 62]


def test_the_input_offset_is_added_to_the_time_of_what_is_heard() -> None:
    stage = Stage(input_offset_ms=50)
    stage.session.receive(100.0, (0x90, 60, 80))
    assert stage.human[0].time == pytest.approx(100.05)


def test_thru_copies_the_input_and_leaves_nothing_sounding() -> None:
    settings = dataclasses.replace(SETTINGS, midi=MidiSettings(channel=2))
    with running(settings=settings, thru=True, mode="listen") as stage:
        stage.until(stage.listening.is_set)  # what it sends at the start has been sent
        stage.port.messages.clear()
        stage.hear((0x90, 60, 80), (0xB0, 64, 127), (0xB0, 1, 5), (0x90, 64, 80))
        assert stage.port.messages == [(0x90, 60, 80), (0xB0, 64, 127), (0xB0, 1, 5), (0x90, 64, 80)]
    assert stage.port.silent


def test_a_key_passed_through_is_released_even_if_thru_is_switched_off_meanwhile() -> None:
    stage = Stage(thru=True)
    stage.hear((0x90, 60, 80), (0xB0, 64, 127))
    stage.controls.set("thru", False)
    stage.hear((0x80, 60, 0), (0xB0, 64, 0), (0x90, 62, 80), (0x80, 62, 0))
    assert stage.port.silent
    assert stage.port.note_ons == [60]


def test_a_key_passed_through_is_not_cut_off_by_the_machines_own_release() -> None:
    """The human strikes the very key that the machine holds, on the same channel: the machine's ends first."""
    with running(steady(40, (72,)), thru=True) as stage:
        stage.play()
        stage.until_playing()
        stage.hear((0x90, 72, 99))
        assert stage.port.sounding == {(0, 72)}
        assert unbalanced([*notes_only(stage.port.messages), (0x80, 72, 0)]) == []


def test_what_was_passed_through_ends_when_the_keyboard_is_unplugged() -> None:
    settings = dataclasses.replace(SETTINGS, midi=MidiSettings(channel=2))
    stage = Stage(settings=settings, thru=True, listen_low=61)
    stage.hear((0x90, 60, 80), (0x90, 64, 80), (0xB0, 64, 127))  # one of them outside what is listened to
    stage.session.input_lost(time.perf_counter())
    assert stage.port.silent
    assert [one.action for one in stage.human] == [NOTE_ON + 64, SUSTAIN_DOWN, NOTE_OFF + 64, SUSTAIN_UP]


def test_a_panic_releases_what_it_knows_nothing_of() -> None:
    stage = Stage()
    stage.port.send((0x90, 50, 80))
    stage.session.commands()["panic"]()
    assert stage.port.silent


def test_a_range_whose_limits_are_set_in_the_wrong_order_is_that_of_the_last_one() -> None:
    stage = Stage(listen_low=72, listen_high=48)
    stage.hear((0x90, 40, 80), (0x90, 48, 80), (0x90, 60, 80), (0x90, 80, 80))
    assert [one.action for one in stage.human] == [NOTE_ON + 48]


def test_only_midi_messages_are_passed_through(quiet_log: None) -> None:
    stage = Stage(thru=True)
    stage.hear((5, 6, 7), (0x90, 300, 1), (0x90, 60), (0x90,), (0x90, 60, -1), (-1, 0, 0), (0xC0, 5), (0x90, 60, 1))
    assert stage.port.messages == [(0xC0, 5), (0x90, 60, 1)]


@given(st.lists(st.lists(st.integers(0, 255), max_size=6), max_size=30), st.booleans())
def test_no_bytes_that_are_heard_raise(messages: list[list[int]], thru: bool) -> None:
    logging.disable(logging.CRITICAL)
    try:
        stage = Stage(thru=thru)
        for message in messages:
            stage.session.receive(0.0, message)
        stage.session.receive(0.0, (0xB0, 123, 0))
        assert len(stage.human) <= 2 * 128 + 2 * len(messages)
    finally:
        logging.disable(logging.NOTSET)


def test_a_huge_system_exclusive_message_is_ignored_whole_or_cut() -> None:
    stage = Stage(thru=True)
    exclusive = (0xF0, *(i % 128 for i in range(65_536)), 0xF7)
    stage.hear((0x90, 60, 80), exclusive, exclusive[:-1], exclusive[1:], (0x80, 60, 64))
    assert stage.port.messages == [(0x90, 60, 80), (0x80, 60, 64)]
    assert [one.action for one in stage.human] == [NOTE_ON + 60, NOTE_OFF + 60]


def test_a_stream_of_random_bytes_does_not_end_a_session(quiet_log: None) -> None:
    chance = np.random.default_rng(1)
    with running(thru=True) as stage:
        for _ in range(2000):
            stage.hear(tuple(chance.integers(0, 256, chance.integers(0, 5)).tolist()))
        stage.until_absorbed()
    assert stage.port.silent
