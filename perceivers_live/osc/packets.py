"""Strict reading of OSC packets: messages, and bundles with their times.

python-osc reads single messages only: its bundle reader never returns from a negative size, recurses as deep as it is told, and
logs every oddity to the root logger.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pythonosc.osc_message import OscMessage, ParseError

from perceivers_live.controls.registry import shown

MAX_DATAGRAM = 4096  # bytes; the longest useful message is a tenth of it
_MAX_DEPTH, _MAX_MESSAGES = 8, 256  # in one bundle
_KNOWN_TAGS = b",ihfdsSbrmtTFNI[]"
# What python-osc lacks, read as what it has: an impulse as nil, a symbol as a string. A colour is four bytes, not a number.
_READ_AS = bytes.maketrans(b"ISr", b"Nsm")
_TO_1970 = 2_208_988_800  # seconds from 1900, where time tags begin


class Message(NamedTuple):
    """``due``: when to follow it, in seconds since 1970; 0: at once."""

    address: str
    values: list[Any]
    due: float = 0.0


class Malformed(NamedTuple):
    """A message that cannot be read; those beside it in its bundle can."""

    reason: str


def messages_of(datagram: bytes) -> list[Message | Malformed]:
    """The messages of a packet, bundles opened, in order. Of two nested bundles the later time counts.

    Raises:
        ValueError: larger than any sensible packet; or a bundle so broken that it does not show where its messages begin.
    """
    if len(datagram) > MAX_DATAGRAM:
        raise ValueError(f"longer than {MAX_DATAGRAM} bytes")
    messages: list[Message | Malformed] = []
    waiting = [(datagram, 0, 0.0)]
    while waiting:
        packet, depth, due = waiting.pop()
        if packet.startswith(b"#bundle\0") and depth < _MAX_DEPTH:
            due = max(due, _time(packet))
            waiting.extend((element, depth + 1, due) for element in reversed(_elements(packet)))
        else:
            messages.append(_message(packet, due))
        if len(messages) + len(waiting) > _MAX_MESSAGES:
            raise ValueError(f"more than {_MAX_MESSAGES} messages")
    return messages


def _message(packet: bytes, due: float) -> Message | Malformed:
    if not packet.startswith(b"/"):
        return Malformed(f"found {shown(packet[:16])} where a message or a bundle begins")
    tags_at = (packet.find(b"\0") // 4 + 1) * 4
    tags = packet[tags_at : packet.find(b"\0", tags_at)]
    if tags.translate(None, _KNOWN_TAGS):
        return Malformed(f"type tags {shown(tags)}")
    try:
        read = OscMessage(packet[:tags_at] + tags.translate(_READ_AS) + packet[tags_at + len(tags) :])
    except (ParseError, ValueError, ArithmeticError) as error:
        return Malformed(str(error))
    return Message(read.address, read.params, due)


def _time(bundle: bytes) -> float:
    """A bundle's time tag in seconds since 1970; 0 for the tag that means at once, and for what is earlier."""
    if len(bundle) < 16:  # "#bundle", its NUL, the time tag
        raise ValueError("a bundle without a time tag")
    return max(0.0, int.from_bytes(bundle[8:16], "big") / 2**32 - _TO_1970)


def _elements(bundle: bytes) -> list[bytes]:
    elements, at = [], 16
    while at < len(bundle):
        size = int.from_bytes(bundle[at : at + 4], "big", signed=True)
        if size <= 0 or at + 4 + size > len(bundle):
            raise ValueError(f"a bundle element of {size} bytes")
        elements.append(bundle[at + 4 : at + 4 + size])
        at += 4 + size
    return elements
