"""Timed actions <-> events: streaming and bulk encoding are equal, times are exact to half a step without drift."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.codec import decode, encode, encode_arrays, events_after_gap, extend_pedal, to_step, tokens_388
from engine.events import (
    END,
    MAX_WAIT,
    NO_VELOCITY,
    NOTE_OFF,
    NOTE_ON,
    REST,
    START,
    START_EVENT,
    SUSTAIN_DOWN,
    SUSTAIN_UP,
    Event,
    Timed,
    bin_velocity,
    velocity_bin,
)

HALF_STEP = 0.005 + 1e-9
bounded = settings(max_examples=80, deadline=None, derandomize=True)

GAPS = st.one_of(
    st.floats(0, 0.03),
    st.floats(0, 5),
    st.sampled_from([0.0, 0.005, 0.01, 0.015, 0.99, 0.995, 1.0, 1.005, 1.01, 2.0, 2.5, 61.0]),
)


@st.composite
def performances(draw: st.DrawFn) -> list[Timed]:
    """Clean music: legal, in time order, starting anywhere."""
    now, held, pedal = draw(st.floats(0, 10_000)), [], False
    timed: list[Timed] = []
    for gap, pitch, velocity, kind in draw(
        st.lists(st.tuples(GAPS, st.integers(58, 63), st.integers(1, 127), st.integers(0, 3)), max_size=40)
    ):
        now += gap
        if kind == 0:
            pedal = not pedal
            timed.append(Timed(now, SUSTAIN_DOWN if pedal else SUSTAIN_UP))
        elif pitch in held:
            held.remove(pitch)
            timed.append(Timed(now, NOTE_OFF + pitch))
        else:
            held.append(pitch)
            timed.append(Timed(now, NOTE_ON + pitch, velocity))
    return timed


def in_bulk(timed: list[Timed], *, end: bool = False) -> list[Event]:
    columns = (
        np.array([one.time for one in timed], np.float64),
        np.array([one.action for one in timed], np.int64),
        np.array([one.velocity for one in timed], np.int64),
    )
    return [Event(*row) for row in encode_arrays(*columns, end=end).tolist()]


@bounded
@given(performances(), st.booleans())
def test_list_and_array_encoding_are_equal(timed: list[Timed], end: bool) -> None:
    assert in_bulk(timed, end=end) == encode(timed, end=end)


@bounded
@given(performances())
def test_decoding_restores_every_action_within_half_a_step(timed: list[Timed]) -> None:
    back = list(decode(encode(timed, end=True), origin=timed[0].time if timed else 0.0))
    assert [one.action for one in back] == [one.action for one in timed]
    for before, after in zip(timed, back, strict=True):
        assert abs(before.time - after.time) <= HALF_STEP
        if before.action < NOTE_OFF:
            assert velocity_bin(after.velocity) == velocity_bin(before.velocity)
            assert abs(after.velocity - before.velocity) <= 2
        else:
            assert after.velocity == 0


@bounded
@given(performances())
def test_every_event_is_in_the_vocabulary(timed: list[Timed]) -> None:
    events = encode(timed, end=True)
    assert events[0] == START_EVENT
    assert events[-1] == Event(0, END)
    for event in events[1:-1]:
        assert 0 <= event.wait <= MAX_WAIT
        assert event.action not in (START, END)
        assert (event.velocity < NO_VELOCITY) == event.is_note_on
        assert event.action != REST or event.wait == MAX_WAIT


def test_an_empty_performance_is_encoded_as_start_and_end_only() -> None:
    assert encode([]) == [START_EVENT]
    assert in_bulk([], end=True) == encode([], end=True) == [START_EVENT, Event(0, END)]


def test_times_do_not_drift_over_hours() -> None:
    rng = np.random.default_rng(1)
    gaps = rng.uniform(0.2449, 0.2451, 60_000)  # each gap is rounded down: rounding the differences would lose a minute
    times = np.cumsum(gaps) + 17.3
    timed = [Timed(time, NOTE_ON + 60 if i % 2 == 0 else NOTE_OFF + 60, 64) for i, time in enumerate(times.tolist())]
    assert times[-1] > 4 * 3600
    for events in (encode(timed), in_bulk(timed)):
        back = np.array([one.time for one in decode(events, origin=timed[0].time)])
        assert np.abs(back - times).max() <= HALF_STEP


@pytest.mark.parametrize(
    ("gap", "waits"),
    [
        (0, [0]),
        (1, [1]),
        (99, [99]),
        (100, [100]),
        (101, [100, 1]),
        (199, [100, 99]),
        (200, [100, 100]),
        (201, [100, 100, 1]),
        (250, [100, 100, 50]),
        (300, [100, 100, 100]),
    ],
)
def test_long_gaps_are_encoded_as_full_rests_and_a_remainder(gap: int, waits: list[int]) -> None:
    timed = [Timed(3.0, NOTE_ON + 60, 64), Timed(3.0 + gap / 100, NOTE_OFF + 60)]
    expected = [Event(wait, REST) for wait in waits[:-1]] + [Event(waits[-1], NOTE_OFF + 60)]
    assert events_after_gap(gap, NOTE_OFF + 60) == expected
    assert encode(timed)[2:] == expected
    assert in_bulk(timed)[2:] == expected


def test_the_first_action_defines_time_zero() -> None:
    assert encode([Timed(7.25, NOTE_ON + 60, 64)]) == [START_EVENT, Event(0, NOTE_ON + 60, 16)]


def test_an_action_out_of_order_gets_the_time_of_the_previous_action() -> None:
    timed = [Timed(1.0, NOTE_ON + 60, 64), Timed(2.0, NOTE_ON + 62, 64), Timed(1.5, NOTE_OFF + 60), Timed(2.1, NOTE_OFF + 62)]
    expected = [(0, NOTE_ON + 60), (100, NOTE_ON + 62), (0, NOTE_OFF + 60), (10, NOTE_OFF + 62)]
    assert [event[:2] for event in encode(timed)[1:]] == expected
    assert [event[:2] for event in in_bulk(timed)[1:]] == expected


@pytest.mark.parametrize("seconds", [0.0, 0.0049, 0.005, 0.0149, 1.0, 59.994, 123456.789])
def test_to_step_rounds_to_the_nearest_step(seconds: float) -> None:
    assert abs(to_step(seconds) / 100 - seconds) <= HALF_STEP


def test_velocity_bins_hold_four_velocities_and_map_to_their_middle() -> None:
    for velocity in range(1, 128):
        bin_ = velocity_bin(velocity)
        assert 0 <= bin_ < 32
        assert velocity_bin(bin_velocity(bin_)) == bin_
        assert abs(bin_velocity(bin_) - velocity) <= 2
    assert len({velocity_bin(velocity) for velocity in range(1, 128)}) == 32
    assert velocity_bin(0) == velocity_bin(1)
    assert velocity_bin(200) == velocity_bin(127)


# --- extend_pedal ----------------------------------------------------------------------------------------------------


def notes_of(timed: Iterable[Timed]) -> list[tuple[int, float, int, float | None]]:
    """(pitch, onset, velocity, release or None) in order of onset. Fails on note-ons of sounding keys and stray note-offs."""
    notes: list[tuple[int, float, int, float | None]] = []
    sounding: dict[int, int] = {}
    for one in timed:
        if one.action < NOTE_OFF:
            assert one.action not in sounding, "note-on of a sounding key"
            sounding[one.action] = len(notes)
            notes.append((one.action, one.time, one.velocity, None))
        elif one.action < SUSTAIN_DOWN:
            which = sounding.pop(one.action - NOTE_OFF)
            notes[which] = (*notes[which][:3], one.time)
    return notes


def reference_extended_notes(timed: list[Timed]) -> list[tuple[int, float, int, float | None]]:
    """The expected notes of ``extend_pedal``, each computed from the whole performance."""
    notes = []
    for i, one in enumerate(timed):
        if one.action >= NOTE_OFF:
            continue
        ends = [j for j in range(i, len(timed)) if timed[j].action == NOTE_OFF + one.action]
        if not ends:
            notes.append((one.action, one.time, one.velocity, None))
            continue
        pedals = [x.action for x in timed[: ends[0]] if x.action in (SUSTAIN_DOWN, SUSTAIN_UP)]
        released = timed[ends[0]].time
        if pedals and pedals[-1] == SUSTAIN_DOWN:
            later = [x.time for x in timed[ends[0] :] if x.action in (SUSTAIN_UP, one.action)]
            released = later[0] if later else timed[-1].time
        notes.append((one.action, one.time, one.velocity, released))
    return notes


@bounded
@given(performances())
def test_extended_notes_last_until_the_pedal_or_the_next_strike(timed: list[Timed]) -> None:
    extended = list(extend_pedal(timed))
    assert all(one.action not in (SUSTAIN_DOWN, SUSTAIN_UP) for one in extended)
    assert notes_of(extended) == reference_extended_notes(timed)
    assert [one.time for one in extended] == sorted(one.time for one in extended)


def test_extend_pedal_of_a_worked_example() -> None:
    timed = [
        Timed(0.0, NOTE_ON + 60, 40),
        Timed(0.1, SUSTAIN_DOWN),
        Timed(0.2, NOTE_OFF + 60),  # sounds until the next note-on of its key
        Timed(0.3, NOTE_ON + 64, 50),
        Timed(0.4, NOTE_OFF + 64),  # sounds until the pedal is released
        Timed(0.5, NOTE_ON + 60, 60),  # still held when the pedal is released
        Timed(0.6, SUSTAIN_UP),
        Timed(0.7, NOTE_OFF + 60),
        Timed(0.8, SUSTAIN_DOWN),
        Timed(0.9, NOTE_ON + 67, 70),
        Timed(1.0, NOTE_OFF + 67),  # the pedal is never released
        Timed(1.1, NOTE_ON + 72, 80),
        Timed(1.2, NOTE_OFF + 72),
    ]
    assert list(extend_pedal(timed)) == [
        Timed(0.0, NOTE_ON + 60, 40),
        Timed(0.3, NOTE_ON + 64, 50),
        Timed(0.5, NOTE_OFF + 60),
        Timed(0.5, NOTE_ON + 60, 60),
        Timed(0.6, NOTE_OFF + 64),
        Timed(0.7, NOTE_OFF + 60),
        Timed(0.9, NOTE_ON + 67, 70),
        Timed(1.1, NOTE_ON + 72, 80),
        Timed(1.2, NOTE_OFF + 67),
        Timed(1.2, NOTE_OFF + 72),
    ]


# --- tokens_388 ------------------------------------------------------------------------------------------------------


def test_388_tokens_of_a_worked_example() -> None:
    events = encode(
        [
            Timed(0.0, NOTE_ON + 60, 64),  # velocity, note-on                   2
            Timed(0.5, NOTE_OFF + 60),  # shift, note-off                        4
            Timed(0.5, NOTE_ON + 62, 66),  # note-on: the same velocity bin      5
            Timed(0.5, NOTE_ON + 64, 80),  # velocity, note-on                   7
            Timed(3.0, NOTE_OFF + 62),  # three shifts for 2.5 s, note-off      11
            Timed(3.1, SUSTAIN_DOWN),  # shift, pedal                           13
            Timed(3.1, NOTE_ON + 62, 64),  # velocity, note-on                  15
        ],
        end=True,
    )
    assert tokens_388(np.array(events)) == 15


def test_388_tokens_of_an_empty_performance_and_of_pedal_events_only() -> None:
    assert tokens_388(np.array([START_EVENT, Event(0, END)])) == 0
    assert tokens_388(np.array([START_EVENT, Event(0, SUSTAIN_DOWN), Event(7, SUSTAIN_UP)])) == 3


@bounded
@given(performances())
def test_388_tokens_equal_an_explicit_encoding(timed: list[Timed]) -> None:
    tokens: list[str] = []
    now = loudness = None
    for one in timed:
        step = to_step(one.time - timed[0].time)
        gap = step - (now or 0)
        tokens += ["shift"] * -(-gap // 100)
        now = step
        if one.action < NOTE_OFF:
            tokens += ["velocity"] * (velocity_bin(one.velocity) != loudness)
            loudness = velocity_bin(one.velocity)
        tokens.append("action")
    assert tokens_388(np.array(encode(timed, end=True))) == len(tokens)
