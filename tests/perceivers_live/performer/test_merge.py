"""The human's actions and the machine's events are merged in the order in which they sounded, even if reported late."""

from __future__ import annotations

from engine.events import NOTE_OFF, NOTE_ON, REST, Event, Timed
from perceivers_live.performer.merge import Merged, Played, merge
from perceivers_live.performer.turns import MachineEvent


def machine_event(serial: int, action: int = NOTE_ON + 60, position: int | None = None) -> MachineEvent:
    place = 10 + serial if position is None else position
    return MachineEvent(serial, place, 10 * place, Event(1, action, 16))


def key(time: float, pitch: int = 40) -> Timed:
    return Timed(time, NOTE_ON + pitch, 64)


def test_planned_events_follow_the_humans_action() -> None:
    merged = merge([Played([key(1.0)], after=1)], [], [machine_event(1), machine_event(2), machine_event(3)], 2)
    assert merged == Merged(11, [key(1.0), machine_event(2)], 1)  # 3 is not in the plan any more


def test_events_that_sounded_after_an_action_follow_it_whatever_its_time() -> None:
    played = [Played([key(9.0)], after=1), Played([key(9.1, 41)], [Timed(9.1, NOTE_OFF + 60)], after=2)]
    merged = merge(played, [], [machine_event(1), machine_event(2), machine_event(3)], 3)
    assert merged.base == 11
    assert merged.actions == [key(9.0), machine_event(2), Timed(9.1, NOTE_OFF + 60), key(9.1, 41), machine_event(3)]
    assert merged.final == 4  # the human may have done something before 3 that is not known yet


def test_later_releases_follow_all_sounded_events() -> None:
    since = [Timed(0.5, NOTE_OFF + 60)]
    merged = merge([Played([key(1.0)], after=1)], since, [machine_event(1), machine_event(2)], 2)
    assert merged == Merged(11, [key(1.0), machine_event(2), *since], 3)


def test_late_reported_action_is_inserted_at_its_place() -> None:
    """The second action came before event 3 sounded, but was not yet known at the first merge."""
    events = [machine_event(1), machine_event(2), machine_event(3), machine_event(4)]
    first = merge([Played([key(9.0)], after=1)], [], events, 4)
    assert first.actions == [key(9.0), *events[1:]]
    later = [machine_event(2, position=13), machine_event(3, position=14), machine_event(4, position=15)]  # one place later
    second = merge([Played([key(9.1, 41)], after=2)], [], later, 4)
    assert second == Merged(13, [key(9.1, 41), *later[1:]], 1)


def test_final_events_are_not_rewritten() -> None:
    events = [machine_event(4), machine_event(5)]
    assert merge([Played([key(9.0)], after=2)], [], events, 5) == Merged(0, [key(9.0), *events], 1)


def test_dropped_events_leave_gaps_in_the_serial_numbers() -> None:
    merged = merge([Played([key(1.0)], after=2)], [], [machine_event(2), machine_event(7), machine_event(8)], 7)
    assert merged == Merged(12, [key(1.0), machine_event(7)], 1)


def test_rests_are_omitted_and_earlier_history_stays() -> None:
    merged = merge([Played([key(1.0)], after=1)], [], [machine_event(2, REST), machine_event(3)], 3)
    assert merged == Merged(0, [key(1.0), machine_event(3)], 1)
