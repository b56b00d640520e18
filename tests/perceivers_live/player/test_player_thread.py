"""The player's thread: in order, never early, and silent at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from perceivers_live.player.player import MAX_OVERDUE, Phase, Player, PlayerThread
from tests.perceivers_live.player.planned import off, on
from tests.perceivers_live.receiver import Synthesizer
from tests.waiting import until


@pytest.fixture
def thread(player: Player, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayerThread]:
    monkeypatch.setattr("perceivers_live.player.player.MAX_OVERDUE", 60.0)  # a busy machine may be half a second late
    thread = PlayerThread(player)
    thread.start()
    yield thread
    thread.stop()


@pytest.mark.usefixtures("thread")
def test_the_thread_plays_in_order_and_never_early(player: Player, synthesizer: Synthesizer) -> None:
    sent: list[float] = []
    synthesizer.fails = lambda _: sent.append(time.perf_counter()) is not None
    start = time.perf_counter() + 0.05
    plan = [(on if i % 2 == 0 else off)(start + 0.003 * i, i, 60 + i // 2) for i in range(60)]
    for i in range(0, 60, 7):
        player.schedule(plan[i : i + 7])
        time.sleep(0.005)
    assert until(lambda: len(synthesizer.messages) == 60)
    assert [m[1] for m in synthesizer.messages] == [60 + i // 2 for i in range(60)]
    assert all(at >= planned.time for at, planned in zip(sent, plan, strict=True))


@pytest.mark.usefixtures("thread")
def test_thread_follows_an_earlier_deadline_after_a_cancellation(player: Player, synthesizer: Synthesizer) -> None:
    now = time.perf_counter()
    player.schedule([on(now + 3600, 1, 60)])
    time.sleep(0.02)
    player.cancel()
    player.schedule([on(now, 1, 62)])
    assert until(lambda: synthesizer.note_ons == [62])


@pytest.mark.usefixtures("thread")
def test_an_interruption_silences_the_thread_at_once(player: Player, synthesizer: Synthesizer) -> None:
    now = time.perf_counter()
    player.schedule([on(now + 0.001 * i, i, i) for i in range(128)])
    assert until(lambda: len(synthesizer.messages) > 5)
    player.interrupt(time.perf_counter())
    assert not synthesizer.sounding
    count = len(synthesizer.messages)
    time.sleep(0.02)
    assert len(synthesizer.messages) == count


def test_an_event_planned_just_as_the_thread_goes_to_sleep_is_played(player: Player, synthesizer: Synthesizer) -> None:
    """The performer plans the last event of a reply after the thread has seen an empty plan and before it sleeps."""
    play_due, planned = player.play_due, threading.Event()

    def interleaved(now: float) -> float | None:
        deadline = play_due(now)
        if deadline is None and not planned.is_set():
            planned.set()
            player.schedule([on(time.perf_counter(), 1, 60)])
        return deadline

    player.play_due = interleaved  # type: ignore[method-assign]
    thread = PlayerThread(player)
    thread.start()
    deadline = time.monotonic() + 20.0
    while not synthesizer.messages and time.monotonic() < deadline:
        time.sleep(0.002)
    thread.stop()
    assert synthesizer.note_ons == [60]


def test_stopping_the_thread_leaves_the_plan_unplayed(player: Player, synthesizer: Synthesizer) -> None:
    thread = PlayerThread(player)
    thread.start()
    player.schedule([on(time.perf_counter() + 3600, 1, 60)])
    thread.stop()
    assert player.planned() == 1
    assert not synthesizer.messages


def test_long_overdue_plan_is_dropped(player: Player, synthesizer: Synthesizer) -> None:
    """The computer has slept; the missed events are not played all at once."""
    player.schedule([on(1.0, 1, 60), on(1.1, 2, 62), on(9.9, 3, 64)])
    player.play_due(1.0)
    player.drop_overdue(1.2)  # a short delay drops nothing
    player.play_due(1.2)
    player.schedule([on(1.3, 4, 65)])
    player.drop_overdue(10.5)
    player.play_due(10.5)
    assert synthesizer.note_ons == [60, 62]
    assert player.phase is Phase.DROPPED
    assert player.cancel() == 2


def test_the_thread_drops_a_plan_that_is_long_overdue(player: Player, synthesizer: Synthesizer) -> None:
    """As after the computer was suspended."""
    player.schedule([on(time.perf_counter() - 2 * MAX_OVERDUE, 1, 60)])
    thread = PlayerThread(player)
    thread.start()
    assert until(lambda: player.phase is Phase.DROPPED)
    thread.stop()
    assert not synthesizer.messages
