"""A turn: when it may end, when it must play a note, and how a rewind removes its notes."""

from __future__ import annotations

import math

import pytest

from engine.adjustment import KEPT_STRIKES
from engine.events import NOTE_OFF, NOTE_ON, REST, SUSTAIN_UP, Event
from perceivers_live.performer.turns import (
    CHORD_STEPS,
    EARLY,
    LAST,
    LATE,
    MAX_EVENTS,
    MAX_HOLD,
    MIN_HOLD,
    OVERDUE,
    PAUSE_STEPS,
    MachineEvent,
    Turn,
)

LENGTH = 8.0


def on(wait: int = 10, pitch: int = 60) -> Event:
    return Event(wait, NOTE_ON + pitch, 10)


def turn(*events: Event) -> Turn:
    made = Turn(90.0, LENGTH)
    for position, event in enumerate(events, 1):
        made.add(MachineEvent(100 + position, position, 10 * position, event))
    return made


def melody(last: int) -> Turn:
    """A triad up and down, a note every 10 steps, and then ``last``."""
    return turn(*[on(10, 60 + step) for step in (0, 4, 7, 4, 0, 4, 7, 4)], on(10, last))


ON, OFF = 72, 61  # a tone of that harmony, and one outside it
END = 90  # step of its last note


@pytest.mark.parametrize(
    ("late", "last", "gap", "ends"),
    [
        (EARLY - 0.01, ON, 100, False),
        (EARLY + 0.01, ON, PAUSE_STEPS, True),
        (EARLY + 0.01, ON, 12, False),
        (EARLY + 0.01, ON, 16, True),  # 1.5 times the other gaps
        (EARLY + 0.01, OFF, 100, False),
        (0.01, OFF, PAUSE_STEPS, True),
        (0.01, ON, 12, False),
        (LATE + 0.01, ON, 12, True),
        (LATE + 0.01, OFF, 12, False),
        (LAST + 0.01, OFF, CHORD_STEPS + 1, True),
        (LAST + 0.01, ON, CHORD_STEPS, False),
        (OVERDUE + 0.01, ON, 1, True),
        (OVERDUE + 0.01, ON, 0, False),
    ],
)
def test_requirements_of_an_end_relax_with_time(late: float, last: int, gap: int, ends: bool) -> None:
    assert melody(last).may_end(on(gap), END + gap, late) == ends
    assert melody(last).may_end(Event(gap, REST), END + gap, late) == ends


def test_turn_may_end_before_the_release_of_the_last_chord() -> None:
    for late, last, since, ends in ((-0.01, ON, 15, True), (-0.01, OFF, 15, False), (-0.01, ON, 5, False), (-0.5, ON, 15, False)):
        assert melody(last).may_end(Event(since, NOTE_OFF + last), END + since, late) == ends
    assert not melody(ON).may_end(Event(15, NOTE_OFF + 64), END + 15, 0.0)  # of another key
    assert not melody(ON).may_end(Event(15, SUSTAIN_UP), END + 15, 0.2)


def test_a_turn_does_not_end_before_its_first_note() -> None:
    assert not turn().may_end(on(100), 100, 1.0)


def test_turn_without_an_end_time_does_not_end() -> None:
    assert not melody(ON).may_end(on(100), END + 100, -math.inf)


def test_the_last_chord_is_held_for_two_gaps_within_limits() -> None:
    for gap in (5, 20, 90):
        made = Turn(90.0, LENGTH)
        for i in range(6):
            made.add(MachineEvent(i, i, gap * (i + 1), on(gap)))
        made.close(6 * gap + 3, 10_000)
        assert made.closing == 6 * gap + min(max(2 * gap, MIN_HOLD), MAX_HOLD)
        made.close(6 * gap + 3, 6 * gap + 20)
        assert made.closing == 6 * gap + 20
        made.close(6 * gap + 3, 0)
        assert made.closing is not None
        assert made.closing > 6 * gap


def test_rewind_removes_later_notes() -> None:
    made = turn(on(10, 60), on(10, 62), Event(10, NOTE_OFF + 60), on(10, 64))
    assert [one.event.pitch for one in made.strikes] == [60, 62, 64]
    made.rewind(3)
    assert [one.event.pitch for one in made.strikes] == [60, 62]
    made.rewind(0)
    assert made.strikes == []
    made.rewind(0)


def test_position_of_a_missing_serial_is_that_of_the_last_one_before_it() -> None:
    made = turn(on(), on(), on())
    assert [made.position_of(serial) for serial in (0, 100, 101, 103, 999)] == [0, 0, 1, 3, 3]
    made.rewind(2)
    assert made.position_of(103) == 2


def test_simultaneous_events_are_counted() -> None:
    assert turn().simultaneous_events == 0
    assert turn(on(5), on(0), on(0)).simultaneous_events == 2
    assert turn(on(0), on(0), on(1)).simultaneous_events == 0


def test_note_is_required_at_the_start_and_after_a_rest_if_nothing_sounds() -> None:
    nothing = frozenset[int]()
    assert turn().must_play_note(nothing, on(), 0)
    assert not turn(on(), Event(5, NOTE_OFF + 60)).must_play_note(nothing, Event(5, NOTE_OFF + 60), 20)
    assert turn(on(), Event(5, NOTE_OFF + 60), Event(100, REST)).must_play_note(nothing, Event(100, REST), 30)
    assert not turn().must_play_note(frozenset({60}), Event(100, REST), 30)


def test_note_is_required_after_the_maximum_silence_even_with_held_keys() -> None:
    made = Turn(90.0, LENGTH, max_silence=1.5)
    made.add(MachineEvent(1, 1, 1000, on(10, 60)))
    made.add(MachineEvent(2, 2, 1100, Event(100, NOTE_OFF + 62)))
    held = frozenset({60})
    assert not made.must_play_note(held, Event(50, NOTE_OFF + 62), 1150)
    assert made.must_play_note(held, Event(51, NOTE_OFF + 62), 1151)
    made.add(MachineEvent(3, 3, 1160, on(9, 64)))
    assert not made.must_play_note(held, on(9, 64), 1160)
    assert not turn(on(10, 60)).must_play_note(held, Event(100, REST), 9999)  # a turn without that limit may wait for ever


def test_closing_turn_requires_no_note() -> None:
    made = turn()
    made.closing = 5
    assert not made.must_play_note(frozenset(), Event(100, REST), 30)


def test_number_of_stored_notes_is_limited() -> None:
    made = turn(*[on(1, i % 128) for i in range(2 * MAX_EVENTS)])
    assert len(made.strikes) == MAX_EVENTS


def test_the_newest_note_ons_are_kept_among_other_events() -> None:
    """Or else a computer that decides ahead, with a record of its own, would not see the same ones."""
    made = turn(*[event for i in range(MAX_EVENTS) for event in (on(1, i % 128), Event(1, REST), Event(1, REST), Event(1, REST))])
    assert len(made.strikes) >= KEPT_STRIKES
