"""The player: holds the plan and sounds it on time. It never waits for the engine.

The plan is what was generated and has not sounded. Each planned event has a serial number, so that whoever cancels learns how far
the music really went.
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
SPIN = 0.001  # seconds before a deadline in which the thread no longer sleeps
LATE = 0.010  # seconds after which an event counts as late
SWITCH = 0.0001  # seconds for which a busy Python thread may hold this one up (``benchmarks/isolation.py``)
PAUSE = 0.2  # seconds after a fault
STALE = 0.5  # seconds after which nobody wants to hear it any more: the machine has slept, or choked


class Planned(NamedTuple):
    """An event of the plan: when to sound (monotonic seconds), its serial number, what to do. Serial numbers rise."""

    time: float
    serial: int
    action: int
    velocity: int = 0  # MIDI, for a note-on


class Phase(enum.Enum):
    """What the plan is at."""

    NONE = enum.auto()  # nobody plays
    OPEN = enum.auto()  # it sounds, and can be added to
    TORN = enum.auto()  # it does not fit what sounds any more and was dropped: it has to be made anew
    UNSETTLED = enum.auto()  # the human has done something that the plan does not know of
    SILENCED = enum.auto()  # it was ended at once; whoever made it has yet to say that the turn is over


class PlayerObserver:
    """Told what becomes of the plan, in order and under the player's lock: must neither wait nor raise."""

    def sounded(self, one: Sent) -> None:
        """The machine played this, at its planned time."""

    def planned(self, events: Sequence[Planned]) -> None:
        """These were added to the plan."""

    def taken_back(self, first: int) -> None:
        """What was planned with this serial number or a later one will not sound."""


class Player:
    """The plan and its way out. Safe to use from any thread; the plan is in time order, and so is the output."""

    def __init__(self, ledger: Ledger, observer: PlayerObserver | None = None) -> None:
        self.ledger = ledger
        self._observer = observer or PlayerObserver()
        self._plan: deque[Planned] = deque()
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self.phase = Phase.NONE
        self.sounded = 0  # serial number of the last event that sounded, 0 before any has
        self._last = float("-inf")  # planned time of that event
        self._unheard = False  # whether the last event found no open port
        self.played = self.late = self.unheard = 0
        self.lateness: deque[float] = deque(maxlen=4096)  # seconds, of the last events

    @property
    def playing(self) -> bool:
        """Whether there is a plan, even one that is empty at the moment."""
        return self.phase in (Phase.OPEN, Phase.TORN, Phase.UNSETTLED)

    def begin(self) -> None:
        """A new plan starts."""
        with self._lock:
            self.phase = Phase.OPEN

    def end(self) -> bool:
        """The turn is over: nothing can be scheduled until the next plan begins. Returns whether there was one."""
        with self._lock:
            was, self.phase = self.phase, Phase.NONE
            self._keep(0)
            return was is not Phase.NONE

    def schedule(self, events: Iterable[Planned]) -> None:
        """Appends to the plan; an event earlier than its predecessor is moved up to it. What was decided before the plan was cut
        short is left out.
        """
        with self.changed:
            if self.phase is not Phase.OPEN:
                return
            added = []
            for event in events:
                added.append(event._replace(time=max(event.time, self._plan[-1].time if self._plan else self._last)))
                self._plan.append(added[-1])
            self._observer.planned(added)
            self.changed.notify()

    def cancel(self, after: float = float("-inf")) -> int:
        """Drops what is planned later than ``after``; returns the serial number of the last event that stays or sounded."""
        with self._lock:
            self._keep(sum(1 for _ in takewhile(lambda one: one.time <= after, self._plan)))
            return self._settled()

    def interrupt(self, now: float) -> list[Timed]:
        """Silence at once: ends the plan and closes what sounds. Returns the releases sent; a pedal that the human has down as
        well is not counted among them.
        """
        with self._lock:
            if self.phase is not Phase.NONE:
                self.phase = Phase.SILENCED
            self._keep(0)
            released = self._told(self.ledger.close(now))
            return [one for one in released if one.action != SUSTAIN_UP or not self.ledger.keys.pedal]

    def make_room(self, actions: Sequence[Timed], until: float = float("-inf")) -> list[Timed]:
        """Makes room for the human's actions: gives up the keys that we hold; returns the releases sent. The plan has to be
        made anew. What is due by ``until`` stays meanwhile, up to the first event for a key, or the pedal, that the human moves.
        """
        with self._lock:
            if actions and self.playing:
                self._shorten(actions, until)
                self.phase = Phase.UNSETTLED
            return self._told([released for one in actions for released in self.ledger.make_room(one)])

    def settle(self, actions: Sequence[Timed], until: float) -> int:
        """The same actions have reached whoever plans, and the plan, as far as it stays, can be added to again. Returns the
        serial number of the last event that stays or sounded.
        """
        with self._lock:
            self._shorten(actions, until)
            return self._settled()

    def _settled(self) -> int:
        if self.playing:
            self.phase = Phase.OPEN
        return self._plan[-1].serial if self._plan else self.sounded

    def _shorten(self, actions: Sequence[Timed], until: float) -> None:
        moved = {subject(one.action) for one in actions}
        self._keep(sum(1 for _ in takewhile(lambda one: one.time <= until and subject(one.action) not in moved, self._plan)))

    def _keep(self, count: int) -> None:
        """The plan ends after so many events."""
        if count < len(self._plan):
            first = self._plan[count].serial
            while len(self._plan) > count:
                self._plan.pop()
            self._observer.taken_back(first)

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
        sent: Sent | None = None
        try:
            sent = self.ledger.play(event.action, event.velocity, event.time)
            if sent is None:
                self._plan.appendleft(event)
                self._tear()
                return
        except Exception as error:
            if not self._unheard:
                log.warning("the output port does not take notes (%s)", error)
            self.unheard += 1
        self._unheard = sent is None
        self.sounded, self._last = event.serial, max(self._last, event.time)
        if sent is not None:
            self.played += 1
            self.lateness.append(now - event.time)
            self.late += now - event.time > LATE
            self._told([sent])

    def _tear(self) -> None:
        self._keep(0)
        if self.phase is Phase.OPEN:
            self.phase = Phase.TORN

    def _told(self, sounded: Sequence[Sent]) -> list[Timed]:
        """Tells whoever watches, in time order, and returns what was played."""
        for one in sounded:
            self._last = max(self._last, one.played.time)
            self._observer.sounded(Sent(one.played._replace(time=self._last), one.sent._replace(time=self._last)))
        return [one.played for one in sounded]


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
