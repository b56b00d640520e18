"""Encoding and decoding is lossless for any split of the stream; invalid frames are refused before memory is allocated."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.remote.wire import DTYPES, MAX_AXES, Frame, FrameReader, Value, WireError, decode, encode

HEADER = 8
shapes = arrays.array_shapes(min_dims=0, max_dims=MAX_AXES, min_side=0, max_side=5)
values = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(sorted(DTYPES.values(), key=str)).flatmap(lambda dtype: arrays.arrays(dtype, shapes)),
)
frames = st.lists(st.tuples(st.integers(0, 255), st.lists(values, max_size=6)), max_size=5)


def same(a: Value, b: Value) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("d", a) == struct.pack("d", b)
    return type(a) is type(b) and a == b


def no_limit(_: int) -> int:
    return 1 << 20


def all_frames(reader: FrameReader) -> list[Frame]:
    return list(iter(lambda: reader.next(no_limit), None))


@given(frames, st.data())
def test_frames_are_decoded_from_a_stream_split_anywhere(sent: list[tuple[int, list[Value]]], data: st.DataObject) -> None:
    stream = b"".join(encode(kind, *parts) for kind, parts in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, arrived = FrameReader(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[begin:end])
        arrived += all_frames(reader)
    assert len(arrived) == len(sent)
    for (kind, parts), frame in zip(sent, arrived, strict=True):
        assert frame.kind == kind
        assert all(map(same, parts, frame.values))
        assert len(parts) == len(frame.values)


@given(st.binary(max_size=200))
def test_any_body_is_decoded_or_refused(body: bytes) -> None:
    try:
        found = decode(body)
    except WireError:
        return
    assert encode(0, *found)[HEADER:] == body or any(isinstance(one, float) and math.isnan(one) for one in found)


@given(st.lists(values, min_size=1, max_size=4), st.data())
def test_a_truncated_body_is_refused(parts: list[Value], data: st.DataObject) -> None:
    body = encode(0, *parts)[HEADER:]
    whole = {0, *(len(encode(0, *parts[:count])) - HEADER for count in range(len(parts) + 1))}
    end = data.draw(st.integers(0, len(body)).filter(lambda end: end not in whole) if len(body) > len(parts) else st.none())
    if end is not None:
        with pytest.raises(WireError):
            decode(body[:end])


@given(st.binary(max_size=40))
def test_any_stream_is_decoded_or_refused(data: bytes) -> None:
    reader = FrameReader()
    reader.feed(data)
    try:
        assert sum(len(encode(*one[:1], *one.values)) for one in all_frames(reader)) <= len(data)
    except WireError as error:
        assert str(error).isprintable()


def test_arrays_arrive_writable_and_aligned() -> None:
    body = encode(1, "odd", np.arange(5, dtype=np.float32))[HEADER:]
    array = decode(body)[1]
    assert isinstance(array, np.ndarray)
    assert array.flags.writeable
    assert array.flags.aligned


def test_a_frame_over_its_limit_is_refused_when_its_header_arrives() -> None:
    for kind, allowed in ((1, 99), (2, -1)):
        reader = FrameReader()
        reader.feed(encode(kind, "x" * 95)[:HEADER] if kind == 1 else encode(kind)[:HEADER])
        with pytest.raises(WireError, match="allowed are"):
            reader.next(lambda kind, allowed=allowed: allowed)


@pytest.mark.parametrize("value", [1 << 63, np.zeros(2, np.float64), np.zeros((1,) * 5, np.float32), np.zeros(2, ">f4")])
def test_values_that_the_format_cannot_hold_are_refused(value: Value) -> None:
    with pytest.raises(WireError):
        encode(1, value)
