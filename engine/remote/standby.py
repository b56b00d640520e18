"""A runtime with a standby: if the first runtime is lost or does not answer in time, the standby continues from the newest events
(failover). Meanwhile the first is reconnected or restarted and absorbs all events; it is used again from the next pause on
(failback).

One thread makes all calls; it waits for a lost runtime only once. A second thread recovers the first runtime.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.ahead import DecisionRequest
from engine.config import CheckpointError
from engine.engine import RECENT
from engine.events import Event
from engine.remote.address import Address, this_computer
from engine.remote.history import History, absorb, replay
from engine.remote.runtime import ANSWER_TIMEOUT, PING_INTERVAL, RemoteRuntime
from engine.remote.server_process import RuntimeLost
from engine.runtimes import MAX_CHUNK, Runtime, RuntimeUnavailable, SamplingBias
from engine.sounding import Sounding
from engine.states import StateError, fingerprint
from engine.text import one_line

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
PAUSE = 0.1  # seconds without a call after which the first runtime may be used again
MIN_DELAY, MAX_DELAY = 1.0, 60.0  # seconds until a lost runtime is reconnected; doubles with each attempt
REMOTE_ANSWER_TIMEOUT = 0.5  # seconds until an answer from another computer counts as missing
ON_GPU = ("tensorrt", "cuda", "cuda-compiled", "mps")
STABLE = 60.0  # seconds since the failback after which a new loss starts at ``MIN_DELAY`` again


class StandbyRuntime:
    """``first``, with ``second`` as its standby; both run the same model. ``reconnect`` returns a new connection to the first.

    ``standby``: whether the second runtime is in use. Its state is then that of a session which began 512 events before the loss.
    """

    def __init__(self, first: RemoteRuntime, second: RemoteRuntime, reconnect: Callable[[], RemoteRuntime]) -> None:
        self._first, self._second, self._reconnect = first, second, reconnect
        self.name, self.config, self.step_bytes = first.name, first.config, first.step_bytes
        self.warm_for = first.warm_for
        self.standby = False
        self._history = History(self.config)
        self._changed = threading.Condition()  # guards the history and the fields below
        self._closing = False
        self._sent = 0  # the recovered first runtime has absorbed the events before this position
        self._resets = 0  # times that the history was reset
        self._losses = 0  # times that the first runtime was lost
        self._sending = False  # whether events are being sent to the recovered runtime
        self._caught_up = False  # whether it has absorbed all events and answered since
        self._called = self._failed_back = time.monotonic()  # last answered call; last failback
        self._delay = MIN_DELAY
        self._recovery: threading.Thread | None = None

    def reset(self, first: int = 0) -> None:
        self._reset_history(first, None)
        self._call(lambda runtime: runtime.reset(first))

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._reset_history(first, rings)
        self._call(lambda runtime: runtime.restore(rings, first))

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._record(events, ages, times, first)
        self._send(lambda runtime: runtime.step(events, ages, times, first))

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._record(events, ages, times, first)
        self._send(lambda runtime: runtime.prefill_cross(events, ages, times, first))

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        self._cut(position)
        return self._call(lambda runtime: runtime.decide(position, bias))

    def decide_ahead(self, position: int, request: DecisionRequest, sounding: Sounding) -> Event | None:
        self._cut(position)
        return self._call(lambda runtime: runtime.decide_ahead(position, request, sounding))

    @property
    def ahead(self) -> int:
        return 0 if self.standby else self._first.ahead

    def hidden(self, position: int) -> np.ndarray:
        return self._call(lambda runtime: runtime.hidden(position))

    def rings(self) -> list[np.ndarray]:
        """Raises ``StateError`` while the standby is in use: it does not hold the whole state."""
        if not self.standby:
            rings = self._call(lambda runtime: runtime.rings())
        if self.standby:
            raise StateError("the state cannot be saved while the standby plays; try again later")
        return rings

    def keep_warm(self) -> None:
        if self.standby:
            self._fail_back()
        elif time.monotonic() - self._called < PING_INTERVAL:
            self._send(lambda runtime: runtime.keep_warm())
        else:
            self._call(lambda runtime: runtime.ping())

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._recovery is not None:
            self._recovery.join(MIN_DELAY)  # if it still waits for a host, it ends with this process
        self._first.close()
        self._second.close()

    def _reset_history(self, first: int, rings: Sequence[np.ndarray] | None) -> None:
        with self._changed:
            self._history.reset(first, rings)
            self._resets += 1
            self._changed.notify()

    def _record(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        with self._changed:
            self._history.add(events, ages, times, first)
            self._sent = min(self._sent, first)
            self._changed.notify()

    def _cut(self, position: int) -> None:
        """A decision after ``position``: later events have been rewound."""
        with self._changed:
            self._history.cut(position + 1)
            self._sent = min(self._sent, self._history.end)

    def _call(self, call: Callable[[RemoteRuntime], Answer]) -> Answer:
        """Calls the runtime in use; if the first one fails, the standby."""
        if not self.standby:
            try:
                answer = call(self._first)
                self._called = time.monotonic()
                return answer
            except Exception as error:
                self._fail_over(error)
        return call(self._second)

    def _send(self, call: Callable[[RemoteRuntime], None]) -> None:
        """``_call`` for calls without an answer. After a failover they are not repeated: the history contains their events."""
        if self.standby:
            call(self._second)
            return
        try:
            call(self._first)
        except Exception as error:
            self._fail_over(error)

    def _fail_over(self, error: Exception) -> None:
        log.warning("%s; the standby continues from the newest %d events", one_line(error), RECENT)
        stable = time.monotonic() - self._failed_back > STABLE
        self._delay = MIN_DELAY if stable else min(2 * self._delay, MAX_DELAY)
        with self._changed:
            self.standby, self._caught_up, self._sending = True, False, False
            self.warm_for = PAUSE
            self._losses += 1
            self._changed.notify()
        self._recovery = threading.Thread(target=self._recover, args=(self._losses,), name="engine", daemon=True)
        self._recovery.start()
        replay(self._history, self._second, RECENT)

    def _fail_back(self) -> None:
        """Returns to the first runtime if it is connected and has absorbed all events."""
        with self._changed:
            if self._sending or not self._caught_up or self._sent != self._history.end:
                return
            self.standby, self._caught_up = False, False
            self.warm_for = self._first.warm_for
            self._called = self._failed_back = time.monotonic()
            self._changed.notify()
        log.info("back from the standby to %s", self._first.label)

    # The recovery thread.

    def _recover(self, loss: int) -> None:
        self._first.close()
        logged = ""
        while self._wait(self._delay):
            first = None
            try:
                self._first = first = self._reconnect()
                while not self._catch_up(first, loss):
                    pass
                return
            except Exception as error:
                if logged != (logged := one_line(error)):
                    log.warning("still on the standby: %s", logged)
                self._delay = min(2 * self._delay, MAX_DELAY)
                if first is not None:
                    first.close()
                with self._changed:
                    self._sending = self._caught_up = False

    def _wait(self, seconds: float) -> bool:
        """Waits; False once the runtime is being closed."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._closing, seconds)

    def _catch_up(self, first: RemoteRuntime, loss: int) -> bool:
        """Sends the history and new events to ``first``. True: it is in use again, lost, or closed.
        False: the history was reset.
        """
        history = self._history
        with self._changed:
            resets, begin, rings, self._sent = self._resets, history.first, history.rings, history.begin
        if rings is not None:
            first.restore(rings, begin)
        else:
            first.reset(begin)
        while True:
            with self._changed:
                while self._caught_up and self._sent == history.end and not self._superseded(loss) and resets == self._resets:
                    self._changed.wait()
                if self._superseded(loss):
                    return True
                if resets != self._resets or self._sent < history.begin:
                    self._caught_up = False
                    return False
                at, end = self._sent, min(self._sent + MAX_CHUNK, history.end)
                rows, distant = history.rows(at, end), max(0, history.end - self.config.latent_reach - at)
                self._sent, self._sending = end, True
            absorb(first, rows, at, distant)
            if at == end:
                first.ping()
                log.info("%s has caught up; it is used again after the next pause", first.label)
            with self._changed:
                self._sending, self._caught_up = False, self._caught_up or at == end

    def _superseded(self, loss: int) -> bool:
        """Whether the first runtime is in use again, was lost once more, or the runtime is being closed."""
        return self._closing or not self.standby or loss != self._losses


def on_standby(runtime: Runtime) -> bool:
    """Whether a standby is in use instead of the requested runtime."""
    return isinstance(runtime, StandbyRuntime) and runtime.standby


def open_runtime_at(
    address: Address, checkpoint: Path, *, threads: int = 0, fallback: bool = False
) -> RemoteRuntime | StandbyRuntime:
    """The runtime at ``address``, with the same model as the local ``checkpoint``. ONNX Runtime on this computer is its standby,
    unless the runtime itself uses this computer's CPU. ``fallback``: use ONNX Runtime with ``threads`` instead if a local process
    dies or hangs while it opens, as a library of the GPU may. Raises what ``RemoteRuntime`` raises.
    """

    wanted = None if address.local else fingerprint(checkpoint)

    def connect() -> RemoteRuntime:
        return RemoteRuntime(
            address, timeout=ANSWER_TIMEOUT if address.local else REMOTE_ANSWER_TIMEOUT, fingerprint=wanted, restart=False
        )

    try:
        first = connect()
    except RuntimeLost as error:
        if not (address.local and fallback):
            raise
        log.warning("%s; ONNX Runtime on the CPU is used", error)
        return RemoteRuntime(this_computer("onnx", checkpoint, threads))
    if address.local and first.name not in ON_GPU:
        first.restart = True
        return first
    try:
        second = RemoteRuntime(this_computer("onnx", checkpoint, 0))
    except (CheckpointError, RuntimeUnavailable, RuntimeLost) as error:
        log.warning("no standby for %s: %s", first.label, error)
        first.restart = True
        return first
    return StandbyRuntime(first, second, connect)
