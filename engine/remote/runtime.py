"""A runtime in another process: a model that hangs or crashes takes nothing with it, shares no interpreter with whoever has to be
on time (`benchmarks/isolation.py` measures what that is worth), and may be on another machine.

Absorbing is not waited for; up to ``AHEAD`` calls are on their way before the next one waits for the first of them. A process
that does not answer in time is killed, and the next ``reset`` begins another.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.config import CheckpointError, one_line
from engine.remote.address import Address, explained, this_machine
from engine.remote.link import Link, RuntimeLost
from engine.remote.protocol import Kind, answer_limit, drawn, floats, introduced, opening_limit, version
from engine.remote.wire import Value, WireError, encode
from engine.rings import hidden_shape, ring_shapes
from engine.runtimes import RuntimeUnavailable, SamplingBias

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)
AHEAD = 16  # calls without an answer yet
HANG = 1.0  # seconds that an answer may take; the longest good ones take tens of milliseconds
CHECK = 5.0  # seconds without a call after which one elsewhere is asked whether it is there
START = 60.0  # seconds that reaching the process and opening the checkpoint may take
_FAULTS: dict[str, type[Exception]] = {"CheckpointError": CheckpointError, "RuntimeUnavailable": RuntimeUnavailable}


class RemoteRuntime:
    """A ``Runtime`` at an address. ``hang``: the longest that a call may take, in seconds. ``fingerprint``: of the checkpoint
    that it has to have, None: whichever it has. ``revive``: whether ``reset`` begins another process in place of a lost one.

    Raises ``RuntimeUnavailable`` if it cannot be reached, is another version or has another checkpoint, and what opening the
    runtime there raises.
    """

    def __init__(self, address: Address, *, hang: float = HANG, fingerprint: str | None = None, revive: bool = True) -> None:
        self._address, self._hang, self._fingerprint, self.revive = address, hang, fingerprint, revive
        self._start()

    def reset(self, first: int = 0) -> None:
        """Begins another process if this one has died or cannot do it: a GPU's fault may stay with the process that met it."""
        if not self.revive:
            self._ask(Kind.RESET, first)
            return
        while self._unanswered:
            with contextlib.suppress(RuntimeError):  # what went wrong before is over
                self._answer()
        if self._link.alive():
            try:
                self._ask(Kind.RESET, first)
            except RuntimeError as error:
                log.warning("another process takes the model's place (%s)", error)
            else:
                return
        self._link.close()
        self._start()
        self._ask(Kind.RESET, first)

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._tell(Kind.STEP, events, ages, times, first)

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._tell(Kind.PREFILL_CROSS, events, ages, times, first)

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        biases, sharpness = (bias.wait, bias.action, bias.velocity), (float(bias.temperature), float(bias.min_p))
        return self._sensible(drawn, self._ask(Kind.DECIDE, position, *biases, *sharpness, bias.noise))

    def hidden(self, position: int) -> np.ndarray:
        shapes = [(self.config.width,)]
        return self._sensible(partial(floats, shapes=shapes), self._ask(Kind.HIDDEN, position))[0]

    def rings(self) -> list[np.ndarray]:
        shapes = [*ring_shapes(self.config), hidden_shape(self.config)]
        return self._sensible(partial(floats, shapes=shapes), self._ask(Kind.RINGS))

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._settle()
        self._ask(Kind.RESTORE, first, *rings)

    def keep_warm(self) -> None:
        self._tell(Kind.KEEP_WARM)

    def ping(self) -> None:
        """There and back, without any work."""
        self._ask(Kind.PING)

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return self._address.name

    def alive(self) -> bool:
        """Whether the process runs, as far as is known here."""
        return self._link.alive()

    def close(self) -> None:
        self._link.close(self._hang)

    def _start(self) -> None:
        self._unanswered: deque[Kind] = deque()
        try:
            self._link = Link(self._address.command, self._address.name, self._address.env())
        except OSError as error:
            raise RuntimeUnavailable(f"{self._address.command[0]} cannot be started ({error.strerror})") from error
        try:
            kind, values = self._link.receive(opening_limit, START)
        except RuntimeLost as error:
            status, lines = self._link.last_words()
            reason = str(error) if status is None or status < 0 else explained(self._address, status, lines)
            raise (RuntimeLost if self._address.here else RuntimeUnavailable)(reason) from error
        try:
            self._introduce(Kind(kind), values)
        except BaseException:
            self._link.close(self._hang)
            raise

    def _introduce(self, kind: Kind, values: Sequence[Value]) -> None:
        """The far end's first message. Raises what went wrong there, and ``RuntimeUnavailable`` if it is not as expected."""
        if kind == Kind.FAULT:
            raise self._fault(values)
        try:
            about = introduced(values)
        except WireError as error:
            raise RuntimeUnavailable(f"{self._address.name} cannot be worked with: {error}") from error
        self.name, self.config, self.step_bytes, self.warm_for = about.name, about.config, about.step_bytes, about.warm_for
        if self._address.here:
            return
        self.name += f" at {self._address.name}"
        self.warm_for = min(about.warm_for or CHECK, CHECK)
        if about.version != version():
            log.warning("%s runs version %s, this is version %s", self._address.name, about.version, version())
        if self._fingerprint is not None:
            self._tell(Kind.FINGERPRINT)
            theirs = self._answer(START)
            if theirs != (self._fingerprint,):
                raise RuntimeUnavailable(
                    f"{self._address.name} has another checkpoint (fingerprint {one_line(theirs[0] if theirs else '')[:12]}) than"
                    f" this machine ({self._fingerprint[:12]}): name the same with --checkpoint and in the address"
                )

    def _ask(self, call: Kind, *values: Value) -> Sequence[Value]:
        self._tell(call, *values)
        return self._settle()

    def _settle(self) -> Sequence[Value]:
        """Waits for all that is still to be answered, and returns the last answer."""
        answer: Sequence[Value] = ()
        while self._unanswered:
            answer = self._answer()
        return answer

    def _tell(self, call: Kind, *values: Value) -> None:
        while len(self._unanswered) >= AHEAD:
            self._answer()
        try:
            self._link.send(encode(call, *values), self._hang)
        except RuntimeLost:
            self._unanswered.clear()
            raise
        self._unanswered.append(call)

    def _answer(self, patience: float | None = None) -> Sequence[Value]:
        """The answer to the oldest call without one. Raises ``RuntimeLost``, and whatever the call itself raised."""
        limit = partial(answer_limit, call=self._unanswered[0], config=self.config)
        try:
            kind, values = self._link.receive(limit, self._hang if patience is None else patience)
        except RuntimeLost:
            self._unanswered.clear()
            raise
        self._unanswered.popleft()
        if kind == Kind.FAULT:
            raise self._fault(values)
        return values

    @staticmethod
    def _fault(values: Sequence[Value]) -> Exception:
        """What went wrong there."""
        match values:
            case (str(name), str(text)):
                line = text.partition("\n")[0]
                return _FAULTS.get(name, RuntimeError)(line if line.isprintable() else ascii(line)[1:-1])
        return RuntimeLost("the far end's fault is damaged")

    def _sensible(self, read: Callable[[Sequence[Value]], Answer], values: Sequence[Value]) -> Answer:
        """``read(values)``; from a process whose answer makes no sense nothing more is expected."""
        try:
            return read(values)
        except WireError as error:
            self._link.kill()
            raise RuntimeLost(f"{self._address.name} answers what makes no sense: {error}") from error


def local_process(name: str, checkpoint: Path, *, threads: int = 0, hang: float = HANG) -> RemoteRuntime:
    """``open_runtime`` in a process of its own on this machine, with the same arguments and errors."""
    return RemoteRuntime(this_machine(name, checkpoint, threads), hang=hang)
