"""The performer's thread: works, hears what was played, carries out commands, and recovers from faults of the engine.

Other threads reach the performer through this: ``at_once`` for what cannot wait for the engine, ``later`` for the rest.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from engine.runtimes import Runtime
from perceivers_live.performer.merge import Played
from perceivers_live.performer.performer import Performer
from perceivers_live.player.player import Player
from perceivers_live.session.inbox import Inbox
from perceivers_live.session.observers import Observers

log = logging.getLogger(__name__)
RETRY = 0.2  # seconds between two attempts to revive the engine
JOIN_TIMEOUT = 2.0  # seconds that the thread has to end
RELAPSE = 5.0  # seconds: a fault so soon after a recovery means that the memory itself is at fault


class PerformerLoop:
    """``start`` begins the thread, ``stop`` ends it. ``inbox`` holds what waits for it."""

    def __init__(self, performer: Performer, player: Player, runtime: Runtime, observers: Observers) -> None:
        self._performer, self._runtime, self._observers = performer, runtime, observers
        self.atomic = player.changed  # to be held where several things are done at once: nothing sounds meanwhile
        self.inbox = Inbox()
        self.stopping = False
        self.faults = self.recoveries = 0  # of the engine, so far
        self._relapse_until = 0.0
        self._thread = threading.Thread(target=self._run, name="performer", daemon=True)

    # From any thread.

    def at_once(self, react: Callable[[], Played]) -> None:
        """Has ``react`` silence or shorten the plan now. The performer hears of it later, of everything in the order in which it
        happened.
        """
        with self.atomic:
            played = react()
            if played.actions or played.released or played.silenced:
                self.inbox.put(played)

    def hush(self) -> None:
        """Silence at once."""
        self.at_once(lambda: self._performer.interrupt(time.perf_counter()))

    def later(self, method: Callable[[float], None]) -> None:
        """Has the performer's thread call this, with the time then."""
        self.inbox.put(lambda: method(time.perf_counter()))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread soon. Also from a signal handler."""
        self.stopping = True
        self.inbox.put(None)

    def join(self) -> None:
        """Waits for the end of the thread, but not for ever."""
        self._thread.join(JOIN_TIMEOUT)

    # The performer's thread.

    def _run(self) -> None:
        while not self.stopping:
            self.round()

    def round(self) -> None:
        """One round of the performer: work if there is any, else wait for something to happen."""
        try:
            began = time.perf_counter()
            due = self._performer.work(began)
            if due is not None and due <= began:
                self._performer.add_decision_time(time.perf_counter() - began)
            self.take(None if due is None else due - time.perf_counter())
        except Exception as error:
            log.exception("the engine failed; silent until it has recovered")
            self.faults += 1
            self._observers.fault("engine", error)
            self._recover()

    def take(self, wait: float | None) -> None:
        """The next of what waits, after waiting ``wait`` seconds at most for it. One, however much there is: the machine's turn
        must go on in a flood, or what it has struck would hang.
        """
        item = self._next(wait)
        if isinstance(item, list):
            self._performer.absorb_input(item)
        elif item is not None:
            item()

    def _next(self, wait: float | None) -> list[Played] | Callable[[], None] | None:
        """The next item, None if there is none in time or to stop. A GPU is kept warm meanwhile."""
        end, warm_for = None if wait is None else time.perf_counter() + wait, self._runtime.warm_for
        while True:
            left = None if end is None else end - time.perf_counter()
            patience = left if warm_for is None else warm_for if left is None else min(left, warm_for)
            try:
                return self.inbox.get_nowait() if patience is not None and patience <= 0 else self.inbox.get(timeout=patience)
            except queue.Empty:
                if patience is left:
                    return None
                self._runtime.keep_warm()

    def _recover(self) -> None:
        """Silence, and the memory computed again from what sounded; or, if it is itself at fault, a fresh one."""
        forget = time.perf_counter() < self._relapse_until
        while not self.stopping:
            try:
                (self._performer.forget if forget else self._performer.recover)(time.perf_counter())
                self._relapse_until = time.perf_counter() + RELAPSE
                self.recoveries += 1
                if forget:
                    time.sleep(RETRY)  # a model that is broken for good would fail again at once
                return
            except Exception:
                log.exception("the engine has not recovered yet")
                time.sleep(RETRY)
