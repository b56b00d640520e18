"""Standard MIDI files: bytes -> what they play, in seconds.

The reader is as tolerant as common players. Only a file without a header, a valid time division or a track is rejected. Other
chunks are skipped, the header's number of tracks is ignored, and meta events (except tempo and end of track) and system
exclusive messages are skipped whatever they contain. A damaged track is read up to the damage. Time and memory are linear in the
number of bytes.

Source: MIDI 1.0 Detailed Specification, Standard MIDI Files 1.0 (RP-001); RMID files (RP-029).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BEAT = 500_000  # microseconds, until a tempo is given
FRAMES = {24: 24.0, 25: 25.0, 29: 30_000 / 1001, 30: 30.0}  # SMPTE frames a second
META = 0xFF
END_OF_TRACK, TEMPO = 0x2F, 0x51
LAST_TICK = 1 << 38  # nine years of milliseconds; with the message in 24 bits it fits into an int64
DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # of system messages, which should not occur in a file; all others have none


class UnreadableError(ValueError):
    """Not a MIDI file, or nothing in it can be read; the message is the reason, in a few words."""


class Performance(NamedTuple):
    """The notes, controllers and pitch bends of a file. Messages with the same time are in the order of the file."""

    times: np.ndarray  # [n] float64, seconds, ascending
    messages: np.ndarray  # [n, 3] int64: status and two data bytes; the first data byte is above 127 if it is damaged
    end: float  # seconds, where the longest track ends
    damage: str  # why some of the file was not read; empty if all was


class _Track(NamedTuple):
    messages: list[int]  # tick, status and two data bytes: 40, 8, 8 and 8 bits
    tempos: list[tuple[int, int]]  # ticks, and microseconds a beat from there on
    end: int  # tick
    damage: str


class _DamageError(Exception):
    """The rest of a track cannot be read; the message is the reason."""


def decode(data: bytes) -> Performance:
    """A whole file, also one wrapped in RIFF, all tracks merged. Raises ``UnreadableError``."""
    data = _unwrapped(data)
    begin = data.find(b"MThd")
    if begin < 0 or len(data) < begin + 14:
        raise UnreadableError("not a MIDI file (no complete MThd header)")
    one_by_one = int.from_bytes(data[begin + 8 : begin + 10], "big") == 2  # format 2: tracks follow one another
    tracks: list[_Track] = []
    for chunk in _chunks(data, begin):
        tracks.append(_read(chunk, tracks[-1].end if tracks and one_by_one else 0))
    if not tracks:
        raise UnreadableError("no tracks in it")
    damage = next((track.damage for track in tracks if track.damage), "")
    packed = np.array([message for track in tracks for message in track.messages], np.int64)
    if damage and not len(packed):
        raise UnreadableError(damage)
    packed = packed[np.argsort(packed >> 24, kind="stable")]
    tempos = sorted((tempo for track in tracks for tempo in track.tempos), key=lambda tempo: tempo[0])
    ticks = np.append(packed >> 24, max(track.end for track in tracks))
    times = _seconds(ticks, tempos, int.from_bytes(data[begin + 12 : begin + 14], "big"))
    return Performance(times[:-1], packed[:, None] >> [16, 8, 0] & 0xFF, float(times[-1]), damage)


def _seconds(ticks: np.ndarray, tempos: list[tuple[int, int]], division: int) -> np.ndarray:
    """Ticks -> seconds. ``division``: ticks a beat, or SMPTE frames a second (negative) and ticks a frame, without tempo."""
    frames, of_frame = FRAMES.get(256 - (division >> 8)), division & 0xFF
    if frames and of_frame:
        return np.asarray(ticks / (frames * of_frame))
    if not 0 < division < 0x8000:
        raise UnreadableError(f"invalid time division {division:#06x}")
    begin, beat = np.array([(0, BEAT), *tempos]).T
    length = beat / (1e6 * division)  # seconds a tick
    reached = np.concatenate(([0.0], np.cumsum(np.diff(begin) * length[:-1])))
    part = np.searchsorted(begin, ticks, side="right") - 1
    return np.asarray(reached[part] + (ticks - begin[part]) * length[part])


def _unwrapped(data: bytes) -> bytes:
    """The MIDI file in a RIFF container, whose numbers are little-endian; other data is returned unchanged."""
    at = 12
    while data.startswith(b"RIFF") and at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data.startswith(b"data", at):
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return data


def _chunks(data: bytes, at: int) -> Iterator[bytes]:
    """The content of each track from ``at`` on. If a chunk's length does not lead to another chunk, it ends at the next track."""
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        if not _begins_chunk(data, end):
            after = data.find(b"MTrk", at + 8)
            end = after if after >= 0 else len(data)
        if data.startswith(b"MTrk", at):
            yield data[at + 8 : end]
        at = end


def _begins_chunk(data: bytes, at: int) -> bool:
    name = data[at : at + 4]
    if at == len(data) or name == b"MTrk":
        return True
    fits = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big") <= len(data)
    return fits and name.isascii() and name.decode("ascii").isprintable()


def _read(data: bytes, tick: int) -> _Track:
    """A track that begins at ``tick``. Running status continues after meta events, as in most players."""
    messages: list[int] = []
    tempos: list[tuple[int, int]] = []
    at = status = 0
    damage = ""
    try:
        while at >= 0:
            wait = data[at]
            if wait < 0x80:
                at += 1
                tick += wait
            else:
                wait, at = _number(data, at)
                if tick + wait > LAST_TICK:
                    raise _DamageError("delta time too large")
                tick += wait
            if data[at] >= 0xF0:
                at, tempo = _skip(data, at)
                if tempo:
                    tempos.append((tick, tempo))
                continue
            if data[at] >= 0x80:
                status = data[at]
                at += 1
            if not status:
                raise _DamageError("data byte without running status")
            if 0xC0 <= status < 0xE0:
                at += 1
                continue
            second = data[at + 1]
            messages.append(tick << 24 | status << 16 | data[at] << 8 | (second if second < 0x80 else 0x7F))
            at += 2
    except IndexError:
        damage = "truncated track"
    except _DamageError as error:
        damage = str(error)
    return _Track(messages, tempos, tick, damage)


def _skip(data: bytes, at: int) -> tuple[int, int]:
    """Skips a meta or system message. Returns where it ends (-1: end of the track), and the new tempo (0: unchanged)."""
    status = data[at]
    if status not in (0xF0, 0xF7, META):
        return at + 1 + DATA_BYTES.get(status, 0), 0
    kind = data[at + 1] if status == META else None
    if kind == END_OF_TRACK:
        return -1, 0
    size, begin = _number(data, at + (1 if kind is None else 2))
    end = begin + size
    if end > len(data):
        raise IndexError(end)
    return end, int.from_bytes(data[begin:end], "big") if kind == TEMPO and size == 3 else 0


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length quantity of one to four bytes, and where it ends."""
    value = 0
    for end in range(at + 1, at + 5):
        value = value << 7 | data[end - 1] & 0x7F
        if data[end - 1] < 0x80:
            return value, end
    raise _DamageError("unterminated variable-length quantity")
