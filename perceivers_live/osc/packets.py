"""Strict parser of OSC packets: messages, and bundles with time tags.

python-osc parses only the single messages here. Its bundle parser does not return from a negative element size, has no limit of
the nesting depth, and logs every malformed packet to the root logger.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pythonosc.osc_message import OscMessage, ParseError

from engine.text import shown

MAX_DATAGRAM = 4096  # bytes; the longest useful message has a tenth of that
_MAX_DEPTH, _MAX_MESSAGES = 8, 256  # in one bundle
_KNOWN_TAGS = b",ihfdsSbrmtTFNI[]"
# Type tags that python-osc lacks are parsed as others: an impulse as nil, a symbol as a string, a colour as MIDI (four bytes).
_PARSED_AS = bytes.maketrans(b"ISr", b"Nsm")
_NTP_TO_UNIX = 2_208_988_800  # seconds from 1900, the epoch of time tags, to 1970


class Message(NamedTuple):
    """An OSC message. ``due``: time at which it takes effect, in seconds since 1970; 0: immediately."""

    address: str
    values: list[Any]
    due: float = 0.0


class Malformed(NamedTuple):
    """A message that cannot be parsed. The other messages of its bundle are not affected."""

    reason: str


def messages_of(datagram: bytes) -> list[Message | Malformed]:
    """Parses a packet; returns its messages, including those of nested bundles, in order. The latest time tag of the enclosing
    bundles applies.

    Raises:
        ValueError: the packet exceeds a limit, or a bundle is so damaged that its elements cannot be located.
    """
    if len(datagram) > MAX_DATAGRAM:
        raise ValueError(f"longer than {MAX_DATAGRAM} bytes")
    messages: list[Message | Malformed] = []
    stack = [(datagram, 0, 0.0)]
    while stack:
        packet, depth, due = stack.pop()
        if packet.startswith(b"#bundle\0") and depth < _MAX_DEPTH:
            due = max(due, _time(packet))
            stack.extend((element, depth + 1, due) for element in reversed(_elements(packet)))
        else:
            messages.append(_message(packet, due))
        if len(messages) + len(stack) > _MAX_MESSAGES:
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
        parsed = OscMessage(packet[:tags_at] + tags.translate(_PARSED_AS) + packet[tags_at + len(tags) :])
    except (ParseError, ValueError, ArithmeticError) as error:
        return Malformed(str(error))
    return Message(parsed.address, parsed.params, due)


def _time(bundle: bytes) -> float:
    """A bundle's time tag in seconds since 1970; 0 for the tag "immediately" and for times before 1970."""
    if len(bundle) < 16:  # "#bundle", its NUL, the time tag
        raise ValueError("a bundle without a time tag")
    return max(0.0, int.from_bytes(bundle[8:16], "big") / 2**32 - _NTP_TO_UNIX)


def _elements(bundle: bytes) -> list[bytes]:
    elements, at = [], 16
    while at < len(bundle):
        size = int.from_bytes(bundle[at : at + 4], "big", signed=True)
        if size <= 0 or at + 4 + size > len(bundle):
            raise ValueError(f"a bundle element of {size} bytes")
        elements.append(bundle[at + 4 : at + 4 + size])
        at += 4 + size
    return elements
