"""The daemon with a player that logs its calls and events: python -m benchmarks.live_daemon LOG SLOW [OPTIONS]

`benchmarks/live.py` starts it. The model takes SLOW times as long as usual. The file LOG is written at the end, one JSON list per
line, with the fields of `live_log.LogEntry`. All processes of a computer share the monotonic clock of its times.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.live_log import BEGAN, CANCELLED, CUT, ENDED, HUMAN, PLANNED, RESTED, SOUNDED, LogEntry
from engine.events import REST, Timed
from engine.remote import address
from perceivers_live.cli import main
from perceivers_live.player.player import Planned, Player
from perceivers_live.session import session

REST_TIME = 0.025  # seconds for which a rest counts as decided; the performer asks again within 20 ms


class LoggingPlayer(Player):
    """A player that logs its calls and events in ``entries``. Logging takes a few microseconds per call."""

    entries: list[LogEntry]

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        LoggingPlayer.entries = []
        self._decided = float("-inf")  # the time up to which events and silence are decided

    def _log(self, what: str, meant: float | None = None, action: int = REST) -> None:
        now = time.perf_counter()
        self.entries.append(LogEntry(what, now, now if meant is None else meant, action))

    def begin(self) -> None:
        super().begin()
        self._log(BEGAN)

    def end(self) -> bool:
        was_playing = super().end()
        self._log(ENDED)
        return was_playing

    def interrupt(self, now: float) -> list[Timed]:
        released = super().interrupt(now)
        self._log(ENDED)
        return released

    def schedule(self, events: Iterable[Planned]) -> None:
        with self._lock:
            for event in events:
                before = len(self._plan)
                super().schedule([event])
                if len(self._plan) > before:
                    self._decided = event.time
                    self._log(PLANNED, event.time, event.action)

    def cancel(self, after: float = float("-inf")) -> int:
        with self._lock:
            serial = super().cancel(after)
            self._cut(CANCELLED, after)
            return serial

    def react_to(self, actions: Sequence[Timed], until: float = float("-inf")) -> list[Timed]:
        with self._lock:
            for action in actions:
                self._log(HUMAN, action.time, action.action)
            return super().react_to(actions, until)

    def reopen(self, actions: Sequence[Timed], until: float) -> int:
        with self._lock:
            serial = super().reopen(actions, until)
            self._cut(CANCELLED, until)
            return serial

    def planned(self) -> int:
        """Also logs a rest if nothing is planned: the performer calls this while it decides to be silent."""
        left = super().planned()
        if not left:
            self._decided = time.perf_counter() + REST_TIME
            self._log(RESTED, self._decided)
        return left

    def _shorten(self, actions: Sequence[Timed], until: float) -> bool:
        before = list(self._plan)
        shortened = super()._shorten(actions, until)
        self._cut(CUT, min([until, *(event.time for event in before[len(self._plan) :])]))
        return shortened

    def _cut(self, what: str, until: float) -> None:
        """Logs that the plan, with its silences, remains valid up to ``until`` at most."""
        self._decided = min(self._decided, until)
        self._log(what, max(self._decided, time.perf_counter()))

    def _play(self, event: Planned, now: float) -> None:
        before = self.played
        super()._play(event, now)
        if self.played > before:
            self._log(SOUNDED, event.time, event.action)


if __name__ == "__main__":
    path, slow = Path(sys.argv.pop(1)), sys.argv.pop(1)
    if float(slow) > 1:
        local = address.this_computer

        def slowed(*arguments: Any) -> address.Address:
            usual = local(*arguments)
            return dataclasses.replace(usual, command=(sys.executable, "-m", "benchmarks.slow_serve", slow, *usual.command[3:]))

        address.this_computer = slowed  # type: ignore[assignment]
    session.Player = LoggingPlayer  # type: ignore[attr-defined]
    try:
        main()
    finally:
        path.write_text("".join(json.dumps(entry) + "\n" for entry in LoggingPlayer.entries), encoding="utf-8")
