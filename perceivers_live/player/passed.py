"""What was passed through for the human and has not ended at the receiver: notes that sound, controllers away from rest."""

from __future__ import annotations

from collections.abc import Sequence

from engine.keys import PEDAL_UP
from engine.midi import ALL_SOUND_OFF, RELEASING, RESET_CONTROLLERS, SUSTAIN

MODULATION = 1
PEDALS = (SUSTAIN, 66, 67, 68, 69)  # sustain, sostenuto, soft, legato, hold 2
Message = tuple[int, ...]


def is_strike(message: Sequence[int]) -> bool:
    """Whether this is a note-on that strikes."""
    return message[0] & 0xF0 == 0x90 and message[2] > 0


def is_release(message: Sequence[int]) -> bool:
    """Whether this is a note-off, which a note-on of velocity 0 is as well."""
    return message[0] & 0xF0 in (0x80, 0x90) and not is_strike(message)


def is_channel_mode(message: Sequence[int]) -> bool:
    """Whether this concerns a whole channel: controllers 120 to 127."""
    return message[0] & 0xF0 == 0xB0 and message[1] >= ALL_SOUND_OFF


def at_rest(message: Sequence[int]) -> Message | None:
    """The message that takes a held controller back to rest (a pedal, a wheel, a pressure), None for everything else: what stays
    where it was put, such as a volume, is not held.
    """
    status, kind = message[0], message[0] & 0xF0
    if kind == 0xE0:
        return status, 0, 64
    if kind == 0xD0:
        return status, 0
    held = kind == 0xA0 or (kind == 0xB0 and message[1] in (MODULATION, *PEDALS))
    return (status, message[1], 0) if held else None


class PassedThrough:
    """The account of it. A receiver that loses the human's hands is brought back to rest by ``ends``."""

    def __init__(self) -> None:
        self._notes: set[tuple[int, int]] = set()  # (channel, pitch)
        self._controllers: dict[Message, int] = {}  # message that takes it to rest -> the newest last byte

    def take(self, message: Sequence[int]) -> None:
        """A message has reached the receiver, or what it would have done there has been done."""
        rest = at_rest(message)
        if is_strike(message):
            self._notes.add((message[0] & 0x0F, message[1]))
        elif is_release(message):
            self._notes.discard((message[0] & 0x0F, message[1]))
        elif rest is not None and tuple(message) != rest:
            self._controllers[rest] = message[-1]
        elif rest is not None:
            self._controllers.pop(rest, None)

    def holds(self, channel: int, pitch: int) -> bool:
        """Whether this note sounds for the human."""
        return (channel, pitch) in self._notes

    def pitches(self, channel: int) -> set[int]:
        """What sounds for the human on a channel."""
        return {pitch for on, pitch in self._notes if on == channel}

    def pedal(self, channel: int) -> int:
        """Where the human's sustain pedal stands on a channel, 0..127."""
        return self._controllers.get((0xB0 | channel, SUSTAIN, 0), 0)

    @property
    def pedalled(self) -> set[int]:
        """Channels on which the human's sustain pedal is not at rest."""
        return {rest[0] & 0x0F for rest in self._controllers if rest[0] & 0xF0 == 0xB0 and rest[1] == SUSTAIN}

    def end_of(self, message: Sequence[int]) -> Message | None:
        """The message to pass on if nothing new may begin: the end of something that was passed on, None if it is none."""
        rest = at_rest(message)
        if is_release(message):
            return tuple(message) if self.holds(message[0] & 0x0F, message[1]) else None
        if rest is None or rest not in self._controllers:
            return None
        pedal = message[0] & 0xF0 == 0xB0 and message[1] in PEDALS
        return rest if tuple(message) == rest or (pedal and message[2] < PEDAL_UP) else None

    def ends(self, channel: int | None = None, *, notes: bool = True, controllers: bool = True) -> list[Message]:
        """What brings a channel of the receiver (None: all of it) to rest."""
        here: list[Message] = [(0x80 | on, pitch, 64) for on, pitch in sorted(self._notes) if notes]
        here += [rest for rest in sorted(self._controllers) if controllers]
        return [message for message in here if channel in (None, message[0] & 0x0F)]

    def ended_by(self, message: Sequence[int]) -> list[Message]:
        """What a channel mode message comes to, for the human's notes and controllers alone."""
        number = message[1]
        return self.ends(message[0] & 0x0F, notes=number in RELEASING, controllers=number == RESET_CONTROLLERS)
