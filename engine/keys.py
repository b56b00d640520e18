"""Keys and pedals of several channels as those of one piano, for layered and split keyboards.

Live input and MIDI files are read with these two classes.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

# A ten-note chord on two channels takes 13 ms on a MIDI cable; no finger repeats a key within 40 ms.
LAYER_SECONDS = 0.015
PEDAL_DOWN = 64  # CC 64 from here on is down: the MIDI standard's threshold
PEDAL_UP = 56  # CC 64 below this is up; the hysteresis is wider than the jitter of a worn pedal


class Press(Enum):
    """What a note-on does to its key."""

    STRIKE = auto()  # the key was up
    REPEAT = auto()  # struck again while it is down
    LAYER = auto()  # another channel's copy of the strike that holds it


class _Key(NamedTuple):
    """A key that is down. Channels are the bits of a number."""

    struck: float  # seconds
    struck_by: int  # channels that the newest strike came on
    held_by: int


class HeldKeys:
    """The keys that are down, and the channels that hold them.

    Note-ons of one key on several channels within ``LAYER_SECONDS`` are one strike. A key is held until its last channel has
    released it.
    """

    def __init__(self) -> None:
        self._keys: dict[int, _Key] = {}

    @property
    def held(self) -> frozenset[int]:
        """Pitches that are down."""
        return frozenset(self._keys)

    def press(self, time: float, channel: int, pitch: int) -> Press:
        """A note-on, at a time in seconds."""
        bit, key = 1 << channel, self._keys.get(pitch)
        if key is None:
            self._keys[pitch] = _Key(time, bit, bit)
            return Press.STRIKE
        if not key.struck_by & bit and time - key.struck <= LAYER_SECONDS:
            self._keys[pitch] = _Key(key.struck, key.struck_by | bit, key.held_by | bit)
            return Press.LAYER
        self._keys[pitch] = _Key(time, bit, key.held_by | bit)
        return Press.REPEAT

    def release(self, channel: int, pitch: int) -> bool:
        """A note-off. Returns whether the key is up now: no other channel holds it."""
        key = self._keys.get(pitch)
        if key is None or not key.held_by & 1 << channel:
            return False
        left = key.held_by & ~(1 << channel)
        if left:
            self._keys[pitch] = key._replace(held_by=left)
        else:
            del self._keys[pitch]
        return not left

    def release_all(self, channel: int | None = None) -> list[int]:
        """Releases all keys of a channel (None: of every channel). Returns the pitches that are up now, ascending."""
        if channel is not None:
            return [pitch for pitch in sorted(self._keys) if self.release(channel, pitch)]
        pitches = sorted(self._keys)
        self._keys.clear()
        return pitches


class SustainPedals:
    """The sustain pedals of all channels as one: it is down while any of them is.

    A pedal goes down at ``PEDAL_DOWN`` and up below ``PEDAL_UP``. In between it stays as it is (hysteresis), so jitter of a
    half-pressed pedal does not count as several presses.
    """

    def __init__(self) -> None:
        self._channels = 0  # bits of the channels whose pedal is down

    @property
    def down(self) -> bool:
        return self._channels != 0

    def move(self, channel: int, value: int) -> bool:
        """CC 64 with this value. Returns whether ``down`` changed."""
        was = self.down
        if value >= PEDAL_DOWN:
            self._channels |= 1 << channel
        elif value < PEDAL_UP:
            self._channels &= ~(1 << channel)
        return self.down != was

    def lift(self, channel: int | None = None) -> bool:
        """Lifts the pedal of a channel (None: of every channel). Returns whether ``down`` changed."""
        was = self.down
        self._channels &= 0 if channel is None else ~(1 << channel)
        return self.down != was
