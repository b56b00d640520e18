"""The far end: a runtime that is asked over standard input and answers on standard output (``perceivers-live serve``).

The near end starts it, on this machine (``python -m engine.remote.serve``) or through ssh, and ends it by closing its input.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from engine.realtime import MODEL, Budget, clear_realtime
from engine.remote.protocol import LOG_FORMAT, About, Kind, call_limit, introduction, version
from engine.remote.wire import Frame, FrameReader, Value, encode
from engine.runtimes import Runtime, SamplingBias
from engine.runtimes.choose import open_runtime
from engine.states import fingerprint

READ_BYTES = 1 << 16  # at once; a larger buffer would be asked of the system and given back each time


class Stream:
    """Frames in from one file descriptor, out to another. ``idle``: seconds of silence that end it, None: none do."""

    def __init__(self, source: int, sink: int, idle: float | None = None) -> None:
        self._source, self._sink = source, sink
        self._idle = idle if sys.platform != "win32" else None  # which cannot wait for a pipe with a limit
        self._reader = FrameReader()

    def read(self, limit: Callable[[int], int]) -> Frame | None:
        """The next frame; None: there will be no more. Raises ``WireError``."""
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
    """Opens the runtime and answers until the near end is gone. Raises ``WireError`` if that speaks another language."""
    clear_realtime()  # opening takes long, and may begin other work
    with contextlib.suppress(BrokenPipeError):
        try:
            runtime = open_()
        except Exception as error:
            stream.write(Kind.FAULT, type(error).__name__, str(error))
            return
        budget = Budget(MODEL)
        about = About(runtime.name, runtime.config, runtime.step_bytes, runtime.warm_for, version())
        limit = partial(call_limit, config=runtime.config)
        try:
            stream.write(Kind.READY, *introduction(about))
            while (frame := stream.read(limit)) is not None:
                try:
                    answer = answered(runtime, checkpoint, frame)
                except Exception as error:
                    stream.write(Kind.FAULT, type(error).__name__, f"{type(error).__name__}: {error}"[:1000])
                else:
                    stream.write(Kind.ANSWER, *answer)
                budget.check()
        finally:
            runtime.close()


def answered(runtime: Runtime, checkpoint: Path, frame: Frame) -> Sequence[Value]:
    """What a call returns. Raises what the runtime does, and ``ValueError`` for arguments that are not a call's."""
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
        case (Kind.HIDDEN, (int(position),)):
            return (runtime.hidden(position),)
        case (Kind.RINGS, ()):
            return runtime.rings()
        case (Kind.RESTORE, (int(first), *rings)):
            runtime.restore([ring for ring in rings if isinstance(ring, np.ndarray)], first)
        case (Kind.KEEP_WARM, ()):
            runtime.keep_warm()
        case _:
            raise ValueError(f"no call of kind {frame.kind} has these arguments")
    return ()


def _decision(
    runtime: Runtime, position: int, biases: tuple[np.ndarray, np.ndarray, np.ndarray], rest: Sequence[Value]
) -> Sequence[Value]:
    match rest:
        case (float(temperature), float(min_p), np.ndarray() as noise):
            return runtime.decide(position, SamplingBias(*biases, temperature, min_p, noise)) or ()
    raise ValueError("no decision has these arguments")


def standard_streams(idle: float | None = None) -> Stream:
    """Standard input and output, from now on for this conversation alone: what anybody prints goes to standard error."""
    sink = os.dup(1)
    os.dup2(2, 1)
    return Stream(0, sink, idle)


def quietly() -> None:
    """Ctrl-C and a closed terminal are for whoever began this process, which then closes our input."""
    for number in ("SIGINT", "SIGHUP"):
        if hasattr(signal, number):
            signal.signal(getattr(signal, number), signal.SIG_IGN)


def begin_log(level: int | str) -> None:
    """Lines on standard error, for the near end to put into its own log."""
    logging.basicConfig(format=LOG_FORMAT, force=True)
    logging.getLogger("engine").setLevel(level)


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(prog="python -m engine.remote.serve", description=__doc__)
    options.add_argument("--runtime", default="auto")
    options.add_argument("--checkpoint", type=Path, required=True)
    options.add_argument("--threads", type=int, default=0)
    options.add_argument("--log-level", type=int, default=logging.INFO)
    given = options.parse_args(arguments)
    quietly()
    begin_log(given.log_level)
    serve(standard_streams(), lambda: open_runtime(given.runtime, given.checkpoint, threads=given.threads), given.checkpoint)


if __name__ == "__main__":
    main()
