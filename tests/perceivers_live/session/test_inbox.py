"""The inbox keeps the order and loses nothing; under overload it keeps the net effect."""

from __future__ import annotations

import queue
import random
import signal
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import MessageReader
from perceivers_live.performer.merge import Played
from perceivers_live.session.inbox import MAX_ACTIONS, MAX_COMMANDS, Inbox, net_changes

MESSAGES = st.tuples(st.sampled_from((0x80, 0x90)), st.integers(60, 63), st.sampled_from((0, 64, 100)))
PEDALS = st.tuples(st.just(0xB0), st.sampled_from((64, 121, 123)), st.sampled_from((0, 127)))
STREAMS = st.lists(MESSAGES | PEDALS, max_size=60)


def played(*actions: Timed, released: Iterable[Timed] = (), silenced: bool = False, after: int = 0) -> Played:
    return Played(actions, list(released), silenced, after)


def key(time: float, pitch: int = 60, velocity: int = 64) -> Timed:
    return Timed(time, NOTE_ON + pitch, velocity) if velocity else Timed(time, NOTE_OFF + pitch)


def everything(inbox: Inbox) -> list[Any]:
    """All waiting items: actions, and the return values of commands."""
    found: list[Any] = []
    while True:
        try:
            item = inbox.get_nowait()
        except queue.Empty:
            return found
        if isinstance(item, list):
            found += [one for part in item for one in part.actions]
        else:
            found.append(item() if item is not None else "end")


class Piano:
    """The keys and the pedal that are down, with their presses; fails at an impossible action."""

    def __init__(self) -> None:
        self.down: dict[int, Timed | None] = {}

    def play(self, actions: Iterable[Timed]) -> Piano:
        for one in actions:
            if one.action < NOTE_OFF or one.action == SUSTAIN_DOWN:
                assert one.action not in self.down
                self.down[one.action] = one
            else:
                del self.down[SUSTAIN_DOWN if one.action == SUSTAIN_UP else one.action - NOTE_OFF]
        return self


# --- normal operation ----------------------------------------------------------------------------------------------


def test_items_keep_their_order() -> None:
    inbox = Inbox()
    inbox.put(played(key(1)))
    inbox.put(lambda: "takeover")  # type: ignore[arg-type, return-value]
    inbox.put(played(key(2, velocity=0)))
    inbox.put(None)
    assert inbox.qsize() == 3
    assert everything(inbox) == [key(1), "takeover", key(2, velocity=0), "end"]
    assert inbox.qsize() == 0


def test_consecutive_actions_are_returned_together_but_not_across_a_command() -> None:
    inbox = Inbox()
    inbox.put(played(key(1)))
    inbox.put(played(key(2, 61)))
    inbox.put(lambda: None)
    inbox.put(played(key(3, 62)))
    first, _, last = inbox.get(), inbox.get(), inbox.get()
    assert first == [played(key(1)), played(key(2, 61))]
    assert last == [played(key(3, 62))]


def test_repeated_wakes_are_merged() -> None:
    inbox = Inbox()
    for _ in range(1000):
        inbox.wake()
    assert everything(inbox) == [None]
    inbox.wake()
    assert everything(inbox) == [None]


def test_get_waits_for_the_timeout_or_the_next_item() -> None:
    inbox = Inbox()
    with pytest.raises(queue.Empty):
        inbox.get_nowait()
    with pytest.raises(queue.Empty):
        inbox.get(0.01)
    threading.Timer(0.05, lambda: inbox.put(played(key(1)))).start()
    assert inbox.get() == [played(key(1))]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs a signal")
def test_signal_handler_may_put_the_end_at_any_time() -> None:
    """Also while the interrupted thread is putting an item."""
    inbox = Inbox()
    ended = 0

    def end(*_: object) -> None:
        nonlocal ended
        inbox.put(None)
        ended += 1

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        i = 0
        while ended < 100:
            inbox.put(played(key(i, i % 128)))
            i += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert everything(inbox).count("end") == ended


# --- under a flood -------------------------------------------------------------------------------------------------


def test_flood_is_bounded_and_keeps_its_net_effect(caplog: pytest.LogCaptureFixture) -> None:
    """Ten thousand messages a second for three seconds, which nobody reads."""
    inbox, reader, chance, piano = Inbox(), MessageReader(), random.Random(1), Piano()
    for i in range(600_000 // 20):
        time, pitch = i / 10_000, chance.randrange(128)
        message = chance.choice(((0x90, pitch, 1 + i % 127), (0x80, pitch, 0), (0xB0, 64, chance.choice((0, 127)))))
        actions = reader.feed(time, message)
        piano.play(actions)
        inbox.put(Played(actions))
        assert inbox.qsize() <= MAX_ACTIONS
    left = everything(inbox)
    assert len(left) <= MAX_ACTIONS
    assert inbox.dropped > 0
    assert Piano().play(left).down == piano.down  # the same keys and pedal, with their latest presses
    assert [one.time for one in left] == sorted(one.time for one in left)
    assert len(caplog.records) == 1


def test_releases_of_earlier_notes_survive_a_flood() -> None:
    inbox = Inbox()
    inbox.put(played(key(0, 60), key(0, 61), Timed(0, SUSTAIN_DOWN)))
    piano = Piano().play(everything(inbox))
    inbox.put(played(key(1, 60, 0), Timed(1, SUSTAIN_UP)))
    for i in range(MAX_ACTIONS):
        inbox.put(played(key(2 + i, 62), key(2 + i, 62, 0)))
    assert set(piano.play(everything(inbox)).down) == {61}


def test_releases_by_the_player_survive_a_flood() -> None:
    inbox, ours = Inbox(), [key(i, 70 + i, 0) for i in range(3)]
    inbox.put(played(key(0, 60), released=ours[:2], silenced=True, after=5))
    for i in range(MAX_ACTIONS):
        inbox.put(played(key(2 + i, 62), key(2 + i, 62, 0), after=6))
    inbox.put(played(key(9, 63), released=ours[2:], after=7))
    first, *rest = [part for item in (inbox.get(),) if isinstance(item, list) for part in item]
    assert (first.released, first.silenced) == (ours[:2], True)
    assert [one for part in rest for one in part.released] == ours[2:]


def test_remaining_actions_of_a_flood_keep_their_place_among_the_machines_events() -> None:
    inbox = Inbox()
    for i in range(MAX_ACTIONS + 2):
        inbox.put(played(key(i, i % 100, (i + 1) % 2), after=i))
    assert inbox.dropped
    parts = inbox.get()
    assert isinstance(parts, list)
    assert len(parts) < 300
    assert all(one.time == part.after for part in parts for one in part.actions)
    assert all(part.actions for part in parts)


def test_the_newest_commands_survive_a_flood_of_commands() -> None:
    inbox = Inbox()
    inbox.put(played(key(1)))
    for i in range(10 * MAX_COMMANDS):
        inbox.put(lambda i=i: i)  # type: ignore[misc]
    assert everything(inbox) == [key(1), *range(9 * MAX_COMMANDS, 10 * MAX_COMMANDS)]


def test_flood_of_commands_between_notes_leaves_few_items() -> None:
    inbox = Inbox()
    for i in range(20_000):
        inbox.put(played(key(i, 62), key(i, 62, 0)))
        inbox.put(lambda: None)
    pieces = 0
    while inbox.qsize():
        inbox.get_nowait()
        pieces += 1
    assert pieces <= 2 * MAX_COMMANDS + 1
    with pytest.raises(queue.Empty):
        inbox.get_nowait()


def test_flood_across_commands_keeps_notes_and_commands(caplog: pytest.LogCaptureFixture) -> None:
    inbox, reader, piano = Inbox(), MessageReader(), Piano()
    for i in range(20 * MAX_ACTIONS):
        actions = reader.feed(float(i), (0x90, i % 100, 64))
        piano.play(actions)
        inbox.put(Played(actions))
        if i % 100 == 0:
            inbox.put(lambda i=i: i)  # type: ignore[misc]
    assert inbox.qsize() <= MAX_ACTIONS + MAX_COMMANDS
    found = everything(inbox)
    assert Piano().play(one for one in found if isinstance(one, Timed)).down == piano.down
    assert [one for one in found if isinstance(one, int)] == list(range(0, 20 * MAX_ACTIONS, 100))[-MAX_COMMANDS:]
    assert len(caplog.records) == 1


def test_nothing_is_dropped_after_a_flood(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox()
    for flood in (1, 2):
        for i in range(MAX_ACTIONS):
            inbox.put(played(key(i, 62), key(i, 62, 0)))
        everything(inbox)
        dropped = inbox.dropped
        inbox.put(played(key(1, 60)))
        inbox.put(played(key(2, 60, 0)))
        assert everything(inbox) == [key(1, 60), key(2, 60, 0)]
        assert inbox.dropped == dropped
        assert len(caplog.records) == flood


@settings(deadline=None)
@given(before=STREAMS, flood=STREAMS)
def test_net_changes_have_the_same_effect_as_all_actions(before: list[tuple[int, ...]], flood: list[tuple[int, ...]]) -> None:
    reader = MessageReader()
    first = [one for message in before for one in reader.feed(0.0, message)]
    second = [one for i, message in enumerate(flood, 1) for one in reader.feed(float(i), message)]
    whole, short = Piano().play(first).play(second), Piano().play(first).play(net_changes(second))
    assert short.down == whole.down
    assert len(net_changes(second)) <= 2 * 4 + 2
    assert net_changes(net_changes(second)) == net_changes(second)


def test_concurrent_puts_lose_nothing() -> None:
    inbox, count = Inbox(), 4
    done = [threading.Event() for _ in range(count)]

    def play(part: int) -> None:
        for i in range(3000):
            inbox.put(played(key(i, part), key(i, part, 0)))
            inbox.wake()
            if i % 300 == 0:  # fewer in total than the limit
                inbox.put(lambda: None)
        inbox.put(done[part].set)

    threads = [threading.Thread(target=play, args=(part,)) for part in range(count)]
    for thread in threads:
        thread.start()
    piano = Piano()
    while not all(event.is_set() for event in done):
        item = inbox.get(20.0)
        if isinstance(item, list):
            for part in item:
                piano.play(part.actions)
        elif item is not None:
            item()
    for thread in threads:
        thread.join()
    assert piano.down == {}
    assert everything(inbox) in ([], [None])
