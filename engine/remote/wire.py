"""Frames on a byte stream: a kind and a few values. Received data cannot run code, and memory for it is limited.

    frame   magic "PL", kind (1 byte), a zero byte, length of the body (4 bytes), body
    body    values, one after the other, each a tag and its content

    n  None
    i  integer, 8 bytes
    f  float, 8 bytes
    s  text: length in bytes (4 bytes), UTF-8
    a  array: element type (1 byte, see ``DTYPES``), number of axes (1 byte), length of each (4 bytes), elements in C order

All numbers are little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MAGIC = b"PL"
DTYPES: dict[int, np.dtype[Any]] = {ord("f"): np.dtype("<f4"), ord("h"): np.dtype("<i2"), ord("q"): np.dtype("<i8")}
MAX_AXES = 4
READ_BYTES = 1 << 16  # of a pipe at once; a larger buffer would be allocated and freed by the system at each read
_CODES: dict[np.dtype[Any], int] = {dtype: code for code, dtype in DTYPES.items()}
_HEADER = struct.Struct("<2sBBI")
_INT, _FLOAT, _LENGTH, _ARRAY = (struct.Struct(f"<{format}") for format in ("q", "d", "I", "BB"))
_AXES = [struct.Struct(f"<{count}I") for count in range(MAX_AXES + 1)]

Value = int | float | str | np.ndarray | None


class WireError(ValueError):
    """Received bytes that are not a frame, or a frame that is too large."""


class Frame(NamedTuple):
    kind: int  # 0..255
    values: tuple[Value, ...]


def encode(kind: int, *values: Value) -> bytes:
    """A frame as bytes. Raises ``WireError`` for values that the format cannot hold."""
    parts = [b""]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif isinstance(value, np.ndarray):
            parts += _encoded_array(value)
        elif isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 63:
                raise WireError(f"{value} takes more than 8 bytes")
            parts += b"i", _INT.pack(value)
        elif isinstance(value, float):
            parts += b"f", _FLOAT.pack(value)
        else:
            text = value.encode("utf-8", "replace")
            parts += b"s", _LENGTH.pack(len(text)), text
    length = sum(map(len, parts))
    if length >= 1 << 32:
        raise WireError(f"{length} bytes are too many for a frame")
    parts[0] = _HEADER.pack(MAGIC, kind, 0, length)
    return b"".join(parts)


def _encoded_array(array: np.ndarray) -> tuple[bytes, ...]:
    code = _CODES.get(array.dtype)
    if code is None or array.ndim > MAX_AXES:
        raise WireError(f"an array with {array.ndim} axes of {array.dtype} cannot be sent")
    return b"a", _ARRAY.pack(code, array.ndim), _AXES[array.ndim].pack(*array.shape), array.tobytes()


def decode(body: bytes | bytearray) -> tuple[Value, ...]:
    """The values of a frame's body. Arrays are copies, writable and aligned. Raises ``WireError``."""
    values: list[Value] = []
    at = 0
    try:
        while at < len(body):
            value, at = _decoded(body, at)
            values.append(value)
    except (struct.error, ValueError) as error:  # truncated; not UTF-8; a shape with too many elements
        raise WireError(f"damaged frame ({error})") from error
    return tuple(values)


def _decoded(body: bytes | bytearray, at: int) -> tuple[Value, int]:
    """The value at offset ``at``, and the offset of the next one."""
    tag, at = body[at], at + 1
    if tag == ord("a"):
        return _decoded_array(body, at)
    if tag == ord("i"):
        return _INT.unpack_from(body, at)[0], at + _INT.size
    if tag == ord("f"):
        return _FLOAT.unpack_from(body, at)[0], at + _FLOAT.size
    if tag == ord("s"):
        begin = at + _LENGTH.size
        end = begin + _LENGTH.unpack_from(body, at)[0]
        if end > len(body):
            raise WireError("truncated text")
        return body[begin:end].decode(), end
    if tag == ord("n"):
        return None, at
    raise WireError(f"unknown tag {tag}")


def _decoded_array(body: bytes | bytearray, at: int) -> tuple[np.ndarray, int]:
    code, axes = _ARRAY.unpack_from(body, at)
    if code not in DTYPES or axes > MAX_AXES:
        raise WireError(f"unknown array: {axes} axes of type {code}")
    at += _ARRAY.size
    shape = _AXES[axes].unpack_from(body, at)
    at += _AXES[axes].size
    dtype, count = DTYPES[code], math.prod(shape)
    end = at + count * dtype.itemsize
    if end > len(body):
        raise WireError("truncated array")
    if not count:
        return np.zeros(shape, dtype), end
    return np.frombuffer(body, dtype, count, at).reshape(shape).copy(), end


class FrameReader:
    """Assembles frames from pieces of a stream: ``feed`` received bytes, then call ``next`` until it returns None."""

    def __init__(self) -> None:
        self._arrived = bytearray()

    def feed(self, data: bytes) -> None:
        self._arrived += data

    def next(self, limit: Callable[[int], int]) -> Frame | None:
        """The next frame, None if it is not complete yet. ``limit``: kind -> largest body in bytes, -1 for an unexpected kind.
        Raises ``WireError``, for a body that is too large as soon as its header has arrived.
        """
        arrived = self._arrived
        if len(arrived) < _HEADER.size:
            if arrived[: len(MAGIC)] != MAGIC[: len(arrived)]:
                raise WireError(f"not a frame: {bytes(arrived)!r}")
            return None
        magic, kind, zero, length = _HEADER.unpack_from(arrived)
        if magic != MAGIC or zero:
            raise WireError(f"not a frame: {bytes(arrived[:40])!r}")
        allowed = limit(kind)
        if length > allowed:
            raise WireError(f"a frame of kind {kind} has {length} bytes, allowed are {allowed}")
        end = _HEADER.size + length
        if len(arrived) < end:
            return None
        body = bytes(memoryview(arrived)[_HEADER.size : end])
        del arrived[:end]
        return Frame(kind, decode(body))
