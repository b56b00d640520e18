"""The human's actions and the machine's events are told in the order in which they sounded, however late that is."""

from __future__ import annotations

from engine.events import NOTE_OFF, NOTE_ON, REST, Event, Timed
from perceivers_live.performer.merge import Merged, Played, merge
from perceivers_live.performer.turns import MachineEvent
from perceivers_live.player.player import Standing


def own(position: int, action: int = NOTE_ON + 60) -> MachineEvent:
    return MachineEvent(position, 10 * position, Event(1, action, 16))


def timed(one: MachineEvent) -> Timed:
    return Timed(one.position / 10, one.event.action)


def key(time: float, pitch: int = 40) -> Timed:
    return Timed(time, NOTE_ON + pitch, 64)


def test_what_is_planned_comes_after_what_the_human_does() -> None:
    merged = merge([Played([key(1.0)], passed=7)], [], [own(11), own(12), own(13)], Standing(7, 11, 12), timed)
    assert merged == Merged(11, [key(1.0), timed(own(12))], 1, {1: 12})  # 13 is not in the plan any more


def test_what_sounded_after_the_humans_action_is_told_after_it_whatever_its_time() -> None:
    played = [Played([key(9.0)], passed=5), Played([key(9.1, 41)], [Timed(9.1, NOTE_OFF + 60)], passed=6)]
    merged = merge(played, [], [own(11), own(12), own(13)], Standing(7, 13, 13), timed)
    assert merged.base == 11
    assert merged.actions == [key(9.0), timed(own(12)), Timed(9.1, NOTE_OFF + 60), key(9.1, 41), timed(own(13))]
    assert merged.machines == {1: 12, 4: 13}
    assert merged.past == 4  # the human may have done something before 13 that is not known yet


def test_what_was_released_since_comes_after_all_that_sounded() -> None:
    since = [Timed(0.5, NOTE_OFF + 60)]
    merged = merge([Played([key(1.0)], passed=6)], since, [own(11), own(12)], Standing(7, 12, 12), timed)
    assert merged.actions == [key(1.0), timed(own(12)), *since]
    assert merged.past == 3


def test_what_is_heard_of_late_is_told_where_it_belongs() -> None:
    """The second action came before 13 sounded, and only the first was known when the performer last asked."""
    mine = [own(11), own(12), own(13), own(14)]
    first = merge([Played([key(9.0)], passed=5)], [], mine, Standing(7, 13, 14), timed)
    assert first.actions == [key(9.0), *map(timed, mine[1:])]
    renumbered = [own(13), own(14), own(15)]  # 12, 13 and 14, one place later: what comes after position 12, where it is final
    second = merge([Played([key(9.1, 41)], passed=6)], [], renumbered, Standing(8, 15, 15), timed)
    assert second == Merged(13, [key(9.1, 41), timed(own(14)), timed(own(15))], 1, {1: 14, 2: 15})


def test_what_is_final_is_never_told_again() -> None:
    merged = merge([Played([key(9.0)], passed=3)], [], [own(13), own(14)], Standing(7, 13, 14), timed)
    assert merged == Merged(0, [key(9.0), timed(own(13)), timed(own(14))], 1, {1: 13, 2: 14})


def test_rests_are_not_told_and_what_is_history_already_stays() -> None:
    merged = merge([Played([key(1.0)], passed=3)], [], [own(12, REST), own(13)], Standing(9, 13, 13), timed)
    assert merged == Merged(0, [key(1.0), timed(own(13))], 1, {1: 13})


def test_nothing_played_tells_the_plan_as_it_was() -> None:
    merged = merge([], [], [own(11), own(12)], Standing(5, 11, 12), timed)
    assert merged == Merged(11, [timed(own(12))], 0, {0: 12})
