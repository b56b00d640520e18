"""Raw MIDI messages: any input gives valid actions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import MessageReader, message_of
from tests.music import Piano

bounded = settings(max_examples=100, deadline=None, derandomize=True)


def on(pitch: int, velocity: int = 64, channel: int = 0) -> list[int]:
    return [0x90 | channel, pitch, velocity]


def off(pitch: int, channel: int = 0) -> list[int]:
    return [0x80 | channel, pitch, 64]


def control(number: int, value: int, channel: int = 0) -> list[int]:
    return [0xB0 | channel, number, value]


def actions(reader: MessageReader, *messages: Sequence[int]) -> list[list[int]]:
    """The actions of each message, without times."""
    return [[one.action for one in reader.feed(0.0, message)] for message in messages]


def test_notes_keep_time_pitch_and_velocity() -> None:
    reader = MessageReader()
    assert reader.feed(1.5, on(60, 99)) == [Timed(1.5, NOTE_ON + 60, 99)]
    assert reader.held == {60}
    assert reader.feed(2.5, off(60)) == [Timed(2.5, NOTE_OFF + 60)]
    assert reader.held == frozenset()


def test_note_on_with_velocity_zero_is_a_note_off() -> None:
    assert actions(MessageReader(), on(60), on(60, 0), on(60, 0)) == [[NOTE_ON + 60], [NOTE_OFF + 60], []]


def test_note_on_of_a_sounding_key_releases_it_first() -> None:
    reader = MessageReader()
    assert actions(reader, on(60), on(60), off(60), off(60)) == [
        [NOTE_ON + 60],
        [NOTE_OFF + 60, NOTE_ON + 60],
        [NOTE_OFF + 60],
        [],
    ]


def test_a_key_held_on_two_channels_sounds_until_the_last_release() -> None:
    for first, second in ((0, 5), (5, 0)):
        reader = MessageReader()
        assert reader.feed(0.0, on(60, 80)) == [Timed(0.0, NOTE_ON + 60, 80)]
        assert reader.feed(1.0, on(60, 70, 5)) == [Timed(1.0, NOTE_OFF + 60), Timed(1.0, NOTE_ON + 60, 70)]
        assert actions(reader, off(60, first), off(60, second)) == [[], [NOTE_OFF + 60]]


def test_a_layered_keyboard_strikes_once_and_holds_until_the_last_release() -> None:
    reader = MessageReader()
    assert actions(reader, on(60, 80), on(60, 70, 1), on(64, 80), on(64, 70, 1)) == [[NOTE_ON + 60], [], [NOTE_ON + 64], []]
    assert actions(reader, off(60), off(60, 1), off(64, 1), off(64)) == [[], [NOTE_OFF + 60], [], [NOTE_OFF + 64]]


@pytest.mark.parametrize("message", [off(60), on(60, 0), off(61), off(60, 3)])
def test_stray_note_offs_are_ignored(message: list[int]) -> None:
    reader = MessageReader()
    reader.feed(0.0, on(62))
    assert reader.feed(0.0, message) == []
    assert reader.held == {62}


def test_a_note_off_on_another_channel_does_not_release() -> None:
    reader = MessageReader()
    assert actions(reader, on(60, 64, 1), off(60, 2), off(60, 1)) == [[NOTE_ON + 60], [], [NOTE_OFF + 60]]


def test_the_pedal_goes_down_at_64_and_up_below_56() -> None:
    values = [0, 63, 64, 100, 127, 64, 63, 56, 55, 1, 63, 127]
    given_ = actions(MessageReader(), *(control(64, value) for value in values))
    assert given_ == [[], [], [SUSTAIN_DOWN], [], [], [], [], [], [SUSTAIN_UP], [], [], [SUSTAIN_DOWN]]


def test_a_fluctuating_half_pedal_is_one_press() -> None:
    given_ = actions(MessageReader(), *(control(64, 62 + i % 4) for i in range(200)), control(64, 0))
    assert [action for one in given_ for action in one] == [SUSTAIN_DOWN, SUSTAIN_UP]


def test_the_pedal_is_down_while_any_channel_holds_it() -> None:
    reader = MessageReader()
    messages = [control(64, 127), control(64, 127, 1), control(64, 0), control(64, 0, 2), control(64, 0, 1)]
    assert actions(reader, *messages) == [[SUSTAIN_DOWN], [], [], [], [SUSTAIN_UP]]
    assert not reader.pedal


@pytest.mark.parametrize("number", [120, 123, 124, 125, 126, 127])  # mode messages release all notes too
def test_all_sound_off_and_all_notes_off_release_only_their_channel(number: int) -> None:
    reader = MessageReader()
    actions(reader, on(64), on(60), on(67, 64, 1), on(60, 64, 1), control(64, 127))
    assert actions(reader, control(number, 0)) == [[NOTE_OFF + 64]]  # 60 is held on channel 1 too
    assert reader.held == {60, 67}
    assert reader.pedal
    assert sorted(actions(reader, control(number, 0, 1))[0]) == [NOTE_OFF + 60, NOTE_OFF + 67]


def test_reset_controllers_releases_the_pedal_of_its_channel_and_no_keys() -> None:
    reader = MessageReader()
    actions(reader, on(60), control(64, 127), control(64, 127, 1))
    assert actions(reader, control(121, 127), control(121, 0, 1), control(121, 0)) == [[], [SUSTAIN_UP], []]
    assert reader.held == {60}


def test_drums_are_ignored_on_request() -> None:
    assert actions(MessageReader(drums=False), on(60, 64, 9), control(64, 127, 9), on(60)) == [[], [], [NOTE_ON + 60]]
    assert actions(MessageReader(), on(60, 64, 9)) == [[NOTE_ON + 60]]


def test_close_releases_keys_and_pedal_once() -> None:
    reader = MessageReader()
    actions(reader, on(64), on(60), on(60, 64, 3), control(64, 127), control(64, 127, 4))
    closed = reader.close(9.0)
    assert sorted(one.action for one in closed) == [NOTE_OFF + 60, NOTE_OFF + 64, SUSTAIN_UP]
    assert {one.time for one in closed} == {9.0}
    assert reader.close(10.0) == []
    assert (reader.held, reader.pedal) == (frozenset(), False)


@pytest.mark.parametrize(
    "message",
    [
        [],
        [0x90],
        [0x90, 60],
        [0x80, 60],
        [0xB0, 64],
        [0x90, 128, 64],
        [0x90, 60, 128],
        [0x90, 60, 255],
        [0x90, -1, 64],
        [0x90, 60, -5],
        [0xB0, 64, 200],
        [60, 64],
        [60, 64, 64],
        [0xF0, 60, 64, 0xF7],
        [0xF0],
        [0xF8],
        [0xFE],
        [0xFF, 60, 64],
        [0xC0, 5],
        [0xD0, 100],
        [0xE0, 0, 64],
        [0xA0, 60, 64],
        [300, 60, 64],
        [-1, 60, 64],
        [0x90, 62, 64, 64],
        [0x90, 62, 64, 0x90, 64, 64],
        [0x80, 60, 64, 64],
    ],
    ids=str,
)
def test_other_and_malformed_messages_are_ignored(message: list[int]) -> None:
    reader = MessageReader()
    actions(reader, on(60), control(64, 127))
    assert reader.feed(1.0, message) == []
    assert reader.held == {60}
    assert reader.pedal


CHANNEL_MESSAGES = st.tuples(
    st.sampled_from([0x80, 0x90, 0x90, 0xA0, 0xB0, 0xC0, 0xE0]), st.integers(0, 2), st.integers(58, 62), st.integers(0, 127)
).map(lambda drawn: [drawn[0] | drawn[1], drawn[2], drawn[3]])
CONTROL_CHANGES = st.tuples(st.integers(0, 2), st.sampled_from([64, 120, 121, 123, 1]), st.integers(0, 127)).map(
    lambda drawn: [0xB0 | drawn[0], drawn[1], drawn[2]]
)


@bounded
@given(st.lists(st.one_of(CHANNEL_MESSAGES, CONTROL_CHANGES, st.lists(st.integers(-3, 300), max_size=5)), max_size=60))
def test_any_bytes_give_valid_actions(messages: list[list[int]]) -> None:
    reader, piano = MessageReader(), Piano()
    for i, message in enumerate(messages):
        timed = reader.feed(i / 10, message)
        assert all(one.time == i / 10 for one in timed)
        piano.play(timed)
        assert (reader.held, reader.pedal) == (piano.down, piano.pedal)
    piano.play(reader.close(100.0))
    assert (piano.down, piano.pedal) == (set(), False)


def test_actions_are_converted_to_midi_messages() -> None:
    for pitch in (0, 60, 127):
        assert message_of(NOTE_ON + pitch, 77, 3) == (0x93, pitch, 77)
        assert message_of(NOTE_OFF + pitch, 0, 3)[:2] == (0x83, pitch)
    assert message_of(NOTE_ON + 60, 0)[2] == 1  # velocity 0 would be a note-off
    assert message_of(NOTE_ON + 60, 500)[2] == 127
    reader = MessageReader()
    assert actions(reader, message_of(SUSTAIN_DOWN, 0, 2), message_of(SUSTAIN_UP, 0, 2)) == [[SUSTAIN_DOWN], [SUSTAIN_UP]]
    with pytest.raises(ValueError, match="no MIDI message"):
        message_of(258, 0)
