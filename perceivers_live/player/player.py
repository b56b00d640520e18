"""The player: holds the plan and sounds it on time. It never waits for the engine.

The plan is what was generated and has not sounded. Each planned event knows its position in the engine's history, so that
whoever cancels learns how far the music really went.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple, Protocol

from engine.events import NOTE_OFF, PITCHES, REST, SUSTAIN_DOWN, SUSTAIN_UP, Timed, bin_velocity, subject
from engine.realtime import PLAYER, fine_timing, set_realtime
from perceivers_live.player.ledger import Ledger

log = logging.getLogger(__name__)
SPIN = 0.001  # seconds before a deadline in which the thread no longer sleeps
LATE = 0.010  # seconds after which an event counts as late
SWITCH = 0.0001  # seconds for which a busy Python thread may hold this one up (``benchmarks/isolation.py``)
PAUSE = 0.2  # seconds after a fault
STALE = 0.5  # seconds after which nobody wants to hear it any more: the machine has slept, or choked


class Planned(NamedTuple):
    """An event of the plan: when to sound (monotonic seconds), its place in the engine's history, what to do."""

    time: float
    position: int
    action: int
    velocity: int = 0  # bin, for a note-on


class Interruption(NamedTuple):
    """What a plan's early end left: the last position that sounded (None: there has been no plan), and the releases sent."""

    position: int | None
    released: Sequence[Timed]


class Standing(NamedTuple):
    """How far the plan got."""

    passed: int  # events that sounded, ever
    sounded: int  # position of the last of them
    last: int  # position of the last event that sounded or is going to


class PlanObserver(Protocol):
    """Told what becomes of the plan, in order and under the player's lock: to be noted, not to be waited for. Planned events are
    counted; those that were taken back count no more, so that later ones have their numbers.
    """

    def planned(self, first: int, events: Sequence[Planned]) -> None:
        """These were added to the plan, numbered from ``first`` on."""

    def taken_back(self, first: int) -> None:
        """Those numbered ``first`` and later will not sound."""


class Player:
    """The plan and its way out. Safe to use from any thread; the plan is in time order, and so is the output."""

    def __init__(
        self, ledger: Ledger, heard: Callable[[Timed], None] = lambda _: None, observer: PlanObserver | None = None
    ) -> None:
        self.ledger = ledger
        self._on_sound = heard  # told of everything that sounds, with its planned time
        self._observer = observer
        self._plan: deque[Planned] = deque()
        self._count = 0  # events ever planned, without those that were taken back
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self.sounded: int | None = None  # position of the last event that sounded; None: there has been no plan
        self.passed = 0  # events that sounded, ever
        self.playing = False  # whether there is a plan, even one that is empty at the moment
        self._last = float("-inf")  # planned time of that event
        self._unheard = False  # whether the last event found no open port
        self.torn = False  # whether the plan does not fit what sounds any more, and was dropped: it has to be made anew
        self.unsettled = False  # whether the human has done something that the plan does not know of
        self.played = self.late = self.unheard = 0
        self.lateness: deque[float] = deque(maxlen=4096)  # seconds, of the last events

    def begin(self, position: int) -> None:
        """A new plan starts after ``position``."""
        with self._lock:
            self.sounded, self.playing = position, True
            self.torn = self.unsettled = False

    def end(self) -> None:
        """There is no plan any more; nothing can be scheduled until the next one begins."""
        with self._lock:
            self._keep(())
            self.playing = self.torn = self.unsettled = False

    def schedule(self, events: Iterable[Planned]) -> None:
        """Appends to the plan; an event earlier than its predecessor is moved up to it. What was decided before the plan was cut
        short is left out.
        """
        with self.changed:
            if self.playing and not (self.torn or self.unsettled):
                self._append(events)
            self.changed.notify()

    def cancel(self, after: float = float("-inf")) -> int | None:
        """Drops what is planned later than ``after``; returns the position of the last event that stays or sounded, or None if
        there has been no plan.
        """
        with self._lock:
            self._keep(list(takewhile(lambda one: one.time <= after, self._plan)))
            self.torn = self.unsettled = False
            return self._plan[-1].position if self._plan else self.sounded

    def interrupt(self, now: float) -> Interruption:
        """Silence at once: ends the plan and closes what sounds. A pedal that the human has down as well is not counted among
        the releases.
        """
        with self._lock:
            self.end()
            released = self._told(self.ledger.close(now))
            return Interruption(self.sounded, [one for one in released if one.action != SUSTAIN_UP or not self.ledger.keys.pedal])

    def make_room(self, actions: Sequence[Timed], until: float = float("-inf")) -> list[Timed]:
        """Makes room for the human's actions: gives up the keys that we hold; returns the releases sent. The plan has to be
        made anew. What is due by ``until`` stays meanwhile, up to the first event for a key, or the pedal, that the human moves.
        """
        with self._lock:
            if actions and self.playing:
                self._shorten(actions, until)
                self.unsettled = True
            return self._told([released for one in actions for released in self.ledger.make_room(one)])

    def settle(self, actions: Sequence[Timed], until: float) -> Standing:
        """The same actions have reached whoever plans, and the plan, as far as it stays, can be added to again. Its events may
        have other positions in the history now: see ``renumber``.
        """
        with self._lock:
            self._shorten(actions, until)
            self.torn = self.unsettled = False
            sounded = self.sounded or 0
            return Standing(self.passed, sounded, self._plan[-1].position if self._plan else sounded)

    def renumber(self, positions: Mapping[int, int]) -> None:
        """The history was told anew: events of the plan, or what has sounded of it by now, have other positions. One that has
        none is dropped.
        """
        with self._lock:
            known = [one._replace(position=positions[one.position]) for one in self._plan if one.position in positions]
            if len(known) == len(self._plan):
                self._plan = deque(known)
            else:
                self._keep(())
                self._append(known)
            if self.sounded is not None:
                self.sounded = positions.get(self.sounded, self.sounded)

    def _shorten(self, actions: Sequence[Timed], until: float) -> None:
        moved = {subject(one.action) for one in actions}
        self._keep(list(takewhile(lambda one: one.time <= until and subject(one.action) not in moved, self._plan)))

    def _append(self, events: Iterable[Planned]) -> None:
        added = []
        for event in events:
            added.append(event._replace(time=max(event.time, self._plan[-1].time if self._plan else self._last)))
            self._plan.append(added[-1])
        if added and self._observer is not None:
            self._observer.planned(self._count, added)
        self._count += len(added)

    def _keep(self, stays: Sequence[Planned]) -> None:
        """The plan ends with these, its first ones."""
        gone = len(self._plan) - len(stays)
        self._plan = deque(stays)
        if gone:
            self._count -= gone
            if self._observer is not None:
                self._observer.taken_back(self._count)

    def planned(self) -> int:
        """Events that have not sounded yet."""
        with self._lock:
            return len(self._plan)

    def holding(self) -> tuple[frozenset[int], bool]:
        """The pitches we will hold once the plan has sounded, and whether the pedal is down then."""
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
        """Sounds everything due; returns the next deadline."""
        with self._lock:
            while self._plan and self._plan[0].time <= now:
                self._play(self._plan.popleft(), now)
            return self.deadline()

    def drop_overdue(self, now: float) -> None:
        """Drops a plan that should have gone on long ago, so that it is made anew."""
        with self._lock:
            if self._plan and now - self._plan[0].time > STALE:
                self._tear()

    def drop(self) -> None:
        """Drops the plan, so that it is made anew."""
        with self._lock:
            self._tear()

    def deadline(self) -> float | None:
        """When the next event is due, None if the plan is empty."""
        with self._lock:
            return self._plan[0].time if self._plan else None

    def _play(self, event: Planned, now: float) -> None:
        if event.action >= REST:
            return  # a rest only passes time; the history can spell it again
        velocity = bin_velocity(event.velocity) if event.action < NOTE_OFF else 0
        sent = True
        try:
            if not self.ledger.play(event.action, velocity):
                self._tear()
                return
        except Exception as error:
            if not self._unheard:
                log.warning("the output port does not take notes (%s)", error)
            sent = False
            self.unheard += 1
        self._unheard = not sent
        self.sounded, self._last = event.position, max(self._last, event.time)
        self.passed += 1
        if sent:
            self.played += 1
            self.lateness.append(now - event.time)
            self.late += now - event.time > LATE
            self._told([Timed(event.time, event.action, velocity)])

    def _tear(self) -> None:
        self._keep(())
        self.torn = True

    def _told(self, sounded: list[Timed]) -> list[Timed]:
        """Tells whoever watches, in time order, and returns what was told."""
        for one in sounded:
            self._last = max(self._last, one.time)
            try:
                self._on_sound(one._replace(time=self._last))
            except Exception:  # whoever watches must not stop the music
                log.exception("a listener failed")
        return sounded


class PlayerThread:
    """Runs a player on absolute deadlines of the monotonic clock: sleeps, and spins over the last millisecond."""

    def __init__(self, player: Player, failed: Callable[[], None] = lambda: None) -> None:
        """``failed`` is told of a fault, after which the plan has been dropped, but not what sounds."""
        self._player, self._failed = player, failed
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    def start(self) -> None:
        sys.setswitchinterval(SWITCH)
        fine_timing()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; the plan stays unplayed."""
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
                self._failed()
                time.sleep(PAUSE)  # should it fail again

    def _round(self) -> None:
        """Plays what is due, and waits for what is next."""
        now = time.perf_counter()
        self._player.drop_overdue(now)
        self._player.play_due(now)
        with self._player.changed:
            deadline = self._player.deadline()  # looked up under the lock: nothing can be planned before the sleep
            wait = None if deadline is None else deadline - time.perf_counter() - SPIN
            if not self._stop and (wait is None or wait > 0):
                self._player.changed.wait(wait)
                return
        while deadline is not None and time.perf_counter() < deadline and not self._stop:
            time.sleep(0)
