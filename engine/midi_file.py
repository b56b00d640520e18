"""MIDI files <-> timed actions.

Every command reads files with ``load``. ``to_timed_actions`` converts their messages; ``trainer.reading`` has a faster
implementation with the same result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.codec import LONGEST_SILENCE
from engine.errors import UserError
from engine.events import STEPS_PER_SECOND, Timed
from engine.midi import MessageReader, message_of
from engine.smf import Performance, UnreadableError, decode

log = logging.getLogger(__name__)

SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")
MAX_FILE_BYTES = 4 << 20  # ten times MAESTRO's longest piece
LONGEST = 24 * 3600.0  # seconds
LONGEST_WAIT = 0x0FFFFFFF  # ticks between two messages; the largest number that a file can hold


class MidiFileError(UserError, ValueError):
    """A MIDI file that cannot be read; the message is one line for the user."""


def read_file(path: str | Path, *, drums: bool = False) -> list[Timed]:
    """All tracks of a MIDI file, merged, in seconds. A damaged file is read up to the damage, with a warning. Raises
    ``MidiFileError`` if it cannot be read, or exceeds ``MAX_FILE_BYTES`` or ``LONGEST``.
    """
    performance = load(path)
    if performance.damage:
        log.warning("%s: damaged (%s), read as far as it goes", path, performance.damage)
    return to_timed_actions(performance, drums=drums)


def load(path: str | Path) -> Performance:
    """The messages of a MIDI file. Raises ``MidiFileError``: ``<path>: <reason>``."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES and not data.startswith(b"RIFF"):  # RIFF files may contain a sound bank after the music
            raise UnreadableError(f"larger than {MAX_FILE_BYTES >> 20} MB, not read")
        performance = decode(data)
    except UnreadableError as error:
        raise MidiFileError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: not a possible file name
        reason = getattr(error, "strerror", None) or error
        raise MidiFileError(f"{path}: cannot be read ({reason})") from error
    if len(performance.times) and performance.times[-1] > LONGEST:
        raise MidiFileError(f"{path}: lasts longer than {LONGEST / 3600:g} hours, not read")
    return performance


def to_timed_actions(performance: Performance, *, drums: bool = False) -> list[Timed]:
    """The timed actions of a file. Keys and pedal that are still down are released at ``closing_time``."""
    reader = MessageReader(drums=drums)
    timed: list[Timed] = []
    for time, message in zip(performance.times.tolist(), performance.messages.tolist(), strict=True):
        timed += reader.feed(time, message)
    return timed + reader.close(closing_time(performance))


def closing_time(performance: Performance) -> float:
    """When keys and pedal that are still down are released, in seconds: at the end of the longest track, but no later than
    ``LONGEST_SILENCE`` after the last message.
    """
    last = float(performance.times[-1]) if len(performance.times) else 0.0
    return min(performance.end, last + LONGEST_SILENCE / STEPS_PER_SECOND)


def write_file(path: str | Path, tracks: Iterable[tuple[str, Iterable[Timed]]]) -> None:
    """Named tracks of timed actions -> a type 1 MIDI file, one channel a track, 1 ms ticks (480 a beat at 125 bpm)."""
    import mido

    file = mido.MidiFile(type=1, ticks_per_beat=480)
    for channel, (name, timed) in enumerate(tracks):
        track = file.add_track(name.encode("latin-1", "replace").decode("latin-1"))
        if channel == 0:
            track.append(mido.MetaMessage("set_tempo", tempo=480_000))
        last = 0
        for tick, message in _messages(timed, channel):
            track.append(mido.Message.from_bytes(message, time=min(tick - last, LONGEST_WAIT)))
            last = tick
    file.save(path)


def _messages(timed: Iterable[Timed], channel: int) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Messages with their times in milliseconds, ascending."""
    tick = 0
    for one in timed:
        tick = max(tick, round(one.time * 1000))
        yield tick, message_of(one.action, one.velocity, channel)
