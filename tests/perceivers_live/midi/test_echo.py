"""Echoes of the output are distinguished from the human's playing: only proven echoes are ignored."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceivers_live.midi.echo import (
    GONE_NOTES,
    GONE_SECONDS,
    LATE,
    MAX_HUMAN_REPEATS,
    MAX_SENT,
    PROOF,
    RECENT_NOTES,
    SPREAD,
    WINDOW,
    EchoGuard,
)

Message = tuple[int, ...]
Way = Callable[[Message], Message]


@pytest.fixture
def guard() -> EchoGuard:
    return EchoGuard()


def other_channel(message: Message) -> Message:
    return (message[0] & 0xF0 | 5, *message[1:])


def other_velocity(message: Message) -> Message:
    return (*message[:2], 100) if message[0] & 0xF0 == 0x90 and message[2] else message


def note_off_as_note_on(message: Message) -> Message:
    return (0x90 | message[0] & 0x0F, message[1], 0) if message[0] & 0xF0 == 0x80 else message


def playing(count: int, start: float = 10.0) -> list[tuple[float, Message]]:
    """``count`` notes of the machine, each half a second long, with pauses of half a second."""
    notes = [(start + i, 60 + i * 7 % 24) for i in range(count)]
    return [one for at, pitch in notes for one in ((at, (0x90, pitch, 70)), (at + 0.5, (0x80, pitch, 64)))]


def ignored(guard: EchoGuard, sent: Sequence[tuple[float, Message]], delay: Callable[[], float], way: Way) -> list[bool]:
    """Whether each returned message is ignored."""
    happens = [(at, True, message) for at, message in sent] + [(at + delay(), False, way(message)) for at, message in sent]
    outcome = []
    for at, out, message in sorted(happens, key=lambda one: one[0]):
        if out:
            guard.sent(at, message)
        else:
            outcome.append(guard.is_echo(at, message))
    return outcome


@pytest.mark.parametrize("way", [tuple, other_channel, other_velocity, note_off_as_note_on])
@pytest.mark.parametrize("delay", [0.002, 0.05, 0.15, 0.28])
def test_loop_is_ignored_after_enough_consecutive_echoes(
    guard: EchoGuard, way: Way, delay: float, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(1)
    outcome = ignored(guard, playing(20), lambda: delay + chance.uniform(-0.001, 0.005), way)
    assert not any(outcome[:PROOF])
    assert all(outcome[PROOF:])
    assert guard.echoes == sum(outcome)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "comes back on the input" in caplog.text


def test_release_of_an_accepted_note_is_accepted_too(guard: EchoGuard) -> None:
    """Its note-on came back before the loop was proven, and counted as the human's."""
    pairs = playing(PROOF)
    order = [*pairs[: PROOF - 1], (20.0, (0x90, 40, 70)), (21.0, (0x80, 40, 64)), (22.0, (0x90, 41, 70)), (23.0, (0x80, 41, 64))]
    assert ignored(guard, order, lambda: 0.05, tuple)[-4:] == [False, False, True, True]


def test_human_notes_are_accepted_during_a_loop(guard: EchoGuard) -> None:
    ignored(guard, playing(10), lambda: 0.05, tuple)
    assert guard.established
    guard.sent(30.0, (0x90, 60, 70))
    assert not guard.is_echo(30.01, (0x90, 61, 70))
    assert not guard.is_echo(30.01, (0x80, 60, 70))
    assert not guard.is_echo(30.01, (0x90, 60, 70))  # too soon to be an echo
    assert [guard.is_echo(30.05, (0x90, 60, 70)) for _ in range(2)] == [True, False]  # each sent note explains one echo


def test_echo_of_a_thru_message_is_ignored_once_during_a_loop(guard: EchoGuard) -> None:
    ignored(guard, playing(10), lambda: 0.05, tuple)
    for message in ((0x90, 60, 70), (0x80, 60, 64), (0xE0, 0, 90), (0xB0, 64, 127), (0xD0, 5)):
        guard.sent(30.0, message, own=False)
        assert [guard.is_echo(30.05, message) for _ in range(2)] == [True, False]


def test_thru_messages_do_not_prove_a_loop(guard: EchoGuard) -> None:
    """The human evenly repeats the forwarded notes."""
    for i in range(200):
        now = 10.0 + 0.1 * i
        for message in ((0x90, 60 + i % 3, 80), (0x80, 60 + i % 3, 64)):
            assert not guard.is_echo(now, message)
            guard.sent(now, message, own=False)


def test_repeated_notes_of_one_key_do_not_prove_a_loop(guard: EchoGuard, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(100):
        now = 10.0 + 0.05 * i
        guard.sent(now, (0x90, 60, 80))
        assert not guard.is_echo(now + 0.02, (0x90, 60, 80))
    assert "its echoes are ignored" not in caplog.text


def test_a_loop_ends_when_echoes_stop_coming(guard: EchoGuard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ignored(guard, playing(10), lambda: 0.05, tuple)
    for i in range(GONE_NOTES + 1):
        assert guard.established
        guard.sent(30.0 + GONE_SECONDS * i, (0x90, 50 + i, 70))
    assert not guard.established
    assert not guard.is_echo(30.05 + GONE_SECONDS * GONE_NOTES, (0x90, 50 + GONE_NOTES, 70))
    ignored(guard, playing(10, 50.0), lambda: 0.05, tuple)
    assert guard.established
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]  # each reported once


def test_a_loop_outlasts_a_stall(guard: EchoGuard, caplog: pytest.LogCaptureFixture) -> None:
    """The computer stalls for a moment: the notes of a chord come back late, and some are lost."""
    caplog.set_level(logging.INFO)
    chord: list[Message] = [(0x90, pitch, 70) for pitch in range(50, 50 + 2 * GONE_NOTES)]
    ignored(guard, playing(10), lambda: 0.005, tuple)
    assert all(ignored(guard, [(30.0, message) for message in chord], lambda: WINDOW - 0.01, tuple))
    for message in chord:
        guard.sent(40.0, message)
    assert all(ignored(guard, playing(10, 41.0), lambda: 0.005, tuple)), "the usual delay is still known"
    assert guard.established
    assert len(caplog.records) == 1


def test_lost_echo_does_not_affect_the_next_note_of_its_key(guard: EchoGuard) -> None:
    ignored(guard, playing(10), lambda: 0.005, tuple)
    for at in (30.0, 30.0 + 2 * LATE):
        guard.sent(at, (0x90, 60, 70))
    assert guard.is_echo(30.005 + 2 * LATE, (0x90, 60, 70))
    assert [one.time for one in guard._sent] == [30.0]


def test_forget_requires_a_new_proof(guard: EchoGuard) -> None:
    ignored(guard, playing(10), lambda: 0.05, tuple)
    guard.forget()
    guard.sent(30.0, (0x90, 60, 70))
    assert not guard.is_echo(30.05, (0x90, 60, 70))


def test_loop_with_unsteady_delay_is_reported_once_and_not_ignored(guard: EchoGuard, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(2)
    outcome = ignored(guard, playing(3 * RECENT_NOTES), lambda: chance.uniform(0.0, 0.28), tuple)
    assert not any(outcome)
    assert ["seems to come back" in record.message for record in caplog.records] == [True]


def test_endless_thru_loop_is_reported(guard: EchoGuard, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(2 * MAX_HUMAN_REPEATS):
        assert not guard.is_echo(10.0 + 0.003 * i, (0x90, 60, 80))
        guard.sent(10.0 + 0.003 * i, (0x90, 60, 80), own=False)
    assert len(caplog.records) == 1


def test_a_flood_is_bounded(guard: EchoGuard) -> None:
    for i in range(3 * MAX_SENT):
        guard.sent(10.0, (0x90, i % 128, 1 + i // 128))
    assert len(guard._sent) == MAX_SENT


KEYS = st.integers(58, 62)
MESSAGES = st.one_of(
    st.tuples(st.just(0x90), KEYS, st.sampled_from([0, 64, 100])),
    st.tuples(st.just(0x80), KEYS, st.just(64)),
    st.tuples(st.just(0xB0), st.just(64), st.sampled_from([0, 127])),
    st.tuples(st.just(0xD0), st.integers(0, 3)),
    st.tuples(st.just(0xE0), st.just(0), st.integers(60, 68)),
)


@given(
    st.lists(st.tuples(st.integers(0, 400), MESSAGES), max_size=60),
    st.lists(st.tuples(st.integers(0, 400), MESSAGES), max_size=60),
    st.booleans(),
    st.integers(1, 7),
)
def test_human_input_is_never_ignored_without_a_loop(
    human: list[tuple[int, Message]], machine: list[tuple[int, Message]], thru: bool, stray: int
) -> None:
    """Any human playing beside any notes of the machine; one in ``stray`` of these is a key that the human never plays."""
    guard = EchoGuard()
    machine = [(at, (0x90, 20, 1) if index % stray == 0 else message) for index, (at, message) in enumerate(machine)]
    happens = [(at, False, message) for at, message in human] + [(at, True, message) for at, message in machine]
    for at, own, message in sorted(happens, key=lambda one: one[0]):
        now = 10 + at / 100
        if own:
            guard.sent(now, message)
        else:
            assert not guard.is_echo(now, message)
            if thru:
                guard.sent(now, message, own=False)


def test_the_limits_fit_together() -> None:
    assert WINDOW >= 0.3
    assert SPREAD < WINDOW / 4
