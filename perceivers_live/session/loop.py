"""The performer's thread. It runs the performer, passes it the human's actions, runs commands, and recovers from engine faults.

Other threads call the performer through this module: ``run_now`` for calls that cannot wait for the engine, else ``submit``.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from engine.engine import EngineError
from engine.runtimes import Runtime
from perceivers_live.performer.merge import Played
from perceivers_live.performer.performer import Performer
from perceivers_live.player.player import Player
from perceivers_live.session.inbox import Inbox
from perceivers_live.session.observers import Observers

log = logging.getLogger(__name__)
RETRY_INTERVAL = 0.2  # seconds between two attempts to recover the engine
JOIN_TIMEOUT = 2.0  # seconds to wait for the thread to end
RELAPSE_WINDOW = 5.0  # seconds; after a second fault within this time the history is cleared, because it may be the cause


class PerformerLoop:
    """``start`` starts the thread, ``stop`` ends it. ``inbox`` is its queue."""

    def __init__(self, performer: Performer, player: Player, runtime: Runtime, observers: Observers) -> None:
        self._performer, self._runtime, self._observers = performer, runtime, observers
        self.lock = player.changed  # makes several operations atomic; the player sends nothing while it is held
        self.inbox = Inbox()
        self.stopping = False
        self.faults = self.recoveries = 0  # of the engine, since the start
        self._relapse_until = 0.0
        self._recovered = False  # whether the engine has recovered since the last iteration
        self._thread = threading.Thread(target=self._run, name="performer", daemon=True)

    # Called on any thread.

    def run_now(self, react: Callable[[], Played]) -> None:
        """Calls ``react``, which shortens or ends the plan, on the calling thread. Queues its result for the performer, so that
        the performer receives all results in order.
        """
        with self.lock:
            played = react()
            if played.actions or played.released or played.silenced:
                self.inbox.put(played)

    def silence(self) -> None:
        """Silences the machine immediately."""
        self.run_now(lambda: self._performer.interrupt(time.perf_counter()))

    def submit(self, method: Callable[[float], None]) -> None:
        """Queues a call on the performer's thread. Its argument is the time of the call (monotonic seconds)."""
        self.inbox.put(lambda: method(time.perf_counter()))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end. May be called in a signal handler."""
        self.stopping = True
        self.inbox.put(None)

    def join(self) -> None:
        """Waits up to ``JOIN_TIMEOUT`` for the thread to end."""
        self._thread.join(JOIN_TIMEOUT)

    # Called on the performer's thread.

    def _run(self) -> None:
        while not self.stopping:
            self.run_once()

    def run_once(self) -> None:
        """One iteration: runs the performer's due work, then handles the next queued item or waits for it. After a recovery, what
        the human has played meanwhile is handled first, since it decides whether the machine begins.
        """
        try:
            if self._recovered:
                self._recovered = False
                self.handle_next(0.0)
                if self.stopping:
                    return
            began = time.perf_counter()
            due = self._performer.work(began)
            if due is not None and due <= began:
                self._performer.add_decision_time(time.perf_counter() - began)
            self.handle_next(None if due is None else due - time.perf_counter())
        except Exception as error:
            log.exception("the engine failed; the machine is silent until it recovers")
            self.faults += 1
            self._observers.fault("engine", error)
            self._recover()

    def handle_next(self, timeout: float | None) -> None:
        """Handles one queued item; waits at most ``timeout`` seconds for it. Only one, even if more are queued: the machine's
        turn must continue during a flood, or its notes would hang.
        """
        item = self._next(timeout)
        if isinstance(item, list):
            self._performer.absorb_input(item)
        elif item is not None:
            item()

    def _next(self, timeout: float | None) -> list[Played] | Callable[[], None] | None:
        """The next item; None after the timeout, or to stop. Keeps a GPU warm while waiting."""
        end, warm_for = None if timeout is None else time.perf_counter() + timeout, self._runtime.warm_for
        while True:
            left = None if end is None else end - time.perf_counter()
            wait = left if warm_for is None else warm_for if left is None else min(left, warm_for)
            try:
                return self.inbox.get_nowait() if wait is not None and wait <= 0 else self.inbox.get(timeout=wait)
            except queue.Empty:
                if wait is left:
                    return None
                self._runtime.keep_warm()

    def _recover(self) -> None:
        """Silences the machine and computes the history again. Clears it instead after a relapse, or if too little of it is left
        for that.
        """
        forget = time.perf_counter() < self._relapse_until
        while not self.stopping:
            try:
                (self._performer.forget if forget else self._performer.recover)(time.perf_counter())
                self._relapse_until = time.perf_counter() + RELAPSE_WINDOW
                self.recoveries += 1
                self._recovered = True
                if forget:
                    time.sleep(RETRY_INTERVAL)  # limits the rate of faults if the model fails every time
                return
            except Exception as error:
                forget = forget or isinstance(error, EngineError)
                log.exception("the engine did not recover; trying again")
                time.sleep(RETRY_INTERVAL)
