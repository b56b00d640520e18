"""MIDI messages <-> timed actions.

``MessageReader`` reads raw channel messages as a keyboard or a file sends them and returns clean actions: a note-on only for a
note that is up, a note-off only for one that is down. The channels are merged, as on one piano (``engine.keys``). Live input and
MIDI files are read by it; ``trainer.reading`` reads simple files faster, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.keys import HeldKeys, Press, SustainPedals

SUSTAIN = 64
ALL_SOUND_OFF, RESET_CONTROLLERS, ALL_NOTES_OFF = 120, 121, 123
RELEASING = (ALL_SOUND_OFF, *range(ALL_NOTES_OFF, 128))  # the modes 124 to 127 let go of all notes as well
DRUMS = 9  # channel 10, counted from 0
MessageListener = Callable[[float, Sequence[int]], None]  # time in monotonic seconds, one raw message


class MessageReader:
    """Raw messages in, clean timed actions out; remembers which channel holds what.

    ``drums=False`` leaves out channel 10, which in General MIDI is no piano.
    """

    def __init__(self, *, drums: bool = True) -> None:
        self._drums = drums
        self._keys, self._pedals = HeldKeys(), SustainPedals()

    @property
    def held(self) -> frozenset[int]:
        return self._keys.held

    @property
    def pedal(self) -> bool:
        return self._pedals.down

    def feed(self, time: float, message: Sequence[int]) -> list[Timed]:
        """One complete message (status and data bytes) at a time in seconds. Anything that is no music gives nothing."""
        if len(message) != 3:
            return []
        status, first, second = message
        kind, channel = status & 0xF0, status & 0x0F
        if not (0 <= first < 128 and 0 <= second < 128) or (channel == DRUMS and not self._drums):
            return []
        if kind == 0x90 and second and status < 0x100:
            press = self._keys.press(time, channel, first)
            again = [Timed(time, NOTE_OFF + first)] if press is Press.REPEAT else []
            return [*again, Timed(time, NOTE_ON + first, second)] if press is not Press.LAYER else []
        if kind in (0x80, 0x90):
            return [Timed(time, NOTE_OFF + first)] if self._keys.release(channel, first) else []
        return self._control(time, channel, first, second) if kind == 0xB0 else []

    def close(self, time: float) -> list[Timed]:
        """Releases whatever is still held, keys and pedal."""
        timed = [Timed(time, NOTE_OFF + pitch) for pitch in self._keys.release_all()]
        return [*timed, Timed(time, SUSTAIN_UP)] if self._pedals.lift() else timed

    def _control(self, time: float, channel: int, number: int, value: int) -> list[Timed]:
        if number in RELEASING:
            return [Timed(time, NOTE_OFF + pitch) for pitch in self._keys.release_all(channel)]
        if number == SUSTAIN:
            turned = self._pedals.move(channel, value)
        else:
            turned = number == RESET_CONTROLLERS and self._pedals.lift(channel)
        return [Timed(time, SUSTAIN_DOWN if self._pedals.down else SUSTAIN_UP)] if turned else []


def is_channel_message(message: Sequence[int]) -> bool:
    """Whether these bytes are one whole message of a channel: notes, controllers, program, pressure, bend."""
    if len(message) not in (2, 3) or not 0x80 <= message[0] < 0xF0:
        return False
    return len(message) == (2 if message[0] & 0xF0 in (0xC0, 0xD0) else 3) and all(0 <= byte < 128 for byte in message[1:])


def message_of(action: int, velocity: int, channel: int = 0) -> tuple[int, int, int]:
    """The raw MIDI message of a note or pedal action. Raises ``ValueError`` for actions that have none."""
    if action < NOTE_OFF:
        return 0x90 | channel, action - NOTE_ON, max(1, min(velocity, 127))
    if action < NOTE_OFF + PITCHES:
        return 0x80 | channel, action - NOTE_OFF, 64
    if action in (SUSTAIN_DOWN, SUSTAIN_UP):
        return 0xB0 | channel, SUSTAIN, 127 if action == SUSTAIN_DOWN else 0
    raise ValueError(f"action {action} has no MIDI message")


def releases(channel: int) -> list[tuple[int, int, int]]:
    """What silences a channel (0..15), whatever sounds on it: raw messages."""
    lift, *others = releasing_controllers(channel)
    return [lift, *(message_of(NOTE_OFF + pitch, 0, channel) for pitch in range(PITCHES)), *others]


def releasing_controllers(channel: int) -> list[tuple[int, int, int]]:
    """The sustain pedal up, all notes off, all controllers reset: raw messages."""
    return [(0xB0 | channel, number, 0) for number in (SUSTAIN, ALL_NOTES_OFF, RESET_CONTROLLERS)]
