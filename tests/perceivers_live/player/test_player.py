"""The player: in order, never early, and silent at once. No test here measures how late a busy machine is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, REST, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.player.ledger import Ledger
from perceivers_live.player.player import LATE, Phase, Planned, Player
from tests.perceivers_live.player.planned import off, on
from tests.perceivers_live.receiver import Synthesizer, Watcher


def test_only_what_is_due_sounds(player: Player, synthesizer: Synthesizer, heard: list[Timed]) -> None:
    player.schedule([on(1.0, 1, 60), on(1.0, 2, 64), off(2.0, 3, 60), off(2.5, 4, 64)])
    assert player.play_due(0.999) == 1.0
    assert not synthesizer.messages
    assert player.play_due(1.0) == 2.0
    assert [m[:2] for m in synthesizer.messages] == [(0x90, 60), (0x90, 64)]
    assert player.play_due(9.0) is None
    assert [(one.time, one.action) for one in heard] == [
        (1.0, NOTE_ON + 60),
        (1.0, NOTE_ON + 64),
        (2.0, NOTE_OFF + 60),
        (2.5, NOTE_OFF + 64),
    ]
    assert player.planned() == 0


def test_an_event_is_not_planned_before_its_predecessor(player: Player) -> None:
    player.schedule([on(2.0, 1, 60), on(1.0, 2, 64)])
    assert player.play_due(1.5) == 2.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30))
def test_times_told_are_in_order_whatever_is_planned_when(events: list[tuple[float, float]]) -> None:
    heard: list[Timed] = []
    player = Player(Ledger(lambda _: None), Watcher(heard.append))
    player.begin()
    now = 0.0
    for position, (when, step) in enumerate(events):
        player.schedule([on(now + when - 0.2, position, position)])
        now += step
        player.play_due(now)
    player.play_due(now + 2)
    times = [one.time for one in heard]
    assert len(times) == len(events)
    assert times == sorted(times)


def test_lateness_is_counted(player: Player) -> None:
    player.schedule([on(1.0, 1, 60), off(2.0, 2, 60)])
    player.play_due(1.0 + LATE / 2)
    assert (player.played, player.late) == (1, 0)
    player.play_due(2.0 + LATE * 2)
    assert (player.played, player.late) == (2, 1)
    assert list(player.lateness) == pytest.approx([LATE / 2, LATE * 2])


def test_cancelling_keeps_what_comes_earlier(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 11, 60), off(1.1, 12, 60), on(1.2, 13, 62), off(1.3, 14, 62)])
    assert player.cancel(after=1.1) == 12
    assert player.planned() == 2
    player.play_due(9.0)
    assert [m[:2] for m in synthesizer.messages] == [(0x90, 60), (0x80, 60)]
    assert player.cancel() == 12


def test_cancelling_everything_says_what_sounded_last(player: Player) -> None:
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


def test_what_was_decided_before_an_interruption_is_not_played_after_it(player: Player, synthesizer: Synthesizer) -> None:
    player.interrupt(1.0)
    player.schedule([on(0.5, 1, 60)])
    assert player.play_due(9.0) is None
    assert not synthesizer.messages
    player.end()
    player.begin()
    player.schedule([on(9.5, 6, 62)])
    player.play_due(9.5)
    assert synthesizer.note_ons == [62]


def test_how_far_the_music_went_is_known_until_the_next_plan(player: Player) -> None:
    """Whoever silences it first, and however often."""
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


def test_a_turn_is_over_once_whoever_plans_has_heard_of_its_end(player: Player) -> None:
    player.interrupt(1.0)
    assert player.phase is Phase.INTERRUPTED
    assert not player.playing
    assert player.end()
    assert not player.end()
    player.interrupt(2.0)
    assert player.phase is Phase.IDLE


def test_what_the_human_does_ends_the_plan_until_it_is_made_anew(player: Player, synthesizer: Synthesizer) -> None:
    key = [Timed(1.1, NOTE_ON + 60, 80)]
    player.schedule([on(1.0, 1, 60), on(1.2, 2, 62)])
    player.play_due(1.0)
    player.ledger.keys.apply(key[0])
    assert player.release_for(key) == [Timed(1.1, NOTE_OFF + 60)]
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


def test_what_is_due_by_then_stays_unless_it_is_about_what_the_human_moves(player: Player, synthesizer: Synthesizer) -> None:
    plan = [on(1.0, 1, 60), on(1.1, 2, 62), off(1.2, 3, 60), on(1.3, 4, 64)]
    player.schedule(plan)
    player.play_due(1.0)
    action = [Timed(1.0, NOTE_ON + 70, 80)]
    player.release_for(action, until=1.2)
    player.play_due(1.1)
    assert player.reopen(action, 1.2) == 3
    player.play_due(2.0)
    assert synthesizer.messages[-1][:2] == (0x80, 60)
    player.schedule([on(3.0, 5, 72), on(3.1, 6, 74), on(3.2, 7, 76)])
    player.release_for([Timed(2.9, NOTE_ON + 74, 80)], until=4.0)
    player.play_due(4.0)
    assert synthesizer.note_ons[-1] == 72  # and what would have followed the key's was planned with it


def test_without_a_plan_there_is_nothing_to_settle(player: Player) -> None:
    player.end()
    player.release_for([Timed(1.1, NOTE_ON + 60, 80)])
    assert player.phase is Phase.IDLE


def test_a_pedal_that_the_human_has_down_as_well_is_lifted_and_not_counted(
    player: Player, synthesizer: Synthesizer, heard: list[Timed]
) -> None:
    player.schedule([Planned(1.0, 1, SUSTAIN_DOWN)])
    player.play_due(1.0)
    player.ledger.keys.apply(Timed(1.1, SUSTAIN_DOWN))
    player.release_for([Timed(1.1, SUSTAIN_DOWN)])
    assert player.interrupt(1.2) == []
    assert not synthesizer.pedals
    assert heard[-1] == Timed(1.2, SUSTAIN_UP)


def test_a_pedal_that_the_human_holds_too_does_not_end_the_plan(player: Player) -> None:
    player.schedule([Planned(0.0, 1, SUSTAIN_DOWN), Planned(9.0, 2, NOTE_ON + 60, 64)])
    player.play_due(0.1)
    player.ledger.keys.apply(Timed(0.1, SUSTAIN_DOWN))
    assert player.release_all(0.2) == []
    assert player.phase is Phase.OPEN
    assert player.planned() == 1


def test_releases_are_told_in_order_even_if_the_human_is_heard_as_of_earlier(player: Player, heard: list[Timed]) -> None:
    """An offset moves what is heard to before what has sounded."""
    player.schedule([on(1.0, 1, 60), on(1.1, 2, 62)])
    player.play_due(1.1)
    assert player.release_for([Timed(0.9, NOTE_ON + 60, 80)]) == [Timed(0.9, NOTE_OFF + 60)]
    player.interrupt(0.95)
    times = [one.time for one in heard]
    assert times == sorted(times)


def test_what_stays_of_the_plan_is_not_told_as_of_before_a_release(player: Player, heard: list[Timed]) -> None:
    """With an input offset the human is heard as of later than what is still planned."""
    player.schedule([on(1.0, 1, 60), on(2.0, 2, 62)])
    player.play_due(1.0)
    player.release_for([Timed(2.5, NOTE_ON + 60, 80)], until=2.2)
    player.play_due(2.0)
    player.interrupt(2.1)
    assert [one.time for one in heard] == sorted(one.time for one in heard)
    assert [one.action for one in heard] == [NOTE_ON + 60, NOTE_OFF + 60, NOTE_ON + 62, NOTE_OFF + 62]


def test_an_interruption_survives_a_dead_port(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 1, 60)])
    player.play_due(1.0)
    synthesizer.fails = lambda _: True
    assert player.interrupt(1.1) == [Timed(1.1, NOTE_OFF + 60)]
    synthesizer.fails = lambda _: False
    player.interrupt(1.2)
    assert synthesizer.silent


def test_an_interruption_names_every_release_even_if_it_failed(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 1, 60), on(1.0, 2, 64), on(1.0, 3, 67)])
    player.play_due(1.0)
    synthesizer.fails = lambda message: message[1] == 64
    released = player.interrupt(1.1)
    assert synthesizer.sounding == {(0, 64)}
    assert {one.action - NOTE_OFF for one in released} == {60, 64, 67}


def test_who_watches_is_told_of_the_releases_of_an_interruption(player: Player, heard: list[Timed]) -> None:
    player.schedule([on(1.0, 1, 60), on(1.0, 2, 64), off(5.0, 3, 60)])
    player.play_due(1.0)
    released = player.interrupt(1.1)
    assert heard[2:] == released == [Timed(1.1, NOTE_OFF + 60), Timed(1.1, NOTE_OFF + 64)]


def test_a_dead_port_does_not_stop_the_music(player: Player, synthesizer: Synthesizer) -> None:
    player.schedule([on(1.0, 1, 60), off(2.0, 2, 60), on(3.0, 3, 62)])
    synthesizer.fails = lambda _: True
    player.play_due(1.5)
    assert (player.played, player.unsent) == (0, 1)
    assert player.sounded == 1
    synthesizer.fails = lambda _: False
    player.play_due(9.0)
    player.ledger.close()
    assert not synthesizer.sounding
    assert 62 in synthesizer.note_ons


def test_holding_looks_to_the_end_of_the_plan(player: Player) -> None:
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


# --- whoever watches the plan ----------------------------------------------------------------------------------------

_moves = st.one_of(
    st.tuples(st.just("schedule"), st.integers(1, 4)),
    st.tuples(st.just("play"), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("key"), st.integers(60, 64)),
    st.tuples(st.sampled_from(["interrupt", "begin", "drop"]), st.just(0)),
)


@given(st.lists(_moves, max_size=40))
def test_who_watches_the_plan_knows_it_whatever_happens(moves: list[tuple[str, int]]) -> None:
    sounded: list[Timed] = []
    watcher = Watcher(sounded.append)
    player = Player(Ledger(Synthesizer().send), watcher)
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
            player.release_for(actions, now + 1)
            player.reopen(actions, now + 1)
        elif move == "interrupt":
            player.interrupt(now)
        elif move == "begin":
            player.begin()
        else:
            player.drop()
        left = player.planned()
        assert [one.serial for one in watcher.plan if one.serial > player.sounded] == [one.serial for one in player._plan]
        assert [one.action for one in watcher.plan[: len(watcher.plan) - left]] == [
            one.action for one in sounded if one.action < NOTE_OFF
        ]
