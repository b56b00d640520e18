"""The record of the keys and the pedal that the human holds."""

from __future__ import annotations

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.player.human_keys import HumanKeys


def actions(keys: HumanKeys, *messages: tuple[int, ...], every: float = 0.001) -> list[int]:
    return [one.action for index, message in enumerate(messages) for one in keys.feed(1.0 + every * index, message)]


def test_held_keys_are_those_pressed_and_not_released() -> None:
    keys = HumanKeys()
    assert actions(keys, (0x90, 60, 80), (0x90, 64, 80), (0xB0, 64, 127), (0x80, 60, 0)) == [60, 64, SUSTAIN_DOWN, NOTE_OFF + 60]
    assert (keys.held, keys.pedal) == ({64}, True)


@pytest.mark.parametrize("number", [120, 123, 124, 125, 126, 127])
def test_channel_mode_message_releases_the_keys_of_its_channel(number: int) -> None:
    keys = HumanKeys()
    actions(keys, (0x90, 60, 80), (0x91, 64, 80), (0xB0, 64, 127))
    assert actions(keys, (0xB0, number, 0)) == [NOTE_OFF + 60]
    assert (keys.held, keys.pedal) == ({64}, True)


def test_reset_all_controllers_lifts_the_pedal() -> None:
    keys = HumanKeys()
    actions(keys, (0x90, 60, 80), (0xB0, 64, 127))
    assert actions(keys, (0xB0, 121, 0)) == [SUSTAIN_UP]
    assert (keys.held, keys.pedal) == ({60}, False)


def test_layered_key_is_pressed_once_and_held_until_its_last_channel_releases_it() -> None:
    keys = HumanKeys()
    note_ons = [(0x90 | channel, pitch, 80) for pitch in (60, 64) for channel in (0, 1)]
    assert actions(keys, *note_ons, every=0.0006) == [NOTE_ON + 60, NOTE_ON + 64]
    assert actions(keys, (0x80, 60, 0)) == []
    assert keys.held == {60, 64}
    assert actions(keys, (0x81, 60, 0)) == [NOTE_OFF + 60]


def test_jittering_half_pedal_is_one_press() -> None:
    keys = HumanKeys()
    assert actions(keys, *((0xB0, 64, 62 + i % 4) for i in range(200))) == [SUSTAIN_DOWN]


def test_range_limits_the_key_presses_but_not_their_releases() -> None:
    limits = [(72, 60)]  # in either order
    keys = HumanKeys(lambda: limits[0])
    assert actions(keys, *((0x90, pitch, 80) for pitch in (59, 60, 72, 73))) == [NOTE_ON + 60, NOTE_ON + 72]
    limits[0] = (70, 127)
    assert actions(keys, *((0x80, pitch, 0) for pitch in (59, 60, 72, 73))) == [NOTE_OFF + 60, NOTE_OFF + 72]


def test_release_all_releases_everything_and_the_next_press_counts() -> None:
    keys = HumanKeys(lambda: (60, 127))
    actions(keys, (0x90, 50, 80), (0x90, 60, 80), (0xB0, 64, 127))
    assert keys.release_all(2.0) == [Timed(2.0, NOTE_OFF + 60), Timed(2.0, SUSTAIN_UP)]
    assert keys.release_all(2.0) == []
    assert actions(keys, (0x80, 60, 0), (0x90, 60, 80), (0x80, 60, 0)) == [NOTE_ON + 60, NOTE_OFF + 60]


def test_actions_can_be_applied_without_messages() -> None:
    keys = HumanKeys()
    for action in (NOTE_ON + 60, NOTE_ON + 64, SUSTAIN_DOWN, NOTE_OFF + 60):
        keys.apply(Timed(1.0, action, 80))
    assert (keys.held, keys.pedal) == ({64}, True)
    assert keys.release_all(2.0) == [Timed(2.0, NOTE_OFF + 64), Timed(2.0, SUSTAIN_UP)]
