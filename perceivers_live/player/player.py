"""The player: holds the plan and sends it on time. It never waits for the engine.

The plan is the list of decided events that have not sounded. Each has a serial number, so that the performer knows after a
cancellation which event was the last to sound.
"""

from __future__ import annotations

import enum
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from engine.events import NOTE_OFF, PITCHES, REST, SUSTAIN_DOWN, SUSTAIN_UP, Timed, subject
from engine.realtime import PLAYER, fine_timing, set_realtime
from perceivers_live.player.ledger import Ledger, Sent

log = logging.getLogger(__name__)
SPIN = 0.001  # seconds before a deadline in which the thread polls instead of sleeping
LATE = 0.010  # seconds after which an event counts as late
SWITCH_INTERVAL = 0.0001  # seconds; Python's switch interval between threads (see ``benchmarks/isolation.py``)
FAULT_PAUSE = 0.2  # seconds to wait after a fault
MAX_OVERDUE = 0.5  # seconds; a plan this late (the computer was suspended or overloaded) is dropped


class Planned(NamedTuple):
    """An event of the plan. ``time``: monotonic seconds. Serial numbers increase."""

    time: float
    serial: int
    action: int
    velocity: int = 0  # MIDI, for a note-on


class Phase(enum.Enum):
    """State of the plan."""

    IDLE = enum.auto()  # the machine does not play
    OPEN = enum.auto()  # events can be added
    DROPPED = enum.auto()  # the plan was dropped and must be decided again
    INPUT_PENDING = enum.auto()  # the human has played; the performer has not absorbed it yet, but may add what it just decided
    INTERRUPTED = enum.auto()  # the plan was ended; the performer has not ended the turn yet


class PlayerObserver:
    """Receives changes of the plan, in order and under the player's lock. Methods must not block or raise."""

    def sounded(self, sent: Sent) -> None:
        """An event of the machine was sent, or failed to be (``fault``); its time is the planned one."""

    def planned(self, events: Sequence[Planned]) -> None:
        """Events were added to the plan."""

    def dropped(self, first: int) -> None:
        """Planned events from this serial number on were dropped."""


class Player:
    """The plan and its output, both in time order. Thread-safe. ``changed`` is the lock; it is notified when events are added."""

    def __init__(self, ledger: Ledger, observer: PlayerObserver | None = None) -> None:
        self.ledger = ledger
        self._observer = observer or PlayerObserver()
        self._plan: deque[Planned] = deque()
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self.phase = Phase.IDLE
        self._continues = True  # while input is pending: whether the next event follows the plan, of which nothing was dropped
        self._open_until = float("inf")  # the latest time of an event that can be added then
        self._closed_for: set[int] = set()  # and the keys and pedal about which none can be added
        self.sounded = 0  # serial number of the last event that sounded, 0 before any has
        self._last = float("-inf")  # planned time of that event
        self._failing = False  # whether the last event could not be sent
        self.played = self.late = self.unsent = 0  # counters: events sent, sent late, not sent because the output failed
        self.lateness: deque[float] = deque(maxlen=4096)  # seconds, of the last events

    @property
    def playing(self) -> bool:
        """Whether there is a plan; it may be empty."""
        return self.phase in (Phase.OPEN, Phase.DROPPED, Phase.INPUT_PENDING)

    def begin(self) -> None:
        """Starts a new plan."""
        with self._lock:
            self._open()

    def end(self) -> bool:
        """Ends the turn: events are not accepted until ``begin``. Returns whether there was a turn."""
        with self._lock:
            was, self.phase = self.phase, Phase.IDLE
            self._truncate(0)
            return was is not Phase.IDLE

    def schedule(self, events: Iterable[Planned]) -> None:
        """Appends events to the plan, none earlier than its predecessor. Ignored if they were decided before the plan was
        shortened. While input is pending, events are added that would have stayed, had they been in the plan before the input.
        """
        with self.changed:
            added = []
            for event in events:
                if not self._takes(event):
                    self._continues = False  # no later one either
                    break
                added.append(event._replace(time=max(event.time, self._plan[-1].time if self._plan else self._last)))
                self._plan.append(added[-1])
            if added:
                self._observer.planned(added)
                self.changed.notify()

    def _takes(self, event: Planned) -> bool:
        """Whether an event can be added now."""
        if self.phase is Phase.INPUT_PENDING:
            return self._continues and event.time <= self._open_until and subject(event.action) not in self._closed_for
        return self.phase is Phase.OPEN

    def cancel(self, after: float = float("-inf")) -> int:
        """Drops events later than ``after``; returns the serial number of the last event that stays or has sounded."""
        with self._lock:
            self._truncate(sum(1 for _ in takewhile(lambda one: one.time <= after, self._plan)))
            return self._reopen()

    def interrupt(self, now: float) -> list[Timed]:
        """Ends the plan and releases all notes immediately. Returns the releases sent, without that of a pedal that the human
        holds.
        """
        with self._lock:
            if self.phase is not Phase.IDLE:
                self.phase = Phase.INTERRUPTED
            self._truncate(0)
            released = self._report(self.ledger.release_machine(now))
            return self._without_human_pedal(released)

    def release_all(self, now: float) -> list[Timed]:
        """Releases all notes immediately; the plan stays up to the first event that concerns one of them. Returns the releases
        that were sent, except that of a pedal that the human holds.
        """
        with self._lock:
            released = self._without_human_pedal(self._report(self.ledger.release_machine(now)))
            if released and self.playing:
                self._await_input(released, float("inf"))
            return released

    def _without_human_pedal(self, released: Sequence[Timed]) -> list[Timed]:
        return [one for one in released if one.action != SUSTAIN_UP or not self.ledger.keys.pedal]

    def react_to(self, actions: Sequence[Timed], until: float = float("-inf")) -> list[Timed]:
        """Releases the machine's notes on the keys that the human strikes; returns the releases sent. The plan must be decided
        again. Until then events up to ``until`` stay, except from the first one on that concerns a key or pedal of ``actions``.
        """
        with self._lock:
            if actions and self.playing:
                self._await_input(actions, until)
            return self._report([released for one in actions for released in self.ledger.release_for(one)])

    def _await_input(self, actions: Sequence[Timed], until: float) -> None:
        """Shortens the plan. A decision that is being made continues it, unless events of the plan were dropped."""
        self._continues &= not self._shorten(actions, until)
        self._open_until = until
        self._closed_for |= {subject(one.action) for one in actions}
        self.phase = Phase.INPUT_PENDING

    def reopen(self, actions: Sequence[Timed], until: float) -> int:
        """Accepts events again, after the performer has absorbed the same actions. Returns the serial number of the last event
        that stays or has sounded.
        """
        with self._lock:
            self._shorten(actions, until)
            return self._reopen()

    def _reopen(self) -> int:
        if self.playing:
            self._open()
        return self._plan[-1].serial if self._plan else self.sounded

    def _open(self) -> None:
        self.phase = Phase.OPEN
        self._continues = True
        self._closed_for.clear()

    def _shorten(self, actions: Sequence[Timed], until: float) -> bool:
        """Drops events later than ``until``, and from the first one on that concerns a key or pedal of ``actions``. Returns
        whether there were any.
        """
        affected = {subject(one.action) for one in actions}
        stay = takewhile(lambda one: one.time <= until and subject(one.action) not in affected, self._plan)
        return self._truncate(sum(1 for _ in stay))

    def _truncate(self, count: int) -> bool:
        """Keeps the first ``count`` events of the plan. Returns whether there were more."""
        shortened = count < len(self._plan)
        if shortened:
            first = self._plan[count].serial
            while len(self._plan) > count:
                self._plan.pop()
            self._observer.dropped(first)
        return shortened

    def planned(self) -> int:
        """Number of planned events."""
        with self._lock:
            return len(self._plan)

    def held_after_plan(self) -> tuple[frozenset[int], bool]:
        """The pitches that the machine will hold after the plan, and whether it will hold the pedal."""
        with self._lock:
            notes, pedal = set(self.ledger.notes), self.ledger.pedal
            for event in self._plan:
                if event.action < NOTE_OFF:
                    notes.add(event.action)
                elif event.action < NOTE_OFF + PITCHES:
                    notes.discard(event.action - NOTE_OFF)
                elif event.action != REST:
                    pedal = event.action == SUSTAIN_DOWN
            return frozenset(notes), pedal

    def play_due(self, now: float) -> float | None:
        """Sends all events that are due; returns the next deadline."""
        with self._lock:
            while self._plan and self._plan[0].time <= now:
                self._play(self._plan.popleft(), now)
            return self.deadline()

    def drop_overdue(self, now: float) -> None:
        """Drops a plan that is more than ``MAX_OVERDUE`` late, so that it is decided again."""
        with self._lock:
            if self._plan and now - self._plan[0].time > MAX_OVERDUE:
                self._drop_plan()

    def drop(self) -> None:
        """Drops the plan, so that it is decided again."""
        with self._lock:
            self._drop_plan()

    def deadline(self) -> float | None:
        """When the next event is due; None if the plan is empty."""
        with self._lock:
            return self._plan[0].time if self._plan else None

    def _play(self, event: Planned, now: float) -> None:
        if event.action >= REST:
            return  # a rest sends nothing, and the history does not need it
        sent = self.ledger.play(event.action, event.velocity, event.time)
        if sent is None:
            self._plan.appendleft(event)
            self._drop_plan()
            return
        if sent.fault is not None:
            if not self._failing:
                log.warning("sending to the output port failed (%s)", sent.fault)
            self.unsent += 1
        else:
            self.played += 1
            self.lateness.append(now - event.time)
            self.late += now - event.time > LATE
        self._failing = sent.fault is not None
        self.sounded, self._last = event.serial, max(self._last, event.time)
        self._report([sent])

    def _drop_plan(self) -> None:
        self._truncate(0)
        self._continues = False
        if self.phase is Phase.OPEN:
            self.phase = Phase.DROPPED

    def _report(self, sounded: Sequence[Sent]) -> list[Timed]:
        """Reports sent actions to the observer, in time order; returns them as played."""
        for one in sounded:
            self._last = max(self._last, one.played.time)
            self._observer.sounded(
                one._replace(played=one.played._replace(time=self._last), sent=one.sent._replace(time=self._last))
            )
        return [one.played for one in sounded]


class PlayerThread:
    """Runs a player on absolute deadlines of the monotonic clock: sleeps, and polls in the last millisecond."""

    def __init__(self, player: Player, on_fault: Callable[[], None] = lambda: None) -> None:
        """``on_fault`` is called after a fault. By then the plan has been dropped; notes may still sound."""
        self._player, self._on_fault = player, on_fault
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    def start(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL)
        fine_timing()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread. The plan is not played."""
        with self._player.changed:
            self._stop = True
            self._player.changed.notify()
        self._thread.join(1.0)

    def _run(self) -> None:
        set_realtime(PLAYER)
        while not self._stop:
            try:
                self._round()
            except Exception:
                log.exception("the player failed; its plan is dropped")
                self._player.drop()
                self._on_fault()
                time.sleep(FAULT_PAUSE)  # in case it fails again

    def _round(self) -> None:
        """Sends what is due, and waits for the next event."""
        now = time.perf_counter()
        self._player.drop_overdue(now)
        self._player.play_due(now)
        with self._player.changed:
            deadline = self._player.deadline()  # read under the lock, so that no event is added before the wait
            wait = None if deadline is None else deadline - time.perf_counter() - SPIN
            if not self._stop and (wait is None or wait > 0):
                self._player.changed.wait(wait)
                return
        while deadline is not None and time.perf_counter() < deadline and not self._stop:
            time.sleep(0)
