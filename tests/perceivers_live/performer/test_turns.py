"""A turn: when it may end, what it owes, and that what was not played was not."""

from __future__ import annotations

import math

import pytest

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


ON, OFF = 72, 61  # a tone of that harmony, and one that is not
END = 90  # step of its last note


@pytest.mark.parametrize(
    ("late", "last", "gap", "ends"),
    [
        (EARLY - 0.01, ON, 100, False),
        (EARLY + 0.01, ON, PAUSE_STEPS, True),
        (EARLY + 0.01, ON, 12, False),
        (EARLY + 0.01, ON, 16, True),  # half as long again as the others
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
def test_the_later_it_is_the_less_is_required_of_an_end(late: float, last: int, gap: int, ends: bool) -> None:
    assert melody(last).may_end(on(gap), END + gap, late) == ends
    assert melody(last).may_end(Event(gap, REST), END + gap, late) == ends


def test_it_can_end_before_the_last_chord_is_released_so_that_it_is_held() -> None:
    for late, last, since, ends in ((-0.01, ON, 15, True), (-0.01, OFF, 15, False), (-0.01, ON, 5, False), (-0.5, ON, 15, False)):
        assert melody(last).may_end(Event(since, NOTE_OFF + last), END + since, late) == ends
    assert not melody(ON).may_end(Event(15, NOTE_OFF + 64), END + 15, 0.0)  # of another key
    assert not melody(ON).may_end(Event(15, SUSTAIN_UP), END + 15, 0.2)


def test_a_turn_does_not_end_before_its_first_note() -> None:
    assert not turn().may_end(on(100), 100, 1.0)


def test_a_turn_that_has_no_end_does_not_end() -> None:
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


def test_what_came_after_a_rewind_was_never_played() -> None:
    made = turn(on(10, 60), on(10, 62), Event(10, NOTE_OFF + 60), on(10, 64))
    assert [one.event.pitch for one in made.strikes] == [60, 62, 64]
    made.rewind(3)
    assert [one.event.pitch for one in made.strikes] == [60, 62]
    made.rewind(0)
    assert made.strikes == []
    made.rewind(0)


def test_a_serial_number_that_is_not_in_the_history_stands_for_the_last_one_before_it() -> None:
    made = turn(on(), on(), on())
    assert [made.position_of(serial) for serial in (0, 100, 101, 103, 999)] == [0, 0, 1, 3, 3]
    made.rewind(2)
    assert made.position_of(103) == 2


def test_events_at_one_moment_are_a_crowd() -> None:
    assert turn().simultaneous_events == 0
    assert turn(on(5), on(0), on(0)).simultaneous_events == 2
    assert turn(on(0), on(0), on(1)).simultaneous_events == 0


def test_a_note_is_owed_at_the_beginning_and_after_a_rest_and_while_nothing_of_its_own_sounds() -> None:
    nothing = frozenset[int]()
    assert turn().must_play_note(nothing, on(), 0)
    assert not turn(on(), Event(5, NOTE_OFF + 60)).must_play_note(nothing, Event(5, NOTE_OFF + 60), 20)
    assert turn(on(), Event(5, NOTE_OFF + 60), Event(100, REST)).must_play_note(nothing, Event(100, REST), 30)
    assert not turn().must_play_note(frozenset({60}), Event(100, REST), 30)


def test_a_note_is_owed_when_nothing_was_struck_for_too_long_whatever_is_held() -> None:
    made = Turn(90.0, LENGTH, max_silence=1.5)
    made.add(MachineEvent(1, 1, 1000, on(10, 60)))
    made.add(MachineEvent(2, 2, 1100, Event(100, NOTE_OFF + 62)))
    held = frozenset({60})
    assert not made.must_play_note(held, Event(50, NOTE_OFF + 62), 1150)
    assert made.must_play_note(held, Event(51, NOTE_OFF + 62), 1151)
    made.add(MachineEvent(3, 3, 1160, on(9, 64)))
    assert not made.must_play_note(held, on(9, 64), 1160)
    assert not turn(on(10, 60)).must_play_note(held, Event(100, REST), 9999)  # a turn without that limit may wait for ever


def test_a_turn_that_is_closing_owes_nothing() -> None:
    made = turn()
    made.closing = 5
    assert not made.must_play_note(frozenset(), Event(100, REST), 30)


def test_only_so_much_is_remembered() -> None:
    made = turn(*[on(1, i % 128) for i in range(2 * MAX_EVENTS)])
    assert len(made.strikes) == MAX_EVENTS
