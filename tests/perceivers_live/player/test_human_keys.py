"""The account of what the human holds."""

from __future__ import annotations

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.player.human_keys import HumanKeys


def actions(keys: HumanKeys, *messages: tuple[int, ...], every: float = 0.001) -> list[int]:
    return [one.action for index, message in enumerate(messages) for one in keys.feed(1.0 + every * index, message)]


def test_what_is_down_is_what_was_pressed_and_not_let_go() -> None:
    keys = HumanKeys()
    assert actions(keys, (0x90, 60, 80), (0x90, 64, 80), (0xB0, 64, 127), (0x80, 60, 0)) == [60, 64, SUSTAIN_DOWN, NOTE_OFF + 60]
    assert (keys.held, keys.pedal) == ({64}, True)


@pytest.mark.parametrize("number", [120, 123, 124, 125, 126, 127])
def test_what_a_channel_mode_implies_lets_go_of_that_channels_keys(number: int) -> None:
    keys = HumanKeys()
    actions(keys, (0x90, 60, 80), (0x91, 64, 80), (0xB0, 64, 127))
    assert actions(keys, (0xB0, number, 0)) == [NOTE_OFF + 60]
    assert (keys.held, keys.pedal) == ({64}, True)


def test_controllers_that_are_reset_lift_the_pedal() -> None:
    keys = HumanKeys()
    actions(keys, (0x90, 60, 80), (0xB0, 64, 127))
    assert actions(keys, (0xB0, 121, 0)) == [SUSTAIN_UP]
    assert (keys.held, keys.pedal) == ({60}, False)


def test_a_layered_key_is_struck_once_and_held_until_the_last_channel_lets_go() -> None:
    keys = HumanKeys()
    struck = [(0x90 | channel, pitch, 80) for pitch in (60, 64) for channel in (0, 1)]
    assert actions(keys, *struck, every=0.0006) == [NOTE_ON + 60, NOTE_ON + 64]
    assert actions(keys, (0x80, 60, 0)) == []
    assert keys.held == {60, 64}
    assert actions(keys, (0x81, 60, 0)) == [NOTE_OFF + 60]


def test_a_half_pedal_that_trembles_is_one_press() -> None:
    keys = HumanKeys()
    assert actions(keys, *((0xB0, 64, 62 + i % 4) for i in range(200))) == [SUSTAIN_DOWN]


def test_only_keys_within_the_range_count_and_are_released_as_they_were_struck() -> None:
    listened = [(72, 60)]  # in whatever order
    keys = HumanKeys(lambda: listened[0])
    assert actions(keys, *((0x90, pitch, 80) for pitch in (59, 60, 72, 73))) == [NOTE_ON + 60, NOTE_ON + 72]
    listened[0] = (70, 127)
    assert actions(keys, *((0x80, pitch, 0) for pitch in (59, 60, 72, 73))) == [NOTE_OFF + 60, NOTE_OFF + 72]


def test_when_everything_is_let_go_nothing_is_down_and_the_next_strike_is_a_new_one() -> None:
    keys = HumanKeys(lambda: (60, 127))
    actions(keys, (0x90, 50, 80), (0x90, 60, 80), (0xB0, 64, 127))
    assert keys.release_all(2.0) == [Timed(2.0, NOTE_OFF + 60), Timed(2.0, SUSTAIN_UP)]
    assert keys.release_all(2.0) == []
    assert actions(keys, (0x80, 60, 0), (0x90, 60, 80), (0x80, 60, 0)) == [NOTE_ON + 60, NOTE_OFF + 60]


def test_actions_count_where_there_are_no_messages() -> None:
    keys = HumanKeys()
    for action in (NOTE_ON + 60, NOTE_ON + 64, SUSTAIN_DOWN, NOTE_OFF + 60):
        keys.apply(Timed(1.0, action, 80))
    assert (keys.held, keys.pedal) == ({64}, True)
    assert keys.release_all(2.0) == [Timed(2.0, NOTE_OFF + 64), Timed(2.0, SUSTAIN_UP)]
