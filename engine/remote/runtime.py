"""A runtime in another process, on this computer or another one. A model that hangs or crashes does not stop the daemon, and it
does not share the interpreter lock with the player (``benchmarks/isolation.py`` measures the difference).

Absorbing does not wait for an answer: up to ``MAX_PENDING`` calls are in flight. A process that does not answer in time is
killed; the next ``reset`` starts a new one.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.ahead import DecisionRequest, decided
from engine.config import CheckpointError
from engine.events import Event
from engine.remote.address import Address, start_failure, this_computer
from engine.remote.decided_ahead import MIN_DELAY, DecidedAhead, call_values, parse_answer
from engine.remote.protocol import Kind, answer_limit, parse_arrays, parse_event, parse_ready, ready_limit, version
from engine.remote.server_process import RuntimeLost, ServerProcess
from engine.remote.wire import Value, WireError, encode
from engine.rings import hidden_shape, ring_shapes
from engine.runtimes import RuntimeUnavailable, SamplingBias
from engine.sounding import Sounding
from engine.text import one_line

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)
MAX_PENDING = 16  # calls without an answer
ANSWER_TIMEOUT = 1.0  # seconds until an answer counts as missing; the slowest good answers take tens of milliseconds
IN_TRANSIT = 4 << 20  # bytes that pipes and ssh may hold between this computer and the server
SLOW_LINE = 1_000_000  # bytes a second; on slower lines a state cannot be restored
PING_INTERVAL = 5.0  # seconds without a call after which a remote server is pinged
DRIFT = 1.02  # factor by which the estimated delay may grow per call; single calls are slow for other reasons
START_TIMEOUT = 60.0  # seconds to start the process and open the checkpoint
_FAULTS: dict[str, type[Exception]] = {"CheckpointError": CheckpointError, "RuntimeUnavailable": RuntimeUnavailable}


class RemoteRuntime:
    """A ``Runtime`` at an address. ``timeout``: timeout of a call in seconds. ``fingerprint``: that of the checkpoint which the
    server must have; None: any. ``restart``: whether ``reset`` starts a new process in place of a lost one.

    Raises ``RuntimeUnavailable`` if the server cannot be reached, has another protocol or another checkpoint, and what opening
    the runtime raises in the server.
    """

    def __init__(
        self, address: Address, *, timeout: float = ANSWER_TIMEOUT, fingerprint: str | None = None, restart: bool = True
    ) -> None:
        self._address, self._timeout, self._fingerprint, self.restart = address, timeout, fingerprint, restart
        self._decided_ahead, self.ahead = DecidedAhead(), 0
        self._delay = 0.0  # seconds of a round trip, without the server's work
        self._start()

    def reset(self, first: int = 0) -> None:
        """Starts a new process if this one has died or fails: an error of the GPU may persist in its process."""
        self._decided_ahead.clear()
        if not self.restart:
            self._call(Kind.RESET, first)
            return
        while self._pending:
            with contextlib.suppress(RuntimeError):  # errors of earlier calls no longer matter
                self._receive()
        if self._server.alive():
            try:
                self._call(Kind.RESET, first)
            except RuntimeError as error:
                log.warning("starting a new process for the model (%s)", error)
            else:
                return
        self._server.close()
        self._start()
        self._call(Kind.RESET, first)

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        if not self._decided_ahead.has_absorbed(events, first):
            self._send(Kind.STEP, events, ages, times, first)

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._decided_ahead.clear()
        self._send(Kind.PREFILL_CROSS, events, ages, times, first)

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        biases, scalars = (bias.wait, bias.action, bias.velocity), (float(bias.temperature), float(bias.min_p))
        return self._validated(parse_event, self._call(Kind.DECIDE, position, *biases, *scalars, bias.noise))

    def decide_ahead(self, position: int, request: DecisionRequest, sounding: Sounding) -> Event | None:
        """``decide``. On a connection with latency the server decides further events for as long as a round trip takes, and later
        calls return these without a round trip.
        """
        self.ahead = 0
        made = self._decided_ahead.decision(position, request)
        if made is not None:
            return made
        self._decided_ahead.clear()
        if self._delay < MIN_DELAY:
            return request.decide(partial(decided, self, position), sounding, position)
        began = time.monotonic()
        values = self._call(Kind.DECIDE_AHEAD, position, *call_values(request, sounding, self._delay))
        events, seconds = self._validated(parse_answer, values)
        self._delay = min(DRIFT * self._delay, time.monotonic() - began - seconds)
        self.ahead = max(len(events) - 1, 0)
        self._decided_ahead.fill(position, request, events)
        return events[0] if events else None

    def hidden(self, position: int) -> np.ndarray:
        shapes = [(self.config.width,)]
        return self._validated(partial(parse_arrays, shapes=shapes), self._call(Kind.HIDDEN, position))[0]

    def rings(self) -> list[np.ndarray]:
        shapes = [*ring_shapes(self.config), hidden_shape(self.config)]
        return self._validated(partial(parse_arrays, shapes=shapes), self._call(Kind.RINGS))

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._decided_ahead.clear()
        self._wait_for_all()
        self._send(Kind.RESTORE, first, *rings)
        # The pipe and the connection have taken the frame, but may still hold a part of it.
        self._receive(self._timeout + min(sum(ring.nbytes for ring in rings), IN_TRANSIT) / SLOW_LINE)

    def keep_warm(self) -> None:
        self._send(Kind.KEEP_WARM)

    def ping(self) -> None:
        """A round trip without work. Measures the delay of a line."""
        self._wait_for_all()
        began = time.monotonic()
        self._call(Kind.PING)
        if not self._address.local:
            self._delay = time.monotonic() - began

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self._address.name

    def alive(self) -> bool:
        """Whether the local process runs. Over ssh, that is ssh itself."""
        return self._server.alive()

    def close(self) -> None:
        self._server.close(self._timeout)

    def _start(self) -> None:
        self._pending: deque[Kind] = deque()
        try:
            self._server = ServerProcess(self._address.command, self._address.name, self._address.env())
        except OSError as error:
            raise RuntimeUnavailable(f"{self._address.command[0]} cannot be started ({error.strerror})") from error
        try:
            kind, values = self._server.receive(ready_limit, START_TIMEOUT)
        except RuntimeLost as error:
            status, lines = self._server.exit_report()
            reason = str(error) if status is None or status < 0 else start_failure(self._address, status, lines)
            raise (RuntimeLost if self._address.local else RuntimeUnavailable)(reason) from error
        try:
            self._accept(Kind(kind), values)
        except BaseException:
            self._server.close(self._timeout)
            raise

    def _accept(self, kind: Kind, values: Sequence[Value]) -> None:
        """Checks the server's first message. Raises the server's own error, and ``RuntimeUnavailable`` for a server that does not
        fit.
        """
        if kind == Kind.FAULT:
            raise self._fault(values)
        try:
            info = parse_ready(values)
        except WireError as error:
            raise RuntimeUnavailable(f"{self._address.name} cannot be used: {error}") from error
        self.name, self.config, self.step_bytes, self.warm_for = info.name, info.config, info.step_bytes, info.warm_for
        if self._address.local:
            return
        self.name += f" at {self._address.name}"
        self.warm_for = min(info.warm_for or PING_INTERVAL, PING_INTERVAL)
        if info.version != version():
            log.warning("%s runs version %s, this computer runs version %s", self._address.name, info.version, version())
        self.ping()
        if self._fingerprint is not None:
            self._send(Kind.FINGERPRINT)
            theirs = self._receive(START_TIMEOUT)
            if theirs != (self._fingerprint,):
                raise RuntimeUnavailable(
                    f"{self._address.name} has another checkpoint (fingerprint {one_line(theirs[0] if theirs else '')[:12]}) than"
                    f" this computer ({self._fingerprint[:12]}): name the same one in --checkpoint and in --engine"
                )

    def _call(self, call: Kind, *values: Value) -> Sequence[Value]:
        self._send(call, *values)
        return self._wait_for_all()

    def _wait_for_all(self) -> Sequence[Value]:
        """Waits for all pending answers and returns the last one."""
        answer: Sequence[Value] = ()
        while self._pending:
            answer = self._receive()
        return answer

    def _send(self, call: Kind, *values: Value) -> None:
        while len(self._pending) >= MAX_PENDING:
            self._receive()
        try:
            self._server.send(encode(call, *values), self._timeout)
        except RuntimeLost:
            self._pending.clear()
            raise
        self._pending.append(call)

    def _receive(self, timeout: float | None = None) -> Sequence[Value]:
        """Receives the answer to the oldest pending call. Raises ``RuntimeLost``, and what the call raised in the server."""
        limit = partial(answer_limit, call=self._pending[0], config=self.config)
        try:
            kind, values = self._server.receive(limit, self._timeout if timeout is None else timeout)
        except RuntimeLost:
            self._pending.clear()
            raise
        self._pending.popleft()
        if kind == Kind.FAULT:
            raise self._fault(values)
        return values

    @staticmethod
    def _fault(values: Sequence[Value]) -> Exception:
        """The exception of a FAULT message."""
        match values:
            case (str(name), str(text)):
                line = text.partition("\n")[0]
                return _FAULTS.get(name, RuntimeError)(line if line.isprintable() else ascii(line)[1:-1])
        return RuntimeLost("the server's FAULT message is damaged")

    def _validated(self, read: Callable[[Sequence[Value]], Answer], values: Sequence[Value]) -> Answer:
        """``read(values)``. Kills the process and raises ``RuntimeLost`` if the answer is invalid."""
        try:
            return read(values)
        except WireError as error:
            self._server.kill()
            raise RuntimeLost(f"{self._address.name} sent an invalid answer: {error}") from error


def local_process(name: str, checkpoint: Path, *, threads: int = 0, timeout: float = ANSWER_TIMEOUT) -> RemoteRuntime:
    """``open_runtime`` in a process of its own on this computer, with the same arguments and errors."""
    return RemoteRuntime(this_computer(name, checkpoint, threads), timeout=timeout)
