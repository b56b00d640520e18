"""The server: reads calls of a runtime from standard input and writes answers to standard output (``perceivers-live serve``).

The client starts it, on this computer (``python -m engine.remote.serve``) or through ssh, and ends it by closing its input.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from engine.ahead import decide_ahead
from engine.realtime import MODEL, RealtimeBudget, clear_realtime
from engine.remote import decided_ahead
from engine.remote.protocol import LOG_FORMAT, Kind, ServerInfo, call_limit, ready_values, version
from engine.remote.wire import READ_BYTES, Frame, FrameReader, Value, encode
from engine.runtimes import Runtime, SamplingBias
from engine.runtimes.choose import open_runtime
from engine.states import fingerprint


class Stream:
    """Reads frames from one file descriptor, writes them to another. ``idle``: seconds without
    input that end it; None: no limit.
    """

    def __init__(self, source: int, sink: int, idle: float | None = None) -> None:
        self._source, self._sink = source, sink
        self._idle = idle if sys.platform != "win32" else None  # Windows cannot wait for a pipe with a timeout
        self._reader = FrameReader()

    def read(self, limit: Callable[[int], int]) -> Frame | None:
        """The next frame; None at the end of the input. Raises ``WireError``."""
        while (frame := self._reader.next(limit)) is None:
            if self._idle is not None and not select.select([self._source], [], [], self._idle)[0]:
                return None
            data = os.read(self._source, READ_BYTES)
            if not data:
                return None
            self._reader.feed(data)
        return frame

    def write(self, kind: Kind, *values: Value) -> None:
        left = memoryview(encode(kind, *values))
        while left:
            left = left[os.write(self._sink, left) :]


def serve(stream: Stream, open_: Callable[[], Runtime], checkpoint: Path) -> None:
    """Opens the runtime and answers calls until the input ends. Raises ``WireError`` for input that is not the protocol's."""
    clear_realtime()  # opening takes long and may start threads
    with contextlib.suppress(BrokenPipeError):
        try:
            runtime = open_()
        except Exception as error:
            stream.write(Kind.FAULT, type(error).__name__, str(error))
            return
        budget = RealtimeBudget(MODEL)
        info = ServerInfo(runtime.name, runtime.config, runtime.step_bytes, runtime.warm_for, version())
        limit = partial(call_limit, config=runtime.config)
        try:
            stream.write(Kind.READY, *ready_values(info))
            while (frame := stream.read(limit)) is not None:
                try:
                    answer = execute(runtime, checkpoint, frame)
                except Exception as error:
                    stream.write(Kind.FAULT, type(error).__name__, f"{type(error).__name__}: {error}"[:1000])
                else:
                    stream.write(Kind.ANSWER, *answer)
                budget.check()
        finally:
            runtime.close()


def execute(runtime: Runtime, checkpoint: Path, frame: Frame) -> Sequence[Value]:
    """Executes a call and returns its values. Raises what the runtime raises, and ``ValueError`` for wrong arguments."""
    match frame:
        case (Kind.PING, ()):
            pass
        case (Kind.FINGERPRINT, ()):
            return (fingerprint(checkpoint),)
        case (Kind.RESET, (int(first),)):
            runtime.reset(first)
        case (Kind.STEP, (np.ndarray() as events, np.ndarray() as ages, np.ndarray() as times, int(first))):
            runtime.step(events, ages, times, first)
        case (Kind.PREFILL_CROSS, (np.ndarray() as events, np.ndarray() as ages, np.ndarray() as times, int(first))):
            runtime.prefill_cross(events, ages, times, first)
        case (Kind.DECIDE, (int(position), np.ndarray() as wait, np.ndarray() as action, np.ndarray() as velocity, *rest)):
            return _decision(runtime, position, (wait, action, velocity), rest)
        case (Kind.DECIDE_AHEAD, (int(position), *rest)):
            began = time.monotonic()
            decided = decide_ahead(runtime, position, *decided_ahead.parse_call(rest))
            return decided_ahead.answer_values(decided, time.monotonic() - began)
        case (Kind.HIDDEN, (int(position),)):
            return (runtime.hidden(position),)
        case (Kind.RINGS, ()):
            return runtime.rings()
        case (Kind.RESTORE, (int(first), *rings)):
            runtime.restore([ring for ring in rings if isinstance(ring, np.ndarray)], first)
        case (Kind.KEEP_WARM, ()):
            runtime.keep_warm()
        case _:
            raise ValueError(f"wrong arguments for a call of kind {frame.kind}")
    return ()


def _decision(
    runtime: Runtime, position: int, biases: tuple[np.ndarray, np.ndarray, np.ndarray], rest: Sequence[Value]
) -> Sequence[Value]:
    match rest:
        case (float(temperature), float(min_p), np.ndarray() as noise):
            return runtime.decide(position, SamplingBias(*biases, temperature, min_p, noise)) or ()
    raise ValueError("wrong arguments for a decision")


def standard_streams(idle: float | None = None) -> Stream:
    """Reserves standard input and output for the protocol. Output of ``print`` goes to standard error from now on."""
    sink = os.dup(1)
    os.dup2(2, 1)
    return Stream(0, sink, idle)


def ignore_terminal() -> None:
    """Ignores Ctrl-C and a closed terminal: they are for the client, which then closes our input."""
    for number in ("SIGINT", "SIGHUP"):
        if hasattr(signal, number):
            signal.signal(getattr(signal, number), signal.SIG_IGN)


def start_log(level: int | str) -> None:
    """Logs to standard error in the format that the client forwards to its own log."""
    logging.basicConfig(format=LOG_FORMAT, force=True)
    logging.getLogger("engine").setLevel(level)


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(prog="python -m engine.remote.serve", description=__doc__)
    options.add_argument("--runtime", default="auto")
    options.add_argument("--checkpoint", type=Path, required=True)
    options.add_argument("--threads", type=int, default=0)
    options.add_argument("--log-level", type=int, default=logging.INFO)
    given = options.parse_args(arguments)
    ignore_terminal()
    start_log(given.log_level)
    serve(standard_streams(), lambda: open_runtime(given.runtime, given.checkpoint, threads=given.threads), given.checkpoint)


if __name__ == "__main__":
    main()
