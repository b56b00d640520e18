"""The human's actions and the machine's events are told in the order in which they sounded, however late that is."""

from __future__ import annotations

from engine.events import NOTE_OFF, NOTE_ON, REST, Event, Timed
from perceivers_live.performer.merge import Merged, Played, merge
from perceivers_live.performer.turns import MachineEvent


def own(serial: int, action: int = NOTE_ON + 60, position: int | None = None) -> MachineEvent:
    place = 10 + serial if position is None else position
    return MachineEvent(serial, place, 10 * place, Event(1, action, 16))


def key(time: float, pitch: int = 40) -> Timed:
    return Timed(time, NOTE_ON + pitch, 64)


def test_what_is_planned_comes_after_what_the_human_does() -> None:
    merged = merge([Played([key(1.0)], after=1)], [], [own(1), own(2), own(3)], 2)
    assert merged == Merged(11, [key(1.0), own(2)], 1)  # 3 is not in the plan any more


def test_what_sounded_after_the_humans_action_is_told_after_it_whatever_its_time() -> None:
    played = [Played([key(9.0)], after=1), Played([key(9.1, 41)], [Timed(9.1, NOTE_OFF + 60)], after=2)]
    merged = merge(played, [], [own(1), own(2), own(3)], 3)
    assert merged.base == 11
    assert merged.actions == [key(9.0), own(2), Timed(9.1, NOTE_OFF + 60), key(9.1, 41), own(3)]
    assert merged.final == 4  # the human may have done something before 3 that is not known yet


def test_what_was_released_since_comes_after_all_that_sounded() -> None:
    since = [Timed(0.5, NOTE_OFF + 60)]
    merged = merge([Played([key(1.0)], after=1)], since, [own(1), own(2)], 2)
    assert merged == Merged(11, [key(1.0), own(2), *since], 3)


def test_what_is_heard_of_late_is_told_where_it_belongs() -> None:
    """The second action came before 3 sounded, and only the first was known when the performer last asked."""
    mine = [own(1), own(2), own(3), own(4)]
    first = merge([Played([key(9.0)], after=1)], [], mine, 4)
    assert first.actions == [key(9.0), *mine[1:]]
    later = [own(2, position=13), own(3, position=14), own(4, position=15)]  # one place later
    second = merge([Played([key(9.1, 41)], after=2)], [], later, 4)
    assert second == Merged(13, [key(9.1, 41), *later[1:]], 1)


def test_what_is_final_is_never_told_again() -> None:
    mine = [own(4), own(5)]
    assert merge([Played([key(9.0)], after=2)], [], mine, 5) == Merged(0, [key(9.0), *mine], 1)


def test_serial_numbers_of_events_that_were_taken_back_are_missing() -> None:
    merged = merge([Played([key(1.0)], after=2)], [], [own(2), own(7), own(8)], 7)
    assert merged == Merged(12, [key(1.0), own(7)], 1)


def test_rests_are_not_told_and_what_is_history_already_stays() -> None:
    merged = merge([Played([key(1.0)], after=1)], [], [own(2, REST), own(3)], 3)
    assert merged == Merged(0, [key(1.0), own(3)], 1)
