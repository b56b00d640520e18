"""MIDI messages for the tests of controllers."""

from perceivers_live.controls.midi_map import MidiMap

WAIT = 10.0  # seconds to wait for another thread


def cc(number: int, value: int, channel: int = 1) -> tuple[int, int, int]:
    return (0xB0 | channel - 1, number, value)


def feed_all(midi_map: MidiMap, *messages: tuple[int, int, int]) -> list[bool]:
    return [midi_map.feed(0.0, message) for message in messages]
