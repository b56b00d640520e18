"""The player: events in order, never early, and silence at once. No test here measures lateness on a busy computer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, REST, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.player.ledger import Ledger
from perceivers_live.player.player import LATE, Phase, Planned, Player
from tests.perceivers_live.player.planned import off, on
from tests.perceivers_live.receiver import RecordingObserver, Synthesizer


def test_only_due_events_sound(player: Player, synthesizer: Synthesizer, sounded: list[Timed]) -> None:
    player.schedule([on(1.0, 1, 60), on(1.0, 2, 64), off(2.0, 3, 60), off(2.5, 4, 64)])
    assert player.play_due(0.999) == 1.0
    assert not synthesizer.messages
    assert player.play_due(1.0) == 2.0
    assert [m[:2] for m in synthesizer.messages] == [(0x90, 60), (0x90, 64)]
    assert player.play_due(9.0) is None
    assert [(one.time, one.action) for one in sounded] == [
        (1.0, NOTE_ON + 60),
        (1.0, NOTE_ON + 64),
        (2.0, NOTE_OFF + 60),
        (2.5, NOTE_OFF + 64),
    ]
    assert player.planned() == 0


def test_event_does_not_sound_before_its_predecessor(player: Player) -> None:
    player.schedule([on(2.0, 1, 60), on(1.0, 2, 64)])
    assert player.play_due(1.5) == 2.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30))
def test_reported_times_are_in_order_whatever_is_planned(events: list[tuple[float, float]]) -> None:
    sounded: list[Timed] = []
    player = Player(Ledger(lambda _: None), RecordingObserver(sounded.append))
    player.begin()
    now = 0.0
    for position, (when, step) in enumerate(events):
        player.schedule([on(now + when - 0.2, position, position)])
        now += step
        player.play_due(now)
    player.play_due(now + 2)
    times = [one.time for one in sounded]
    assert len(times) == len(events)
    assert times == sorted(times)


def test_lateness_is_counted(player: Player) -> None:
    player.schedule([on(1.0, 1, 60), off(2.0, 2, 60)])
    player.play_due(1.0 + LATE / 2)
    assert (player.played, player.late) == (1, 0)
    player.play_due(2.0 + LATE * 2)
    assert (player.played, player.late) == (2, 1)
    assert list(player.lateness) == pytest.approx([LATE / 2, LATE * 2])


def test_cancel_keeps_earlier_events(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 11, 60), off(1.1, 12, 60), on(1.2, 13, 62), off(1.3, 14, 62)])
    assert player.cancel(after=1.1) == 12
    assert player.planned() == 2
    player.play_due(9.0)
    assert [m[:2] for m in synthesizer.messages] == [(0x90, 60), (0x80, 60)]
    assert player.cancel() == 12


def test_cancel_returns_the_serial_of_the_last_sounded_event(player: Player) -> None:
    player.schedule([on(1.0, 8, 60), off(1.1, 9, 60)])
    assert player.cancel() == 0
    player.schedule([on(1.0, 10, 60), off(1.1, 11, 60)])
    player.play_due(1.0)
    assert player.cancel() == 10


def test_without_a_plan_there_is_nothing_to_cancel(synthesizer: Synthesizer) -> None:
    player = Player(Ledger(synthesizer.send))
    assert player.cancel() == 0
    assert player.interrupt(0.0) == []
    assert player.phase is Phase.IDLE


def test_a_rest_only_passes_time(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 1, 60), Planned(2.0, 2, REST)])
    player.play_due(3.0)
    assert len(synthesizer.messages) == 1
    assert player.cancel() == 1


def test_an_interruption_drops_the_plan_and_closes_the_notes(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 1, 60), Planned(1.0, 2, SUSTAIN_DOWN), on(1.1, 3, 64), off(2.0, 4, 60)])
    player.play_due(1.05)
    assert player.interrupt(1.07) == [Timed(1.07, NOTE_OFF + 60), Timed(1.07, SUSTAIN_UP)]
    assert player.sounded == 2
    assert synthesizer.silent
    assert player.planned() == 0
    assert player.play_due(9.0) is None
    assert synthesizer.note_ons == [60]


def test_events_decided_before_an_interruption_are_not_played_after_it(player: Player, synthesizer: Synthesizer) -> None:
    player.interrupt(1.0)
    player.schedule([on(0.5, 1, 60)])
    assert player.play_due(9.0) is None
    assert not synthesizer.messages
    player.end()
    player.begin()
    player.schedule([on(9.5, 6, 62)])
    player.play_due(9.5)
    assert synthesizer.note_ons == [62]


def test_last_sounded_serial_is_known_until_the_next_plan(player: Player) -> None:
    """Whichever thread silences the player first, and however often."""
    player.schedule([on(1.0, 1, 60), off(2.0, 2, 60)])
    player.play_due(1.0)
    player.interrupt(1.1)
    assert player.sounded == 1
    assert player.interrupt(1.2) == []
    player.end()
    assert player.cancel() == 1
    player.begin()
    assert player.interrupt(3.0) == []
    assert player.sounded == 1


def test_interrupted_phase_lasts_until_end_is_called(player: Player) -> None:
    player.interrupt(1.0)
    assert player.phase is Phase.INTERRUPTED
    assert not player.playing
    assert player.end()
    assert not player.end()
    player.interrupt(2.0)
    assert player.phase is Phase.IDLE


def test_human_action_stops_the_plan_until_it_is_reopened(player: Player, synthesizer: Synthesizer) -> None:
    key = [Timed(1.1, NOTE_ON + 60, 80)]
    player.schedule([on(1.0, 1, 60), on(1.2, 2, 62)])
    player.play_due(1.0)
    player.ledger.keys.apply(key[0])
    assert player.react_to(key) == [Timed(1.1, NOTE_OFF + 60)]
    assert player.phase is Phase.INPUT_PENDING
    player.schedule([on(1.3, 3, 64)])  # decided before that was known
    player.play_due(2.0)
    assert synthesizer.note_ons == [60]
    assert player.reopen(key, 1.1) == 1
    player.schedule([on(2.1, 2, 64), on(2.2, 3, 60)])
    player.play_due(2.1)
    assert synthesizer.note_ons == [60, 64]
    player.play_due(2.2)
    assert player.phase is Phase.DROPPED  # the human's key
    assert player.cancel() == 2


def test_events_due_in_time_stay_unless_they_concern_the_humans_key(player: Player, synthesizer: Synthesizer) -> None:
    plan = [on(1.0, 1, 60), on(1.1, 2, 62), off(1.2, 3, 60), on(1.3, 4, 64)]
    player.schedule(plan)
    player.play_due(1.0)
    action = [Timed(1.0, NOTE_ON + 70, 80)]
    player.react_to(action, until=1.2)
    player.play_due(1.1)
    assert player.reopen(action, 1.2) == 3
    player.play_due(2.0)
    assert synthesizer.messages[-1][:2] == (0x80, 60)
    player.schedule([on(3.0, 5, 72), on(3.1, 6, 74), on(3.2, 7, 76)])
    player.react_to([Timed(2.9, NOTE_ON + 74, 80)], until=4.0)
    player.play_due(4.0)
    assert synthesizer.note_ons[-1] == 72  # and the events after the human's key are dropped with it


def test_a_reaction_keeps_the_idle_phase_without_a_plan(player: Player) -> None:
    player.end()
    player.react_to([Timed(1.1, NOTE_ON + 60, 80)])
    assert player.phase is Phase.IDLE


def test_interruption_lifts_a_shared_pedal_without_returning_it(
    player: Player, synthesizer: Synthesizer, sounded: list[Timed]
) -> None:
    player.schedule([Planned(1.0, 1, SUSTAIN_DOWN)])
    player.play_due(1.0)
    player.ledger.keys.apply(Timed(1.1, SUSTAIN_DOWN))
    player.react_to([Timed(1.1, SUSTAIN_DOWN)])
    assert player.interrupt(1.2) == []
    assert not synthesizer.pedals
    assert sounded[-1] == Timed(1.2, SUSTAIN_UP)


def test_release_all_with_a_shared_pedal_keeps_the_plan(player: Player) -> None:
    player.schedule([Planned(0.0, 1, SUSTAIN_DOWN), Planned(9.0, 2, NOTE_ON + 60, 64)])
    player.play_due(0.1)
    player.ledger.keys.apply(Timed(0.1, SUSTAIN_DOWN))
    assert player.release_all(0.2) == []
    assert player.phase is Phase.OPEN
    assert player.planned() == 1


def test_releases_are_reported_in_order_even_if_the_humans_time_is_earlier(player: Player, sounded: list[Timed]) -> None:
    """An input offset gives the human's action a time before events that have sounded."""
    player.schedule([on(1.0, 1, 60), on(1.1, 2, 62)])
    player.play_due(1.1)
    assert player.react_to([Timed(0.9, NOTE_ON + 60, 80)]) == [Timed(0.9, NOTE_OFF + 60)]
    player.interrupt(0.95)
    times = [one.time for one in sounded]
    assert times == sorted(times)


def test_remaining_plan_is_reported_in_order_even_if_the_humans_time_is_later(player: Player, sounded: list[Timed]) -> None:
    """An input offset gives the human's action a time after events that are still planned."""
    player.schedule([on(1.0, 1, 60), on(2.0, 2, 62)])
    player.play_due(1.0)
    player.react_to([Timed(2.5, NOTE_ON + 60, 80)], until=2.2)
    player.play_due(2.0)
    player.interrupt(2.1)
    assert [one.time for one in sounded] == sorted(one.time for one in sounded)
    assert [one.action for one in sounded] == [NOTE_ON + 60, NOTE_OFF + 60, NOTE_ON + 62, NOTE_OFF + 62]


def test_interruption_works_with_a_failing_port(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 1, 60)])
    player.play_due(1.0)
    synthesizer.fails = lambda _: True
    assert player.interrupt(1.1) == [Timed(1.1, NOTE_OFF + 60)]
    synthesizer.fails = lambda _: False
    player.interrupt(1.2)
    assert synthesizer.silent


def test_interruption_returns_all_releases_even_if_one_failed(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 1, 60), on(1.0, 2, 64), on(1.0, 3, 67)])
    player.play_due(1.0)
    synthesizer.fails = lambda message: message[1] == 64
    released = player.interrupt(1.1)
    assert synthesizer.sounding == {(0, 64)}
    assert {one.action - NOTE_OFF for one in released} == {60, 64, 67}


def test_observer_receives_the_releases_of_an_interruption(player: Player, sounded: list[Timed]) -> None:
    player.schedule([on(1.0, 1, 60), on(1.0, 2, 64), off(5.0, 3, 60)])
    player.play_due(1.0)
    released = player.interrupt(1.1)
    assert sounded[2:] == released == [Timed(1.1, NOTE_OFF + 60), Timed(1.1, NOTE_OFF + 64)]


def test_failing_port_does_not_stop_the_music(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 1, 60), off(2.0, 2, 60), on(3.0, 3, 62)])
    synthesizer.fails = lambda _: True
    player.play_due(1.5)
    assert (player.played, player.unsent) == (0, 1)
    assert player.sounded == 1
    synthesizer.fails = lambda _: False
    player.play_due(9.0)
    player.ledger.release_machine()
    assert not synthesizer.sounding
    assert 62 in synthesizer.note_ons


def test_held_after_plan_includes_the_whole_plan(player: Player) -> None:
    assert player.held_after_plan() == (frozenset(), False)
    player.schedule([on(1.0, 1, 60), Planned(1.0, 2, SUSTAIN_DOWN), on(1.1, 3, 64), off(2.0, 4, 60), Planned(2.5, 5, REST)])
    assert player.held_after_plan() == ({64}, True)
    player.play_due(1.05)
    assert player.ledger.notes == {60}
    assert player.held_after_plan() == ({64}, True)
    player.cancel(after=1.5)
    assert player.held_after_plan() == ({60, 64}, True)
    player.schedule([Planned(3.0, 6, SUSTAIN_UP)])
    assert player.held_after_plan() == ({60, 64}, False)
    player.interrupt(1.06)
    assert player.held_after_plan() == (frozenset(), False)


# --- observers of the plan -------------------------------------------------------------------------------------------

_moves = st.one_of(
    st.tuples(st.just("schedule"), st.integers(1, 4)),
    st.tuples(st.just("play"), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("key"), st.integers(60, 64)),
    st.tuples(st.sampled_from(["interrupt", "begin", "drop"]), st.just(0)),
)


@given(st.lists(_moves, max_size=40))
def test_observer_always_knows_the_plan(moves: list[tuple[str, int]]) -> None:
    sounded: list[Timed] = []
    observer = RecordingObserver(sounded.append)
    player = Player(Ledger(Synthesizer().send), observer)
    player.begin()
    now, serial = 0.0, 0
    for move, number in moves:
        if move == "schedule":
            for _ in range(number):
                serial += 1
                player.schedule([on(now + serial % 5, serial, 60 + serial % 5)])
        elif move == "play":
            now += number
            player.play_due(now)
        elif move == "cancel":
            player.cancel(now + number)
        elif move == "key":
            actions = [Timed(now, NOTE_ON + number, 80)]
            player.react_to(actions, now + 1)
            player.reopen(actions, now + 1)
        elif move == "interrupt":
            player.interrupt(now)
        elif move == "begin":
            player.begin()
        else:
            player.drop()
        left = player.planned()
        assert [one.serial for one in observer.plan if one.serial > player.sounded] == [one.serial for one in player._plan]
        assert [one.action for one in observer.plan[: len(observer.plan) - left]] == [
            one.action for one in sounded if one.action < NOTE_OFF
        ]
