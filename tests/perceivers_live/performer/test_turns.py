"""A turn: when it may end, what it owes, and that what was not played was not."""

from __future__ import annotations

import pytest

from engine.events import NOTE_OFF, NOTE_ON, REST, SUSTAIN_UP, Event
from perceivers_live.performer.turns import CHORD_STEPS, MAX_EVENTS, OVERTIME, PAUSE_STEPS, MachineEvent, Turn

DUE, LENGTH = 100.0, 8.0
SLIGHTLY, RATHER, VERY = DUE + 0.1, DUE + LENGTH * (OVERTIME + 0.1), DUE + LENGTH * 1.1


def on(wait: int = 10, pitch: int = 60) -> Event:
    return Event(wait, NOTE_ON + pitch, 10)


def turn(*events: Event) -> Turn:
    made = Turn(90.0, LENGTH)
    for position, event in enumerate(events, 1):
        made.add(MachineEvent(100 + position, position, 10 * position, event))
    return made


def test_a_turn_does_not_end_before_it_is_due() -> None:
    assert not turn().may_end(on(PAUSE_STEPS), DUE, DUE)
    assert turn().may_end(on(PAUSE_STEPS), SLIGHTLY, DUE)


@pytest.mark.parametrize(
    ("wait", "slightly", "rather", "very"),
    [
        (0, False, False, False),
        (1, False, False, True),
        (CHORD_STEPS, False, False, True),
        (CHORD_STEPS + 1, False, True, True),
        (PAUSE_STEPS - 1, False, True, True),
        (PAUSE_STEPS, True, True, True),
    ],
)
def test_the_later_it_is_the_shorter_a_pause_will_do(wait: int, slightly: bool, rather: bool, very: bool) -> None:
    ends = tuple(turn().may_end(on(wait), at, DUE) for at in (SLIGHTLY, RATHER, VERY))
    assert ends == (slightly, rather, very)


def test_it_ends_before_a_note_or_a_rest_and_before_nothing_else() -> None:
    assert turn().may_end(Event(100, REST), SLIGHTLY, DUE)
    for action in (NOTE_OFF + 60, SUSTAIN_UP):
        assert not turn().may_end(Event(100, action), VERY, DUE)


def test_a_turn_that_has_no_end_does_not_end() -> None:
    assert not turn().may_end(on(100), 1e9, float("inf"))


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
