"""Ages of keys and pedal, event by event and in bulk, and legal actions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.codec import encode
from engine.events import (
    ACTIONS,
    END,
    MAX_WAIT,
    NOTE_OFF,
    NOTE_ON,
    PITCHES,
    REST,
    START,
    START_EVENT,
    SUSTAIN_DOWN,
    SUSTAIN_UP,
    Event,
)
from engine.sounding import AGES, MAX_AGE, PEDAL, Sounding, ages_of, legal_actions
from tests.music import improvise, improvise_timed

bounded = settings(max_examples=60, deadline=None, derandomize=True)

KEYS = [0, 1, 60, 61, 126, 127]
KINDS = [*(NOTE_ON + key for key in KEYS), *(NOTE_OFF + key for key in KEYS), SUSTAIN_DOWN, SUSTAIN_UP, REST, START, END]
ANY_EVENT = st.tuples(st.integers(0, MAX_WAIT), st.sampled_from(KINDS)).map(
    lambda drawn: Event(drawn[0], drawn[1], 16 if drawn[1] < NOTE_OFF else 32)
)


def one_by_one(events: list[Event]) -> np.ndarray:
    sounding, ages = Sounding(), []
    for event in events:
        sounding.apply(event)
        ages.append(sounding.ages())
    return np.stack(ages)


@bounded
@given(st.lists(ANY_EVENT, min_size=1, max_size=60), st.sets(st.integers(0, 59)))
def test_bulk_ages_equal_those_event_by_event(events: list[Event], chosen: set[int]) -> None:
    rows = np.array(sorted(row for row in chosen if row < len(events)), np.int64)
    bulk = ages_of(np.array(events, np.int16), rows)
    assert bulk.dtype == np.int16
    assert bulk.shape == (len(rows), AGES)
    assert np.array_equal(bulk, one_by_one(events)[rows])
    assert np.array_equal(ages_of(np.array(events, np.int16)), one_by_one(events))


@pytest.mark.parametrize("first", [0, 1, 700, 1999, 2000])
def test_bulk_ages_from_the_middle_equal_those_event_by_event(first: int) -> None:
    events = improvise(2000, seed=4)
    assert np.array_equal(ages_of(np.array(events, np.int16), np.arange(first, 2000)), one_by_one(events)[first:])


def test_ages_count_steps_from_the_strike_up_to_a_maximum() -> None:
    sounding = Sounding()
    sounding.apply(START_EVENT)
    assert (sounding.ages() == -1).all()
    sounding.apply(Event(0, NOTE_ON + 60, 16))
    sounding.apply(Event(30, SUSTAIN_DOWN))
    sounding.apply(Event(12, NOTE_ON + 64, 16))
    assert {int(key): int(sounding.ages()[key]) for key in np.flatnonzero(sounding.ages() >= 0)} == {60: 42, 64: 0, PEDAL: 12}
    assert sounding.held().tolist() == [60, 64]
    assert sounding.pedal
    sounding.apply(Event(8, NOTE_OFF + 60))
    sounding.apply(Event(0, SUSTAIN_UP))
    assert sounding.held().tolist() == [64]
    assert not sounding.pedal
    for _ in range(400):
        sounding.apply(Event(MAX_WAIT, REST))
    assert sounding.step == 50 + 400 * MAX_WAIT
    assert sounding.ages()[64] == MAX_AGE
    assert sounding.ages()[60] == -1


def test_ages_do_not_overflow_after_a_day() -> None:
    events = [START_EVENT, Event(0, NOTE_ON + 60, 16), *[Event(MAX_WAIT, REST)] * 86_400, Event(5, NOTE_ON + 62, 16)]
    ages = ages_of(np.array(events, np.int16), np.arange(len(events) - 2, len(events)))
    assert ages[:, 60].tolist() == [MAX_AGE, MAX_AGE]
    assert ages[:, 62].tolist() == [-1, 0]


def test_a_copy_is_independent() -> None:
    sounding = Sounding()
    sounding.apply(Event(0, NOTE_ON + 60, 16))
    other = sounding.copy()
    other.apply(Event(10, NOTE_OFF + 60))
    assert (sounding.step, other.step) == (0, 10)
    assert (sounding.held().tolist(), other.held().tolist()) == ([60], [])


@bounded
@given(st.sets(st.integers(0, PITCHES - 1)), st.booleans(), st.integers(0, 500))
def test_legal_actions_follow_from_keys_and_pedal(down: set[int], pedal: bool, wait: int) -> None:
    sounding = Sounding()
    for key in down:
        sounding.apply(Event(0, NOTE_ON + key, 16))
    if pedal:
        sounding.apply(Event(0, SUSTAIN_DOWN))
    for _ in range(wait // MAX_WAIT):
        sounding.apply(Event(MAX_WAIT, REST))
    legal = set(np.flatnonzero(legal_actions(sounding.down())).tolist())
    expected = {NOTE_OFF + key if key in down else NOTE_ON + key for key in range(PITCHES)}
    assert legal == expected | {SUSTAIN_UP if pedal else SUSTAIN_DOWN, REST, END}


def test_bulk_legal_actions_equal_those_one_by_one() -> None:
    down = ages_of(np.array(improvise(300, seed=6), np.int16)) >= 0
    bulk = legal_actions(down.reshape(3, 100, AGES))
    assert bulk.shape == (3, 100, ACTIONS)
    assert np.array_equal(bulk.reshape(300, ACTIONS), np.stack([legal_actions(one) for one in down]))


@pytest.mark.parametrize("seed", range(4))
def test_every_event_of_legal_music_is_legal(seed: int) -> None:
    events = np.array(encode(improvise_timed(1500, seed=seed), end=True), np.int16)
    legal = legal_actions(ages_of(events) >= 0)
    assert legal[np.arange(len(events) - 1), events[1:, 1]].all()


def test_the_start_action_is_never_legal() -> None:
    assert not legal_actions(ages_of(np.array(improvise(100, seed=7), np.int16)) >= 0)[:, START].any()
