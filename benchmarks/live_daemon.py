"""The daemon with notes taken of what its player was told and did: python -m benchmarks.live_daemon NOTES SLOW [OPTIONS]

`benchmarks/live.py` starts it. The model takes SLOW times as long as here. NOTES is written at the end, one JSON list a line:
what, when (monotonic seconds, as every process of this machine counts them), the time that it was meant for, action.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.live_notes import BEGAN, CANCELLED, CUT, ENDED, HUMAN, PLANNED, RESTED, SOUNDED, Note
from engine.events import REST, Timed
from engine.remote import address
from perceivers_live.cli import main
from perceivers_live.player.player import Planned, Player
from perceivers_live.session import session

REST_TIME = 0.025  # seconds: the performer asks again within 20 ms


class NotingPlayer(Player):
    """Costs the player some microseconds a call."""

    notes: list[Note]

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        NotingPlayer.notes = []
        self._decided = float("-inf")  # the time up to which it is decided what sounds and what does not

    def _note(self, what: str, meant: float | None = None, action: int = REST) -> None:
        now = time.perf_counter()
        self.notes.append(Note(what, now, now if meant is None else meant, action))

    def begin(self) -> None:
        super().begin()
        self._note(BEGAN)

    def end(self) -> bool:
        was = super().end()
        self._note(ENDED)
        return was

    def interrupt(self, now: float) -> list[Timed]:
        released = super().interrupt(now)
        self._note(ENDED)
        return released

    def schedule(self, events: Iterable[Planned]) -> None:
        with self._lock:
            for event in events:
                before = len(self._plan)
                super().schedule([event])
                if len(self._plan) > before:
                    self._decided = event.time
                    self._note(PLANNED, event.time, event.action)

    def cancel(self, after: float = float("-inf")) -> int:
        with self._lock:
            serial = super().cancel(after)
            self._cut(CANCELLED, after)
            return serial

    def release_for(self, actions: Sequence[Timed], until: float = float("-inf")) -> list[Timed]:
        with self._lock:
            for one in actions:
                self._note(HUMAN, one.time, one.action)
            return super().release_for(actions, until)

    def reopen(self, actions: Sequence[Timed], until: float) -> int:
        with self._lock:
            serial = super().reopen(actions, until)
            self._cut(CANCELLED, until)
            return serial

    def planned(self) -> int:
        """Asked for by a performer that has nothing more to play for the time being: silence is decided on."""
        left = super().planned()
        if not left:
            self._decided = time.perf_counter() + REST_TIME
            self._note(RESTED, self._decided)
        return left

    def _shorten(self, actions: Sequence[Timed], until: float) -> None:
        before = list(self._plan)
        super()._shorten(actions, until)
        self._cut(CUT, min([until, *(one.time for one in before[len(self._plan) :])]))

    def _cut(self, what: str, until: float) -> None:
        """Up to ``until`` the plan holds, silences included, if it reached as far."""
        self._decided = min(self._decided, until)
        self._note(what, max(self._decided, time.perf_counter()))

    def _play(self, event: Planned, now: float) -> None:
        before = self.played
        super()._play(event, now)
        if self.played > before:
            self._note(SOUNDED, event.time, event.action)


if __name__ == "__main__":
    path, slow = Path(sys.argv.pop(1)), sys.argv.pop(1)
    if float(slow) > 1:
        local = address.this_machine

        def slowed(*arguments: Any) -> address.Address:
            made = local(*arguments)
            return dataclasses.replace(made, command=(sys.executable, "-m", "benchmarks.slow_serve", slow, *made.command[3:]))

        address.this_machine = slowed
    session.Player = NotingPlayer  # type: ignore[misc]
    try:
        main()
    finally:
        path.write_text("".join(json.dumps(note) + "\n" for note in NotingPlayer.notes), encoding="utf-8")
