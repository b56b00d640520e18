"""Performance events: the vocabulary that the model reads and writes.

One sequence position is one event ``(wait, action, velocity)``:

- ``wait``: 0..100 steps of 10 ms since the previous event; a longer gap is filled with ``REST`` events of 100 steps each.
- ``action``: note-on x 128, note-off x 128, sustain down, sustain up, rest, start of a stream, end of a piece.
- ``velocity``: one of 32 bins for a note-on, ``NO_VELOCITY`` for everything else.
"""

from __future__ import annotations

from typing import NamedTuple

STEPS_PER_SECOND = 100
MAX_WAIT = 100
WAITS = MAX_WAIT + 1

PITCHES = 128
NOTE_ON = 0  # NOTE_ON + pitch
NOTE_OFF = 128  # NOTE_OFF + pitch
SUSTAIN_DOWN = 256
SUSTAIN_UP = 257
REST = 258
START = 259
END = 260
ACTIONS = 261

VELOCITY_BINS = 32
NO_VELOCITY = 32
VELOCITIES = VELOCITY_BINS + 1


class Event(NamedTuple):
    """One position of the sequence. The module's docstring states the ranges."""

    wait: int
    action: int
    velocity: int = NO_VELOCITY

    @property
    def is_note_on(self) -> bool:
        return self.action < NOTE_OFF

    @property
    def is_note_off(self) -> bool:
        return NOTE_OFF <= self.action < SUSTAIN_DOWN

    @property
    def pitch(self) -> int:
        """MIDI key number of a note-on or note-off."""
        return self.action % PITCHES


START_EVENT = Event(0, START)


def subject(action: int) -> int:
    """The key 0..127 of a note-on or note-off; 128 for the pedal; 129 for an action about neither."""
    return action % PITCHES if action < SUSTAIN_DOWN else PITCHES + (action > SUSTAIN_UP)


class Timed(NamedTuple):
    """An action at an absolute time in seconds, with a MIDI velocity (0 unless a note-on)."""

    time: float
    action: int
    velocity: int = 0


def velocity_bin(velocity: int) -> int:
    """MIDI velocity 1..127 -> bin 0..31 (four velocities a bin)."""
    return min(max(velocity, 1), 127) // 4


def bin_velocity(bin_: int) -> int:
    """Bin 0..31 -> the MIDI velocity in its middle, 2..126."""
    return bin_ * 4 + 2
