"""MIDI messages and files <-> timed actions.

``MessageReader`` reads raw channel messages as a keyboard or a file sends them and gives back clean actions: every
note-on meets a note that is up, every note-off one that is down. Notes of several channels are merged, as on one piano.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engine.errors import UserError
from engine.events import NOTE_OFF, NOTE_ON, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed

SUSTAIN = 64
ALL_SOUND_OFF, RESET_CONTROLLERS, ALL_NOTES_OFF = 120, 121, 123
DRUMS = 9  # channel 10, counted from 0
MAX_FILE_BYTES = 4 << 20  # ten times MAESTRO's longest piece; the reader takes 9 s and 0.4 GB for the worst MB
LONGEST = 24 * 3600.0  # seconds


class MidiFileError(UserError, ValueError):
    """A MIDI file that cannot be read; the message is one line for the user."""


class MessageReader:
    """Raw messages in, clean timed actions out; remembers which channel holds what.

    ``drums=False`` leaves out channel 10, which in General MIDI is no piano.
    """

    def __init__(self, *, drums: bool = True) -> None:
        self._drums = drums
        self._holders: dict[int, set[int]] = {}  # pitch -> channels that hold it
        self._pedals: set[int] = set()  # channels with the pedal down

    @property
    def held(self) -> frozenset[int]:
        return frozenset(self._holders)

    @property
    def pedal(self) -> bool:
        return bool(self._pedals)

    def feed(self, time: float, message: Sequence[int]) -> list[Timed]:
        """One complete message (status and data bytes) at a time in seconds. Anything that is no music gives nothing."""
        if len(message) != 3 or not is_channel_message(message):
            return []
        kind, channel = message[0] & 0xF0, message[0] & 0x0F
        if channel == DRUMS and not self._drums:
            return []
        first, second = message[1], message[2]
        if kind == 0x90 and second:
            return self._strike(time, channel, first, second)
        if kind in (0x80, 0x90):
            return self._release(time, channel, first)
        if kind == 0xB0:
            return self._control(time, channel, first, second)
        return []

    def close(self, time: float) -> list[Timed]:
        """Releases whatever is still held, keys and pedal."""
        timed = [Timed(time, NOTE_OFF + pitch) for pitch in sorted(self._holders)]
        timed += [Timed(time, SUSTAIN_UP)] if self._pedals else []
        self._holders.clear()
        self._pedals.clear()
        return timed

    def _strike(self, time: float, channel: int, pitch: int, velocity: int) -> list[Timed]:
        again = [Timed(time, NOTE_OFF + pitch)] if pitch in self._holders else []
        self._holders.setdefault(pitch, set()).add(channel)
        return [*again, Timed(time, NOTE_ON + pitch, velocity)]

    def _release(self, time: float, channel: int, pitch: int) -> list[Timed]:
        holders = self._holders.get(pitch, set())
        holders.discard(channel)
        if pitch not in self._holders or holders:
            return []
        del self._holders[pitch]
        return [Timed(time, NOTE_OFF + pitch)]

    def _control(self, time: float, channel: int, number: int, value: int) -> list[Timed]:
        if number in (ALL_SOUND_OFF, ALL_NOTES_OFF):
            pitches = [pitch for pitch, holders in sorted(self._holders.items()) if channel in holders]
            return [one for pitch in pitches for one in self._release(time, channel, pitch)]
        if number not in (SUSTAIN, RESET_CONTROLLERS):
            return []
        was = bool(self._pedals)
        if number == SUSTAIN and value >= 64:
            self._pedals.add(channel)
        else:
            self._pedals.discard(channel)
        if bool(self._pedals) == was:
            return []
        return [Timed(time, SUSTAIN_UP if was else SUSTAIN_DOWN)]


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


def read_file(path: str | Path, *, drums: bool = False) -> list[Timed]:
    """All tracks of a MIDI file, merged, in seconds. Raises ``MidiFileError`` for anything that is no readable MIDI file, and for
    one that is larger or longer than music is.
    """
    import mido

    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise MidiFileError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MB, not read")
        if re.search(rb"[\x80-\xff]{4096}", path.read_bytes()):
            raise MidiFileError(f"{path}: not a readable MIDI file (a number without an end)")  # mido would take ages over it
        file = mido.MidiFile(path, clip=True)
        if file.ticks_per_beat <= 0:
            raise MidiFileError(f"{path}: its times are SMPTE frames or nothing at all, which is not supported")
        messages = list(file)
        if sum(message.time for message in messages) > LONGEST:
            raise MidiFileError(f"{path}: lasts longer than {LONGEST / 3600:g} hours, not read")
    except MidiFileError:
        raise
    except OSError as error:
        raise MidiFileError(f"{path}: {error.strerror or 'not a MIDI file'}") from error
    except Exception as error:  # mido raises many kinds for broken bytes
        raise MidiFileError(f"{path}: not a readable MIDI file ({str(error) or type(error).__name__})") from error
    reader = MessageReader(drums=drums)
    timed: list[Timed] = []
    now = 0.0
    for message in messages:
        now += message.time
        if not message.is_meta:
            timed += reader.feed(now, message.bytes())
    return timed + reader.close(now)


def write_file(path: str | Path, tracks: Iterable[tuple[str, Iterable[Timed]]]) -> None:
    """Named tracks of timed actions -> a type 1 MIDI file, one channel a track, 1 ms ticks (480 a beat at 125 bpm)."""
    import mido

    file = mido.MidiFile(type=1, ticks_per_beat=480)
    for channel, (name, timed) in enumerate(tracks):
        track = mido.MidiTrack()
        track.append(mido.MetaMessage("track_name", name=name))
        if channel == 0:
            track.append(mido.MetaMessage("set_tempo", tempo=480_000))
        tick = 0
        for one, message in _messages(timed, channel):
            now = max(tick, round(one.time * 1000))
            track.append(mido.Message.from_bytes(message, time=now - tick))
            tick = now
        file.tracks.append(track)
    file.save(path)


def _messages(timed: Iterable[Timed], channel: int) -> Iterator[tuple[Timed, tuple[int, int, int]]]:
    for one in timed:
        yield one, message_of(one.action, one.velocity, channel)
