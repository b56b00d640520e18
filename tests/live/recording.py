"""Recorded MIDI and OSC messages, and functions that analyse them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

NOTE_OFF, NOTE_ON, CONTROL_CHANGE, PROGRAM_CHANGE, CHANNEL_PRESSURE, SUSTAIN = 0x80, 0x90, 0xB0, 0xC0, 0xD0, 64


class Message(NamedTuple):
    """A MIDI message of up to three bytes at a time in seconds."""

    time: float
    status: int
    data1: int = 0
    data2: int = 0


class OscMessage(NamedTuple):
    """An OSC message as Pd parses it: numbers are floats with six digits; there are no blobs and no bundles."""

    time: float
    address: str
    args: tuple[float | str, ...]


def note(start: float, duration: float, pitch: int, velocity: int = 80) -> list[Message]:
    """Note-on and note-off of one key on the first channel; times in seconds."""
    return [Message(start, NOTE_ON, pitch, velocity), Message(start + duration, NOTE_OFF, pitch, 64)]


def pedal(when: float, value: int) -> Message:
    """A control change of the sustain pedal, value 0 to 127."""
    return Message(when, CONTROL_CHANGE, SUSTAIN, value)


def notes_on(messages: Iterable[Message]) -> list[Message]:
    """The note-ons, without those of velocity 0, which are note-offs."""
    return [message for message in messages if message.status & 0xF0 == NOTE_ON and message.data2 > 0]


def hanging_notes(messages: Iterable[Message]) -> set[int]:
    """Pitches with more note-ons than note-offs on some channel."""
    sounding: dict[tuple[int, int], int] = {}
    for _, status, pitch, velocity in messages:
        key = (status & 0x0F, pitch)
        if status & 0xF0 == NOTE_ON and velocity > 0:
            sounding[key] = sounding.get(key, 0) + 1
        elif status & 0xF0 in (NOTE_ON, NOTE_OFF):
            sounding[key] = max(0, sounding.get(key, 0) - 1)
    return {pitch for (_, pitch), count in sounding.items() if count}


def pedal_down(messages: Iterable[Message]) -> bool:
    """Whether the last value of the sustain pedal is 64 or more on some channel."""
    values = {m.status: m.data2 for m in messages if m.status & 0xF0 == CONTROL_CHANGE and m.data1 == SUSTAIN}
    return any(value >= 64 for value in values.values())
