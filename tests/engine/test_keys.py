"""Keys and pedals on several channels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.keys import LAYER_SECONDS, PEDAL_DOWN, PEDAL_UP, HeldKeys, Press, SustainPedals

bounded = settings(max_examples=200, deadline=None, derandomize=True)


def test_layered_copies_on_other_channels_are_not_strikes() -> None:
    keys = HeldKeys()
    assert keys.press(1.0, 0, 60) is Press.STRIKE
    assert keys.press(1.0006, 1, 60) is Press.LAYER
    assert keys.press(1.0 + LAYER_SECONDS, 2, 60) is Press.LAYER
    assert keys.press(1.0006, 1, 64) is Press.STRIKE, "another key"
    assert [keys.release(channel, 60) for channel in (1, 0, 2)] == [False, False, True]
    assert keys.held == {64}


def test_a_copy_that_arrives_too_late_is_a_repeated_strike() -> None:
    keys = HeldKeys()
    keys.press(1.0, 0, 60)
    assert keys.press(1.001 + LAYER_SECONDS, 1, 60) is Press.REPEAT
    assert [keys.release(channel, 60) for channel in (0, 1)] == [False, True]


def test_a_repeated_note_on_the_same_channel_is_not_a_layered_copy() -> None:
    keys = HeldKeys()
    assert [keys.press(1.0, 0, 60), keys.press(1.0, 0, 60), keys.press(1.001, 1, 60), keys.press(1.002, 1, 60)] == [
        Press.STRIKE,
        Press.REPEAT,
        Press.LAYER,
        Press.REPEAT,
    ]


@pytest.mark.parametrize("interval", [0.05, 0.5])
def test_each_repeated_layered_note_is_one_strike_with_or_without_releases(interval: float) -> None:
    for releases in (True, False):
        keys, strikes = HeldKeys(), 0
        for i in range(20):
            strikes += keys.press(i * interval, 0, 60) is not Press.LAYER
            strikes += keys.press(i * interval + 0.0006, 1, 60) is not Press.LAYER
            if releases:
                assert [keys.release(0, 60), keys.release(1, 60)] == [False, True]
        assert strikes == 20


def test_release_all_releases_only_the_keys_of_the_channel() -> None:
    keys = HeldKeys()
    for channel, pitch in ((0, 64), (0, 60), (1, 60), (1, 67)):
        keys.press(0.0, channel, pitch)
    assert keys.release_all(0) == [64]
    assert keys.release_all(0) == []
    assert keys.held == {60, 67}
    assert keys.release_all() == [60, 67]
    assert keys.held == frozenset()


MOVES = st.lists(st.tuples(st.sampled_from(["press", "release"]), st.integers(0, 3), st.integers(60, 62)), max_size=60)


@bounded
@given(MOVES)
def test_a_key_is_held_until_every_channel_that_pressed_it_has_released_it(moves: list[tuple[str, int, int]]) -> None:
    keys, holders = HeldKeys(), set()
    for i, (move, channel, pitch) in enumerate(moves):
        held = {one[0] for one in holders}
        if move == "press":
            assert (keys.press(i / 100, channel, pitch) is Press.STRIKE) == (pitch not in held)
            holders.add((pitch, channel))
        else:
            holders.discard((pitch, channel))
            assert keys.release(channel, pitch) == (pitch in held and pitch not in {one[0] for one in holders})
        assert keys.held == {one[0] for one in holders}


def test_a_pedal_keeps_its_state_between_the_thresholds() -> None:
    for value in range(PEDAL_UP, PEDAL_DOWN):
        pedals = SustainPedals()
        assert not pedals.move(0, value), "it was up"
        assert pedals.move(0, PEDAL_DOWN)
        assert not pedals.move(0, value), "it was down"
        assert pedals.down
        assert pedals.move(0, PEDAL_UP - 1)


def test_the_pedal_is_down_while_it_is_down_on_any_channel() -> None:
    pedals = SustainPedals()
    assert [pedals.move(0, 127), pedals.move(1, 127), pedals.lift(0), pedals.lift(2), pedals.move(1, 0)] == [
        True,
        False,
        False,
        False,
        True,
    ]
    pedals.move(3, 127)
    assert pedals.lift()
    assert not pedals.down
