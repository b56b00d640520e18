"""A runtime that another one stands by for: if the first is lost, or does not answer in time, the second goes on from the newest
events. Meanwhile the first is reached again, or started anew, and absorbs all that it missed; it is taken back in a pause.

One thread asks, and waits for a lost runtime once. A second one brings the first runtime back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.config import CheckpointError, one_line
from engine.engine import RECENT
from engine.remote.address import Address, this_machine
from engine.remote.history import History, absorb, repeat
from engine.remote.link import RuntimeLost
from engine.remote.runtime import CHECK, HANG, RemoteRuntime
from engine.runtimes import CHUNKS, Runtime, RuntimeUnavailable, SamplingBias
from engine.states import StateError, fingerprint

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
PAUSE = 0.1  # seconds without a call in which the first runtime is taken back
SOONEST, LATEST = 1.0, 60.0  # seconds until a lost runtime is reached for again, twice as many each time
LINE = 0.5  # seconds that an answer from elsewhere may take
ON_GPU = ("tensorrt", "cuda", "mps")
STEADY = 60.0  # seconds after which a runtime that was taken back counts as reliable again


class StandbyRuntime:
    """``first``, for which ``second`` stands by; both are of one model. ``again``: reaches the first one anew.

    ``standby``: whether the second one computes. Its state is then that of a session which began 512 events before the loss.
    """

    def __init__(self, first: RemoteRuntime, second: RemoteRuntime, again: Callable[[], RemoteRuntime]) -> None:
        self._first, self._second, self._again = first, second, again
        self.name, self.config, self.step_bytes = first.name, first.config, first.step_bytes
        self.warm_for = first.warm_for
        self.standby = False
        self._history = History(self.config)
        self._changed = threading.Condition()  # guards the history, and what follows
        self._closing = False
        self._sent = 0  # up to this position the first runtime has absorbed again what it missed
        self._resets = 0  # so often the history began anew
        self._losses = 0  # so often the first runtime was lost
        self._busy = False  # whether it is being sent events
        self._ready = False  # whether it has answered since, and can be taken back
        self._asked = self._took_back = time.monotonic()
        self._delay = SOONEST
        self._returning: threading.Thread | None = None

    def reset(self, first: int = 0) -> None:
        self._begin(first, None)
        self._ask(lambda runtime: runtime.reset(first))

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._begin(first, rings)
        self._ask(lambda runtime: runtime.restore(rings, first))

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._keep(events, ages, times, first)
        self._tell(lambda runtime: runtime.step(events, ages, times, first))

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._keep(events, ages, times, first)
        self._tell(lambda runtime: runtime.prefill_cross(events, ages, times, first))

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        with self._changed:  # what comes after it was rewound
            self._history.cut(position + 1)
            self._sent = min(self._sent, self._history.end)
        return self._ask(lambda runtime: runtime.decide(position, bias))

    def hidden(self, position: int) -> np.ndarray:
        return self._ask(lambda runtime: runtime.hidden(position))

    def rings(self) -> list[np.ndarray]:
        """Raises ``StateError`` while the second runtime computes: it does not hold the whole state."""
        if not self.standby:
            rings = self._ask(lambda runtime: runtime.rings())
        if self.standby:
            raise StateError("there is no state to save while the standby plays; try again in a pause")
        return rings

    def keep_warm(self) -> None:
        if self.standby:
            self._take_back()
        elif time.monotonic() - self._asked < CHECK:
            self._tell(lambda runtime: runtime.keep_warm())
        else:
            self._ask(lambda runtime: runtime.ping())

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._returning is not None:
            self._returning.join(SOONEST)  # it may be reaching for a host: that ends with this process
        self._first.close()
        self._second.close()

    def _begin(self, first: int, rings: Sequence[np.ndarray] | None) -> None:
        with self._changed:
            self._history.reset(first, rings)
            self._resets += 1
            self._changed.notify()

    def _keep(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        with self._changed:
            self._history.add(events, ages, times, first)
            self._sent = min(self._sent, first)
            self._changed.notify()

    def _ask(self, call: Callable[[RemoteRuntime], Answer]) -> Answer:
        """Has the runtime that computes do it; if that is lost, the other one."""
        if not self.standby:
            try:
                answer = call(self._first)
                self._asked = time.monotonic()
                return answer
            except Exception as error:
                self._stand_in(error)
        return call(self._second)

    def _tell(self, call: Callable[[RemoteRuntime], None]) -> None:
        """The same for what is in the history already."""
        if self.standby:
            call(self._second)
            return
        try:
            call(self._first)
        except Exception as error:
            self._stand_in(error)

    def _stand_in(self, error: Exception) -> None:
        log.warning("%s; the standby goes on from the newest %d events", one_line(error), RECENT)
        steady = time.monotonic() - self._took_back > STEADY
        self._delay = SOONEST if steady else min(2 * self._delay, LATEST)
        with self._changed:
            self.standby, self._ready, self._busy = True, False, False
            self.warm_for = PAUSE
            self._losses += 1
            self._changed.notify()
        self._returning = threading.Thread(target=self._return, args=(self._losses,), name="engine", daemon=True)
        self._returning.start()
        repeat(self._history, self._second, RECENT)

    def _take_back(self) -> None:
        """In a pause: the first runtime computes again, if it is there and has missed nothing."""
        with self._changed:
            if self._busy or not self._ready or self._sent != self._history.end:
                return
            self.standby, self._ready = False, False
            self.warm_for = self._first.warm_for
            self._asked = self._took_back = time.monotonic()
            self._changed.notify()
        log.info("the standby hands back to %s", self._first.label)

    # The thread that brings the first runtime back.

    def _return(self, loss: int) -> None:
        self._first.close()
        said = ""
        while self._waited(self._delay):
            first = None
            try:
                self._first = first = self._again()
                while not self._follow(first, loss):
                    pass
                return
            except Exception as error:
                if said != (said := one_line(error)):
                    log.warning("still on the standby: %s", said)
                self._delay = min(2 * self._delay, LATEST)
                if first is not None:
                    first.close()
                with self._changed:
                    self._busy = self._ready = False

    def _waited(self, seconds: float) -> bool:
        """Waits; whether to go on then."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._closing, seconds)

    def _follow(self, first: RemoteRuntime, loss: int) -> bool:
        """Has it absorb the history, and what is added, until it is taken back (True) or the history begins anew (False)."""
        history = self._history
        with self._changed:
            resets, begin, rings, self._sent = self._resets, history.first, history.rings, history.begin
        if rings is not None:
            first.restore(rings, begin)
        else:
            first.reset(begin)
        while True:
            with self._changed:
                while self._ready and self._sent == history.end and not self._over(loss) and resets == self._resets:
                    self._changed.wait()
                if self._over(loss):
                    return True
                if resets != self._resets or self._sent < history.begin:
                    self._ready = False
                    return False
                at, end = self._sent, min(self._sent + CHUNKS[-1], history.end)
                rows, distant = history.rows(at, end), max(0, history.end - history.latent - at)
                self._sent, self._busy = end, True
            absorb(first, rows, at, distant)
            if at == end:
                first.ping()
                log.info("%s has caught up; it is taken back in a pause", first.label)
            with self._changed:
                self._busy, self._ready = False, self._ready or at == end

    def _over(self, loss: int) -> bool:
        """Whether the first runtime was taken back, or lost again since, or everything ends."""
        return self._closing or not self.standby or loss != self._losses


def on_standby(runtime: Runtime) -> bool:
    """Whether a standby computes in place of the runtime that was asked for."""
    return isinstance(runtime, StandbyRuntime) and runtime.standby


def open_runtime_at(address: Address, checkpoint: Path) -> RemoteRuntime | StandbyRuntime:
    """The runtime at ``address``, of the model in ``checkpoint``, which is here as well. Unless it is on this machine's CPU, ONNX
    Runtime on this machine stands by. Raises what ``RemoteRuntime`` does.
    """

    wanted = None if address.here else fingerprint(checkpoint)

    def reach() -> RemoteRuntime:
        return RemoteRuntime(address, hang=HANG if address.here else LINE, fingerprint=wanted, revive=False)

    first = reach()
    if address.here and first.name not in ON_GPU:
        first.revive = True
        return first
    try:
        second = RemoteRuntime(this_machine("onnx", checkpoint, 0))
    except (CheckpointError, RuntimeUnavailable, RuntimeLost) as error:
        log.warning("nothing stands by for %s: %s", first.label, error)
        first.revive = True
        return first
    return StandbyRuntime(first, second, reach)
