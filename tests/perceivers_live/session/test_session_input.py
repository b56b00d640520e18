"""What a session receives, ignores and forwards."""

from __future__ import annotations

import dataclasses
import logging
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP
from perceivers_live.clock.midi_clock import Beats
from perceivers_live.controls.settings import ClockSettings, MidiSettings, PhraseSettings
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.sessions import SETTINGS, SessionHarness, notes_only, running
from tests.perceivers_live.toys import steady
from tests.waiting import until


def test_other_channels_are_ignored_when_one_is_chosen() -> None:
    settings = dataclasses.replace(SETTINGS, midi=MidiSettings(input_channel=3))
    harness = SessionHarness(settings=settings)
    harness.receive((0x90, 60, 80), (0x92, 62, 80), (0x9F, 64, 80))
    assert [one.action for one in harness.human] == [NOTE_ON + 62]


def test_input_offset_is_added_to_the_time_of_the_input() -> None:
    harness = SessionHarness(input_offset_ms=50)
    harness.session.receive(100.0, (0x90, 60, 80))
    assert harness.human[0].time == pytest.approx(100.05)


def test_thru_copies_the_input_and_leaves_nothing_sounding() -> None:
    settings = dataclasses.replace(SETTINGS, midi=MidiSettings(channel=2))
    with running(settings=settings, thru=True, mode="listen") as harness:
        harness.port.messages.clear()
        harness.receive((0x90, 60, 80), (0xB0, 64, 127), (0xB0, 1, 5), (0x90, 64, 80))
        assert harness.port.messages == [(0x90, 60, 80), (0xB0, 64, 127), (0xB0, 1, 5), (0x90, 64, 80)]
    assert harness.port.silent


def test_thru_note_is_released_even_after_thru_is_switched_off() -> None:
    harness = SessionHarness(thru=True)
    harness.receive((0x90, 60, 80), (0xB0, 64, 127))
    harness.controls.set("thru", False)
    harness.receive((0x80, 60, 0), (0xB0, 64, 0), (0x90, 62, 80), (0x80, 62, 0))
    assert harness.port.silent
    assert harness.port.note_ons == [60]


def test_thru_note_is_not_ended_by_the_machines_note_off() -> None:
    """The human presses the key that the machine holds, on the same channel: the machine's note ends first."""
    with running(steady(40, (72,)), thru=True) as harness:
        harness.play()
        harness.until_playing()
        harness.receive((0x90, 72, 99))
        assert harness.port.sounding == {(0, 72)}
        assert unbalanced([*notes_only(harness.port.messages), (0x80, 72, 0)]) == []


def test_thru_note_whose_release_failed_ends_by_itself() -> None:
    with running(thru=True, mode="listen") as harness:
        harness.receive((0x90, 60, 80))
        harness.port.fails = lambda message: message[0] == 0x80
        harness.receive((0x80, 60, 64))
        assert harness.port.sounding == {(0, 60)}
        harness.port.fails = lambda _: False
        harness.until(lambda: not harness.port.sounding)


def test_thru_notes_end_when_the_input_is_lost() -> None:
    settings = dataclasses.replace(SETTINGS, midi=MidiSettings(channel=2))
    harness = SessionHarness(settings=settings, thru=True, listen_low=61)
    harness.receive((0x90, 60, 80), (0x90, 64, 80), (0xB0, 64, 127))  # one of them outside the listening range
    harness.session.input_lost(time.perf_counter())
    assert harness.port.silent
    recorded = [one.action for one in harness.human]  # also of the key that the machine does not listen to
    assert recorded == [NOTE_ON + 60, NOTE_ON + 64, SUSTAIN_DOWN, NOTE_OFF + 60, NOTE_OFF + 64, SUSTAIN_UP]


@pytest.mark.parametrize("pedal", [66, 67])
def test_thru_pedal_is_released_even_if_it_was_bound_meanwhile(pedal: int) -> None:
    harness = SessionHarness(thru=True)
    harness.session.commands()["learn"]("takeover")
    harness.receive((0xB0, pedal, 127), (0xB0, pedal, 0))  # the first movement is passed through, the second is learnt
    assert [binding.number for binding in harness.session.midi_map.bindings] == [pedal]
    assert harness.port.messages[-2:] == [(0xB0, pedal, 127), (0xB0, pedal, 0)]


def test_a_failing_output_is_logged_once_for_all_messages_passed_through(caplog: pytest.LogCaptureFixture) -> None:
    harness = SessionHarness(thru=True)
    harness.port.fails = lambda _: True
    harness.receive(*((0xD0, value % 128) for value in range(300)))
    assert len([record for record in caplog.records if "cannot send" in record.message]) == 1
    harness.port.fails = lambda _: False
    harness.receive((0xD0, 5))
    harness.port.fails = lambda _: True
    harness.receive((0xD0, 6), (0xD0, 7))
    assert len([record for record in caplog.records if "cannot send" in record.message]) == 2


def with_clock() -> tuple[SessionHarness, Beats, float]:
    """A session, its beats after ten ticks of a MIDI clock, and the time of the first."""
    harness = SessionHarness(settings=dataclasses.replace(SETTINGS, clock=ClockSettings(source="midi")))
    start, beats = time.perf_counter(), harness.session.beats
    assert beats is not None
    harness.session._clock._now = lambda: start + 10 / 48  # so that no delay of this thread lets the clock time out
    harness.session.receive(start, (0xFA,))
    for tick in range(10):
        harness.session.receive(start + tick / 48, (0xF8,))
    return harness, beats, start


def test_clock_goes_on_if_only_one_source_of_the_input_was_lost() -> None:
    harness, beats, start = with_clock()
    harness.receive((0x90, 60, 80))
    harness.session.source_lost(time.perf_counter())
    assert harness.session.keys.held == frozenset()
    harness.session.receive(start + 10 / 48, (0xF8,))
    assert beats.running


def test_clock_of_a_lost_input_gives_no_beats() -> None:
    harness, beats, start = with_clock()
    assert beats.running
    harness.session.input_lost(time.perf_counter())
    harness.session.receive(start + 10 / 48, (0xF8,))
    assert not beats.running


@pytest.mark.usefixtures("quiet_log")
def test_notes_that_wait_for_the_engines_recovery_are_absorbed_before_the_machine_begins() -> None:
    phrases = PhraseSettings(min_silence_ms=1000, max_silence_ms=1000)
    harness = SessionHarness(steady(10), dataclasses.replace(SETTINGS, phrase=phrases))
    harness.receive((0x90, 60, 80), (0x80, 60, 0))
    harness.session.loop.run_once()
    harness.runtime.failures = 1
    harness.receive((0x90, 61, 80), (0x80, 61, 0))
    harness.session.loop.run_once()
    assert harness.session.loop.recoveries == 1
    assert until(lambda: (harness.session.performer._detector.reply_due() or np.inf) < time.perf_counter())
    for status in (0x90, 0x80):
        harness.session.receive(time.perf_counter() + 60, (status, 62, 80))
    harness.session.loop.submit(lambda _: None)
    harness.session.loop.run_once()
    assert harness.states == []


def test_a_message_that_is_not_passed_through_does_not_end_a_failure_of_the_output(caplog: pytest.LogCaptureFixture) -> None:
    harness = SessionHarness(thru=True)
    harness.session.commands()["learn"]("temperature")
    harness.receive((0xB0, 20, 1), (0xB0, 20, 2))
    harness.port.fails = lambda _: True
    harness.receive(*(message for value in range(20) for message in ((0xD0, value), (0xB0, 20, value))))
    assert len([record for record in caplog.records if "cannot send" in record.message]) == 1


def test_panic_releases_unknown_notes() -> None:
    harness = SessionHarness()
    harness.port.send((0x90, 50, 80))
    harness.session.commands()["panic"]()
    assert harness.port.silent


def test_listening_range_in_the_wrong_order_uses_the_last_limit() -> None:
    harness = SessionHarness(listen_low=72, listen_high=48)
    harness.receive((0x90, 40, 80), (0x90, 48, 80), (0x90, 60, 80), (0x90, 80, 80))
    assert harness.session.keys.held == {48}


def test_only_valid_midi_messages_are_forwarded(quiet_log: None) -> None:
    harness = SessionHarness(thru=True)
    harness.receive((5, 6, 7), (0x90, 300, 1), (0x90, 60), (0x90,), (0x90, 60, -1), (-1, 0, 0), (0xC0, 5), (0x90, 60, 1))
    assert harness.port.messages == [(0xC0, 5), (0x90, 60, 1)]


@given(st.lists(st.lists(st.integers(0, 255), max_size=6), max_size=30), st.booleans())
def test_received_bytes_never_raise(messages: list[list[int]], thru: bool) -> None:
    logging.disable(logging.CRITICAL)
    try:
        harness = SessionHarness(thru=thru)
        for message in messages:
            harness.session.receive(0.0, message)
        harness.session.receive(0.0, (0xB0, 123, 0))
        assert len(harness.human) <= 2 * 128 + 2 * len(messages)
    finally:
        logging.disable(logging.NOTSET)


def test_huge_sysex_is_ignored_whether_complete_or_truncated() -> None:
    harness = SessionHarness(thru=True)
    exclusive = (0xF0, *(i % 128 for i in range(65_536)), 0xF7)
    harness.receive((0x90, 60, 80), exclusive, exclusive[:-1], exclusive[1:], (0x80, 60, 64))
    assert harness.port.messages == [(0x90, 60, 80), (0x80, 60, 64)]
    assert [one.action for one in harness.human] == [NOTE_ON + 60, NOTE_OFF + 60]


def test_a_stream_of_random_bytes_does_not_end_a_session(quiet_log: None) -> None:
    chance = np.random.default_rng(1)
    with running(thru=True) as harness:
        for _ in range(2000):
            harness.receive(tuple(chance.integers(0, 256, chance.integers(0, 5)).tolist()))
        harness.until_absorbed()
    assert harness.port.silent


def test_an_error_while_a_message_is_handled_is_logged_and_concerns_only_that_message(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = SessionHarness(thru=True)
    pass_on, failures = harness.session.output.pass_on, [RuntimeError("broken")]

    def fail_once(*given: object, **named: object) -> None:
        if failures:
            raise failures.pop()
        pass_on(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.session.output, "pass_on", fail_once)
    harness.receive((0x90, 60, 80), (0x90, 62, 80))
    assert harness.port.sounding == {(0, 62)}
    assert "cannot handle the MIDI message 90 3c 50" in caplog.text
