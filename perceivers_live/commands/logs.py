"""Sets up logging: one text line or one JSON object per record."""

from __future__ import annotations

import json
import logging
import sys
import threading
from queue import SimpleQueue

PACKAGES = ("perceivers_live", "engine", "trainer")  # other libraries log warnings only
MAX_WAITING = 2000  # records that wait for a terminal that does not take them; later ones are dropped
CLOSE_TIMEOUT = 1.0  # seconds to wait at the end for the terminal to take the last records


class JsonLines(logging.Formatter):
    """``time`` (seconds since 1970), ``level``, ``logger``, ``message``, and ``traceback`` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def begin(*, debug: bool = False, as_json: bool = False) -> None:
    """Starts logging to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler])
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)


class BackgroundLog(logging.Handler):
    """From its construction to ``close``, a thread writes the records of the root logger's handlers. A thread that logs never
    waits: a terminal that is stopped (Ctrl-S, a pager) stops only that thread. Records beyond ``MAX_WAITING`` are dropped, and
    their number is logged.
    """

    def __init__(self) -> None:
        super().__init__()
        self._root = logging.getLogger()
        self._handlers = self._root.handlers[:]
        self._waiting: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._dropped = 0
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()
        self._root.handlers[:] = [self]

    @property
    def stuck(self) -> bool:
        """Whether the writer still waits for the terminal after ``close``. Its locks then keep the interpreter from ending."""
        return self._writer.is_alive()

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a record to those that wait."""
        if self._waiting.qsize() < MAX_WAITING:
            record.msg, record.args = record.getMessage(), None  # now, since the arguments may change
            self._waiting.put(record)
        else:
            self._dropped += 1

    def close(self) -> None:
        """Waits at most ``CLOSE_TIMEOUT`` for the last records to be written. Later records are written directly if this
        succeeds; otherwise they are dropped.
        """
        super().close()
        self._waiting.put(None)
        self._writer.join(CLOSE_TIMEOUT)
        self._root.handlers[:] = [] if self.stuck else self._handlers

    def _write(self) -> None:
        while (record := self._waiting.get()) is not None:
            for handler in self._handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
            if self._dropped and self._waiting.empty():
                dropped, self._dropped = self._dropped, 0
                logging.getLogger(__name__).warning("%d lines of the log were dropped: the terminal did not take them", dropped)
