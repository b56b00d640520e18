"""Any runtime in a process of its own: a model that hangs or crashes takes nothing with it, and shares no interpreter with
whoever has to be on time (`benchmarks/isolation.py` measures what that is worth).

Absorbing is not waited for; up to ``AHEAD`` chunks are on their way before the next call waits for the first of them. A process
that does not answer in time is killed, and the next ``reset`` begins another.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import CheckpointError, ModelConfig
from engine.errors import UserError
from engine.realtime import MODEL, Budget, clear_realtime
from engine.runtimes import RuntimeUnavailable, SamplingBias
from engine.runtimes.choose import open_runtime

log = logging.getLogger(__name__)
AHEAD = 4  # calls without an answer yet
HANG = 1.0  # seconds that an answer may take; the longest good ones take tens of milliseconds
LOG = "log"  # in place of a fault: a line for the log, and no answer yet
START = 60.0  # seconds that opening the checkpoint may take


class RuntimeLost(UserError, RuntimeError):
    """The process does not answer, or has died; ``reset`` begins another."""


class ProcessRuntime:
    """``open_runtime`` elsewhere, with the same arguments and errors. ``hang``: the longest that a call may take, in seconds."""

    def __init__(self, name: str, checkpoint: Path, *, threads: int = 0, hang: float = HANG) -> None:
        self._how = (name, checkpoint, threads, logging.getLogger("engine").getEffectiveLevel())
        self._hang = hang
        self._start()

    def reset(self, first: int = 0) -> None:
        """Begins another process if this one has died or cannot do it: a GPU's fault may stay with the process that met it."""
        while self._unanswered:
            with contextlib.suppress(RuntimeError):  # what went wrong before is over
                self._answer(self._hang)
        if self._process.is_alive():
            try:
                self._ask("reset", first)
            except RuntimeError as error:
                log.warning("another process takes the model's place (%s)", error)
                self._kill()
            else:
                return
        self._start()
        self._ask("reset", first)

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._tell("step", events, ages, times, first)

    def prefill_cross(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._tell("prefill_cross", events, ages, times, first)

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        drawn: tuple[int, int, int] | None = self._ask("decide", position, bias)
        return drawn

    def hidden(self, position: int) -> np.ndarray:
        hidden: np.ndarray = self._ask("hidden", position)
        return hidden

    def rings(self) -> list[np.ndarray]:
        rings: list[np.ndarray] = self._ask("rings")
        return rings

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._settle()
        stuck = threading.Timer(self._hang, self._process.kill)  # so much is not sent before the process takes it
        stuck.start()
        try:
            self._tell("restore", list(rings), first)
        finally:
            stuck.cancel()
        self._settle()

    def keep_warm(self) -> None:
        self._tell("keep_warm")

    def close(self) -> None:
        self._connection.close()  # it ends by itself, or by force
        self._process.join(self._hang)
        self._kill()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads and locks
        self._connection, theirs = context.Pipe()
        self._unanswered = 0
        self._process = context.Process(target=serve, args=(theirs, *self._how), name="model", daemon=True)
        self._process.start()
        theirs.close()
        self._unanswered = 1
        about: tuple[str, ModelConfig, int, float | None] = self._answer(START)
        self.name, self.config, self.step_bytes, self.warm_for = about

    def _ask(self, method: str, *arguments: Any) -> Any:
        self._tell(method, *arguments)
        return self._settle()

    def _settle(self) -> Any:
        """Waits for all that is still to be answered, and returns the last answer."""
        answer = None
        while self._unanswered:
            answer = self._answer(self._hang)
        return answer

    def _tell(self, method: str, *arguments: Any) -> None:
        while self._unanswered >= AHEAD:
            self._answer(self._hang)
        try:
            self._connection.send((method, arguments))
        except OSError as error:
            self._kill()
            raise RuntimeLost("the model's process has died") from error
        self._unanswered += 1

    def _answer(self, patience: float) -> Any:
        """The answer to the oldest call without one. Raises ``RuntimeLost``, and whatever the call itself raised."""
        try:
            fault = LOG
            while fault == LOG:
                if not self._connection.poll(patience):
                    raise RuntimeLost(f"the model has not answered for {patience:g} s")
                fault, answer = self._connection.recv()
                if fault == LOG:
                    name, level, text = answer
                    logging.getLogger(name).log(level, "%s", text)
        except (OSError, EOFError) as error:
            self._kill()
            raise RuntimeLost("the model's process has died") from error
        except RuntimeLost:
            self._kill()
            raise
        self._unanswered -= 1
        if fault:
            kinds: dict[str, type[Exception]] = {"CheckpointError": CheckpointError, "RuntimeUnavailable": RuntimeUnavailable}
            raise kinds.get(fault, RuntimeError)(answer)
        return answer

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._unanswered = 0


class _Forward(logging.Handler):
    """Log lines go to whoever asks, who knows where they belong."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            self._connection.send((LOG, (record.name, record.levelno, record.getMessage())))


def serve(connection: Connection, name: str, checkpoint: Path, threads: int, level: int) -> None:
    """The process: answers with (kind of fault or "", result or message), until the other end is closed."""
    clear_realtime()  # opening takes long, and may begin other work
    logging.basicConfig(handlers=[_Forward(connection)])
    logging.getLogger("engine").setLevel(level)
    for number in ("SIGINT", "SIGHUP"):  # Ctrl-C is for the one who asked
        if hasattr(signal, number):
            signal.signal(getattr(signal, number), signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        try:
            runtime = open_runtime(name, checkpoint, threads=threads)
        except Exception as error:
            connection.send((type(error).__name__, str(error)))
            return
        budget = Budget(MODEL)
        connection.send(("", (runtime.name, runtime.config, runtime.step_bytes, runtime.warm_for)))
        try:
            while True:
                method, arguments = connection.recv()
                try:
                    answer = getattr(runtime, method)(*arguments)
                except Exception as error:
                    connection.send((type(error).__name__, f"{type(error).__name__}: {error}"))
                else:
                    connection.send(("", answer))
                budget.check()
        finally:
            runtime.close()
