"""MIDI files built from bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

END = b"\x00\xff\x2f\x00"


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack(">L", len(data)) + data


def header(tracks: int, *, kind: int = 1, division: int = 480, more: bytes = b"") -> bytes:
    return chunk(b"MThd", struct.pack(">HHH", kind, tracks, division) + more)


def midi_bytes(*tracks: bytes, kind: int = 1, division: int = 480) -> bytes:
    """A file of these tracks, each with an end."""
    return header(len(tracks), kind=kind, division=division) + b"".join(chunk(b"MTrk", track + END) for track in tracks)


def number(value: int) -> bytes:
    """A variable-length quantity, as for delta times and lengths: seven bits a byte."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))


def track_bytes(events: Iterable[tuple[int, Sequence[int]]]) -> bytes:
    """Events, each after its delta time in ticks."""
    return b"".join(number(wait) + bytes(event) for wait, event in events)


def riff(data: bytes, *before: bytes) -> bytes:
    """A file wrapped as .rmi files are, after other RIFF chunks."""
    content = b"RMID" + b"".join(before) + b"data" + struct.pack("<L", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<L", len(content)) + content
