"""What comes back is told from what the human plays."""

from __future__ import annotations

import logging

import pytest

from perceivers_live.midi.echo import MOST, TELLING, WINDOW, EchoGuard

STRIKE, OTHER, RELEASE, WHEEL = (0x90, 60, 80), (0x90, 60, 81), (0x80, 60, 64), (0xE0, 0, 64)


@pytest.fixture
def guard() -> EchoGuard:
    return EchoGuard()


def loop(guard: EchoGuard, now: float, count: int = TELLING) -> None:
    """So many messages come back, one after the other."""
    for pitch in range(count):
        guard.sent(now, (0x90, pitch, 1))
        assert guard.is_echo(now + 0.01, (0x90, pitch, 1))


def test_what_was_sent_is_an_echo_when_it_comes_in_soon_after(guard: EchoGuard) -> None:
    guard.sent(10.0, STRIKE)
    assert guard.is_echo(10.02, list(STRIKE))


def test_each_message_comes_back_once(guard: EchoGuard) -> None:
    guard.sent(10.0, STRIKE)
    guard.sent(10.01, STRIKE)
    assert [guard.is_echo(10.02, STRIKE) for _ in range(3)] == [True, True, False]


def test_another_message_is_none(guard: EchoGuard) -> None:
    guard.sent(10.0, STRIKE)
    assert not guard.is_echo(10.01, OTHER)
    assert not guard.is_echo(10.01, RELEASE)


def test_what_comes_late_is_none(guard: EchoGuard) -> None:
    guard.sent(10.0, STRIKE)
    assert not guard.is_echo(10.01 + WINDOW, STRIKE)


def test_an_echo_does_not_cost_the_next_one_its_turn(guard: EchoGuard) -> None:
    """The same message is sent twice; the first has come back, and its time runs out before the second comes back."""
    guard.sent(10.0, STRIKE)
    assert guard.is_echo(10.01, STRIKE)
    guard.sent(10.06, STRIKE)
    assert guard.is_echo(10.02 + WINDOW, STRIKE)


def test_what_the_human_may_have_sent_as_well_is_heard_unless_everything_comes_back(guard: EchoGuard) -> None:
    guard.sent(10.0, WHEEL)
    assert not guard.is_echo(10.01, WHEEL, doubtful=True)
    loop(guard, 11.0)
    guard.sent(11.05, WHEEL)
    assert guard.is_echo(11.06, WHEEL, doubtful=True)


def test_a_message_that_does_not_come_back_tells_that_there_is_no_loop(guard: EchoGuard) -> None:
    loop(guard, 10.0)
    guard.sent(20.0, OTHER)
    guard.sent(20.2, WHEEL)
    assert not guard.is_echo(20.21, WHEEL, doubtful=True)


def test_a_loop_is_told_of_once(guard: EchoGuard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    loop(guard, 10.0, TELLING - 1)
    assert not caplog.records
    loop(guard, 10.1, 3 * TELLING)
    guard.sent(20.0, OTHER)
    loop(guard, 30.0)
    assert len(caplog.records) == 1


def test_a_flood_is_bounded(guard: EchoGuard) -> None:
    for i in range(3 * MOST):
        guard.sent(10.0, (0x90, i % 128, 1 + i // 128))
    assert len(guard._sent) == MOST
    assert guard.is_echo(10.0, (0x90, 127, 3 * MOST // 128))
