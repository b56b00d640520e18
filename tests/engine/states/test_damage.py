"""Files that are damaged, forged or of another model are refused in one line."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load, save

from engine.config import ModelConfig
from engine.engine import Snapshot
from engine.events import MAX_WAIT, NO_VELOCITY, NOTE_OFF, REST, START, Event
from engine.rings import hidden_shape, ring_shapes
from engine.sounding import Sounding
from engine.states import (
    MAX_POSITION,
    StateError,
    checksum,
    load_state,
    save_state,
)
from tests.engine.states.snapshots import MODEL, TINY, random_state

anywhere = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def header_of(content: bytes, folder: Path) -> dict[str, Any]:
    (folder / "header").write_bytes(content)
    with safe_open(folder / "header", framework="numpy") as file:
        header: dict[str, Any] = json.loads(file.metadata()["state"])
    return header


def forged(content: bytes, text: str | dict[str, Any], **changes: Any) -> bytes:
    """A file with another header, or with one of its entries changed, and a valid checksum."""
    text = text if isinstance(text, str) else json.dumps(text | changes)
    tensors = load(content)
    return save(tensors, {"state": text, "sha256": checksum(text, tensors)})


def altered(state: Snapshot, folder: Path, **changes: Any) -> bytes:
    """The file of a state with changed fields."""
    save_state(state._replace(**changes), folder / "altered", model=MODEL)
    return (folder / "altered").read_bytes()


def check_refused(folder: Path, content: bytes, config: ModelConfig = TINY, model: str = MODEL, size: int = 0) -> str:
    """Checks that a file, extended to ``size`` bytes, is refused with a one-line error and little memory. Returns the error."""
    path = folder / "refused"
    path.write_bytes(content)
    os.truncate(path, max(size, len(content)))
    tracemalloc.start()
    with pytest.raises(StateError) as caught:
        load_state(path, config, model=model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@anywhere
@given(bits=st.sets(st.integers(0, 1 << 30), min_size=1, max_size=8))
def test_flipped_bits_are_detected(tmp_path: Path, saved: bytes, bits: set[int]) -> None:
    content = bytearray(saved)
    for bit in bits:
        content[bit // 8 % len(saved)] ^= 1 << bit % 8
    if bytes(content) != saved:
        check_refused(tmp_path, bytes(content))


def consistent(state: Snapshot, config: ModelConfig = TINY) -> bool:
    """Whether the parts of a loaded state fit together."""
    newest = state.moments[-1].sounding
    return (
        0 <= state.position <= state.high_water <= state.position + config.slack
        and len(state.moments) <= min(len(state.history), config.slack + 1)
        and len(state.history) <= state.position + 1
        and [moment.event for moment in state.moments] == list(state.history[-len(state.moments) :])
        and newest.step == state.before.step + sum(event.wait for event in state.history)
        and bool((newest.since <= newest.step).all())
        and all(0 <= e.wait <= MAX_WAIT and 0 <= e.velocity <= NO_VELOCITY for e in state.history)
        and [ring.shape for ring in state.rings] == [*ring_shapes(config), hidden_shape(config)]
        and all(np.isfinite(ring).all() for ring in state.rings)
    )


@anywhere
@given(
    bits=st.sets(st.integers(0, 1 << 30), min_size=1, max_size=8),
    name=st.sampled_from(["before", "history", "ring.0", "ring.1"]),
)
@example(bits={3}, name="history")
@example(bits={62}, name="before")
def test_a_forged_file_is_refused_or_gives_a_valid_state(tmp_path: Path, saved: bytes, bits: set[int], name: str) -> None:
    tensors = load(saved)
    content = tensors[name].reshape(-1).view(np.uint8)
    for bit in bits:
        content[bit // 8 % len(content)] ^= 1 << bit % 8
    text = json.dumps(header_of(saved, tmp_path))
    path = tmp_path / "forged"
    path.write_bytes(save(tensors, {"state": text, "sha256": checksum(text, tensors)}))
    try:
        loaded, extra = load_state(path, TINY, model=MODEL)
    except StateError as error:
        assert "\n" not in str(error)
    else:
        assert consistent(loaded)
        assert isinstance(extra, dict)


@anywhere
@given(length=st.integers(0, 1 << 30))
def test_a_truncated_file_is_refused(tmp_path: Path, saved: bytes, length: int) -> None:
    check_refused(tmp_path, saved[: length % len(saved)])


@anywhere
@given(
    content=st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda rest: (len(rest)).to_bytes(8, "little") + rest))
)
def test_random_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    check_refused(tmp_path, content)


def test_a_file_with_trailing_bytes_is_refused(tmp_path: Path, saved: bytes) -> None:
    check_refused(tmp_path, saved + b"\0")


def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nowhere", tmp_path / "folder", tmp_path / "pipe", tmp_path / "a\0b", Path(os.devnull)):
        with pytest.raises(StateError) as caught:
            load_state(path, TINY, model=MODEL)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ("position", [-1, 48, 1 << 63, 10**400, 1e3, True, None, "59", [59], math.nan]),
        ("high_water", [-1, 58, 68, 1 << 63, None]),
        ("history", [0, -1, 49, 51, 61, 1 << 20, 1 << 31, 1 << 62, 50.0, None]),
        ("moments", [0, -1, True, 10, 51, 1 << 40, None]),
        ("extra", [None, [], "x", 3]),
        ("format", [0, 1, 3, None]),
    ],
)
def test_impossible_header_values_are_refused(tmp_path: Path, saved: bytes, entry: str, values: list[object]) -> None:
    for value in values:
        check_refused(tmp_path, forged(saved, header_of(saved, tmp_path), **{entry: value}))


def test_a_position_over_the_limit_is_refused(tmp_path: Path, state: Snapshot) -> None:
    check_refused(tmp_path, altered(state, tmp_path, position=MAX_POSITION + 1, high_water=MAX_POSITION + 1))


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "[" * 60_000, '{"a":' * 10_000, "9" * 50_000, "\x00\x7f" * 9])
def test_a_header_that_is_not_a_json_object_is_refused(tmp_path: Path, saved: bytes, text: str) -> None:
    check_refused(tmp_path, forged(saved, text))


@pytest.mark.parametrize("length", [0, 1, 100, 1 << 31, 1 << 62, (1 << 64) - 1])
def test_a_wrong_header_length_is_refused(tmp_path: Path, saved: bytes, length: int) -> None:
    check_refused(tmp_path, length.to_bytes(8, "little") + saved[8:])


def test_a_file_without_metadata_or_checksum_is_refused(tmp_path: Path, saved: bytes) -> None:
    check_refused(tmp_path, save(load(saved)))
    check_refused(tmp_path, save(load(saved), {"state": json.dumps(header_of(saved, tmp_path))}))


def test_a_huge_file_is_refused(tmp_path: Path, saved: bytes) -> None:
    check_refused(tmp_path, saved, size=100 << 20)
    check_refused(tmp_path, forged(saved, header_of(saved, tmp_path), history=1 << 20, position=1 << 20, high_water=1 << 20))


@pytest.mark.parametrize(
    "wrong", [Event(101, REST), Event(-1, 60, 5), Event(0, 261), Event(0, -1), Event(0, 60), Event(0, 60, 40)]
)
def test_impossible_events_are_refused(tmp_path: Path, state: Snapshot, wrong: Event) -> None:
    check_refused(tmp_path, altered(state, tmp_path, history=(*state.history[:20], wrong, *state.history[21:])))


def test_a_note_off_with_a_velocity_is_refused(tmp_path: Path, state: Snapshot) -> None:
    check_refused(
        tmp_path, altered(state, tmp_path, history=(*state.history[:20], Event(0, NOTE_OFF + 60, 5), *state.history[21:]))
    )


def test_a_missing_or_misplaced_start_event_is_refused(tmp_path: Path, state: Snapshot) -> None:
    check_refused(tmp_path, altered(state, tmp_path, history=(Event(0, START), *state.history[1:])))
    complete = random_state(60)
    assert complete.history[0].action == START
    check_refused(tmp_path, altered(complete, tmp_path, history=(Event(0, REST), *complete.history[1:])))


def sounding(step: int, **since: int) -> Sounding:
    one = Sounding()
    one.step = step
    for key, when in since.items():
        one.since[int(key.removeprefix("key"))] = when
    return one


@pytest.mark.parametrize(
    "before", [sounding(-1), sounding(1001), sounding(20, key60=21), sounding(20, key128=-2), sounding(1 << 60)]
)
def test_impossible_keys_before_the_history_are_refused(tmp_path: Path, state: Snapshot, before: Sounding) -> None:
    assert state.position + 1 - len(state.history) == 10, "ten events, of at most 100 steps each, are no longer in the history"
    check_refused(tmp_path, altered(state, tmp_path, before=before))


@pytest.mark.parametrize("before", [sounding(1), sounding(0, key60=0)])
def test_keys_before_the_start_event_are_refused(tmp_path: Path, before: Sounding) -> None:
    check_refused(tmp_path, altered(random_state(60), tmp_path, before=before))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, -1])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, state: Snapshot, value: float, which: int) -> None:
    rings = [ring.copy() for ring in state.rings]
    rings[which].flat[7] = value
    check_refused(tmp_path, altered(state, tmp_path, rings=tuple(rings)))


@pytest.mark.parametrize(
    "change",
    [
        lambda rings: rings[:-1],
        lambda rings: (*rings, rings[-1]),
        lambda rings: (rings[0][:, 1:], *rings[1:]),
        lambda rings: (rings[0].astype(np.float64)[:, ::2], *rings[1:]),
    ],
)
def test_rings_of_another_size_are_refused(
    tmp_path: Path, state: Snapshot, change: Callable[[tuple[np.ndarray, ...]], tuple[np.ndarray, ...]]
) -> None:
    check_refused(tmp_path, altered(state, tmp_path, rings=change(state.rings)))


def test_a_history_longer_than_a_state_can_depend_on_is_refused(tmp_path: Path) -> None:
    longest = TINY.history
    save_state(random_state(longest + 50, kept=longest), tmp_path / "state", model=MODEL)
    load_state(tmp_path / "state", TINY, model=MODEL)
    check_refused(tmp_path, altered(random_state(longest + 50, kept=longest + 1), tmp_path))


def test_a_state_of_another_model_is_refused(tmp_path: Path, saved: bytes) -> None:
    assert "another model" in check_refused(tmp_path, saved, model="f" * 64)
    larger = dataclasses.replace(TINY, scales=(24, 128))
    assert "another model" in check_refused(tmp_path, saved, config=larger, model="f" * 64)
    check_refused(tmp_path, saved, config=larger)
