"""Sets up logging: one text line or one JSON object per record."""

from __future__ import annotations

import json
import logging
import sys

PACKAGES = ("perceivers_live", "engine", "trainer")  # other libraries log warnings only


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
