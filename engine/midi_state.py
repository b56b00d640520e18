"""The state of a stream of MIDI messages: the notes that are down, and the controllers that are not at rest."""

from __future__ import annotations

from collections.abc import Sequence

from engine.keys import PEDAL_UP
from engine.midi import ALL_SOUND_OFF, RELEASING, RESET_CONTROLLERS, SUSTAIN

MODULATION = 1
PEDALS = (SUSTAIN, 66, 67, 68, 69)  # sustain, sostenuto, soft, legato, hold 2
Message = tuple[int, ...]


def is_note_on(message: Sequence[int]) -> bool:
    """Whether this is a note-on with a velocity above 0."""
    return message[0] & 0xF0 == 0x90 and message[2] > 0


def is_note_off(message: Sequence[int]) -> bool:
    """Whether this is a note-off or a note-on of velocity 0."""
    return message[0] & 0xF0 in (0x80, 0x90) and not is_note_on(message)


def is_channel_mode(message: Sequence[int]) -> bool:
    """Whether this is a channel mode message (controllers 120 to 127), which affects a whole channel."""
    return message[0] & 0xF0 == 0xB0 and message[1] >= ALL_SOUND_OFF


def rest_message(message: Sequence[int]) -> Message | None:
    """The message that returns this message's controller to its rest value; None for other messages. Pedals, wheels and pressure
    return to rest when released. Controllers such as volume keep their value.
    """
    status, kind = message[0], message[0] & 0xF0
    if kind == 0xE0:
        return status, 0, 64
    if kind == 0xD0:
        return status, 0
    held = kind == 0xA0 or (kind == 0xB0 and message[1] in (MODULATION, *PEDALS))
    return (status, message[1], 0) if held else None


class MidiState:
    """Notes that are down and controllers that are not at rest, on all channels. ``rest_messages`` ends all of them."""

    def __init__(self) -> None:
        self._notes: set[tuple[int, int]] = set()  # (channel, pitch)
        self._controllers: dict[Message, int] = {}  # rest message -> latest value

    def apply(self, message: Sequence[int]) -> None:
        """Updates the state after a channel message, or after its effect was achieved by other messages. Channel mode messages
        have no effect here: see ``releases_after``.
        """
        rest = rest_message(message)
        if is_note_on(message):
            self._notes.add((message[0] & 0x0F, message[1]))
        elif is_note_off(message):
            self._notes.discard((message[0] & 0x0F, message[1]))
        elif rest is not None and tuple(message) != rest:
            self._controllers[rest] = message[-1]
        elif rest is not None:
            self._controllers.pop(rest, None)

    def holds(self, channel: int, pitch: int) -> bool:
        """Whether this note is down."""
        return (channel, pitch) in self._notes

    def pitches(self, channel: int) -> set[int]:
        """Pitches of the notes that are down on a channel."""
        return {pitch for on, pitch in self._notes if on == channel}

    def pedal(self, channel: int) -> int:
        """Value of the sustain pedal on a channel, 0..127."""
        return self._controllers.get((0xB0 | channel, SUSTAIN, 0), 0)

    @property
    def pedal_channels(self) -> set[int]:
        """Channels on which the sustain pedal is not at rest."""
        return {rest[0] & 0x0F for rest in self._controllers if rest[0] & 0xF0 == 0xB0 and rest[1] == SUSTAIN}

    def release_of(self, message: Sequence[int]) -> Message | None:
        """The message that ends a note or controller of this state, if ``message`` does so; else None."""
        rest = rest_message(message)
        if is_note_off(message):
            return tuple(message) if self.holds(message[0] & 0x0F, message[1]) else None
        if rest is None or rest not in self._controllers:
            return None
        pedal = message[0] & 0xF0 == 0xB0 and message[1] in PEDALS
        return rest if tuple(message) == rest or (pedal and message[2] < PEDAL_UP) else None

    def rest_messages(self, channel: int | None = None, *, notes: bool = True, controllers: bool = True) -> list[Message]:
        """The messages that end all notes and controllers on a channel; None: on all channels."""
        messages: list[Message] = [(0x80 | on, pitch, 64) for on, pitch in sorted(self._notes) if notes]
        messages += [rest for rest in sorted(self._controllers) if controllers]
        return [message for message in messages if channel in (None, message[0] & 0x0F)]

    def releases_after(self, message: Sequence[int]) -> list[Message]:
        """The messages that have the effect of a channel mode message on the notes and controllers of this state only."""
        number = message[1]
        return self.rest_messages(message[0] & 0x0F, notes=number in RELEASING, controllers=number == RESET_CONTROLLERS)
