"""Strict parsing of the messages from a page."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceivers_live.page.protocol import (
    MAX_FRAME,
    ChoosePort,
    Command,
    Midi,
    Ping,
    ProtocolError,
    SetControl,
    frame,
    parse,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "ping", "sent": 12.5}', Ping(12.5)),
        ('{"type": "set", "name": "temperature", "value": 1.1}', SetControl("temperature", 1.1)),
        ('{"type": "set", "name": "hold", "value": true}', SetControl("hold", True)),
        ('{"type": "set", "name": "mode", "value": "duet"}', SetControl("mode", "duet")),
        ('{"type": "command", "name": "save", "arguments": ["intro"]}', Command("save", ("intro",))),
        ('{"type": "midi", "time": 1, "message": [144, 60, 80]}', Midi(1.0, (144, 60, 80))),
        ('{"type": "port", "direction": "output", "name": ""}', ChoosePort("output", "")),
    ],
)
def test_valid_messages_are_parsed(text: str, message: object) -> None:
    assert parse(text) == message
    assert parse(text.encode()) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"type": "dance"}',
        '{"type": ["ping"]}',
        '{"type": "ping"}',
        '{"type": "ping", "sent": "now"}',
        '{"type": "ping", "sent": true}',
        '{"type": "ping", "sent": NaN}',
        '{"type": "ping", "sent": Infinity}',
        '{"type": "ping", "sent": 1e999}',
        f'{{"type": "ping", "sent": {"9" * 3000}}}',
        '{"type": "ping", "sent": 1, "more": 2}',
        '{"type": "set", "name": 5, "value": 1}',
        '{"type": "set", "name": "temperature", "value": null}',
        '{"type": "set", "name": "temperature", "value": [1]}',
        f'{{"type": "set", "name": "{"x" * 201}", "value": 1}}',
        '{"type": "set", "name": "a\\nb", "value": 1}',
        '{"type": "command", "name": "save", "arguments": "intro"}',
        '{"type": "command", "name": "save", "arguments": [1, 2, 3, 4, 5]}',
        '{"type": "command", "name": "save", "arguments": [{}]}',
        '{"type": "midi", "time": 1, "message": [144, 60]}',
        '{"type": "midi", "time": 1, "message": [144, 60, 128]}',
        '{"type": "midi", "time": 1, "message": [248, 60, 1]}',
        '{"type": "midi", "time": 1, "message": [144, 60.0, 80]}',
        '{"type": "midi", "time": 1, "message": [144, true, 80]}',
        '{"type": "midi", "time": 1, "message": []}',
        '{"type": "port", "direction": "sideways", "name": "x"}',
        "[" * 2000,
        " " * (MAX_FRAME + 1),
    ],
)
def test_invalid_messages_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 200


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(content: bytes) -> None:
    try:
        parse(content)
    except ProtocolError as error:
        assert str(error).isprintable()


_json = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(["ping", "set", "command", "midi", "port"]), st.lists(_json, min_size=2, max_size=2))
def test_any_field_values_are_parsed_or_refused(kind: str, values: list[object]) -> None:
    names = {"ping": ["sent"], "set": ["name", "value"], "command": ["name", "arguments"]}
    names |= {"midi": ["time", "message"], "port": ["direction", "name"]}
    try:
        parse(json.dumps({"type": kind, **dict(zip(names[kind], values, strict=False))}))
    except ProtocolError as error:
        assert str(error).isprintable()


def test_frame_is_json_without_nan() -> None:
    assert json.loads(frame([{"type": "turn", "state": "playing"}])) == [{"type": "turn", "state": "playing"}]
    with pytest.raises(ValueError, match="JSON"):
        frame([{"type": "health", "figures": {"x": float("nan")}}])
