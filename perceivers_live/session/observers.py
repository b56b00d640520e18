"""Who watches a session: the recorder, the page, OSC, the log. Each says what it wants to be told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.events import Timed
from perceivers_live.performer.performer import State
from perceivers_live.player.ledger import Sent
from perceivers_live.player.player import Planned, PlayerObserver

log = logging.getLogger(__name__)


def _nothing(_: object) -> None:
    pass


@dataclass(frozen=True)
class Observer:
    """What to call, on whatever thread something happened: no function may wait. Times are monotonic seconds.

    ``listening``: the session has begun. ``human`` and ``machine``: what sounds, as it was sent. ``planned``: what the machine is
    going to play; ``taken_back``: from which serial number on it will not. ``state``: the machine listens or plays.
    ``countdown``: when it will begin if nothing more is heard, and each change of that; None: not by itself. ``stats``: the
    session's counters, four times a second. ``message``: a word to the user, such as what a controller was bound to. ``fault``:
    its kind, and the error.
    """

    listening: Callable[[], None] = lambda: None
    human: Callable[[Timed], None] = _nothing
    machine: Callable[[Timed], None] = _nothing
    planned: Callable[[Sequence[Planned]], None] = _nothing
    taken_back: Callable[[int], None] = _nothing
    state: Callable[[State], None] = _nothing
    countdown: Callable[[float | None], None] = _nothing
    stats: Callable[[Mapping[str, float]], None] = _nothing
    message: Callable[[str], None] = _nothing
    fault: Callable[[str, Exception], None] = lambda *_: None


class Observers(PlayerObserver):
    """Tells every observer. One that fails is logged and costs the others nothing."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._all = tuple(observers)

    def add(self, observer: Observer) -> Callable[[], None]:
        """One more; returns a function that ends it."""
        self._all = (*self._all, observer)

        def remove() -> None:
            self._all = tuple(one for one in self._all if one is not observer)

        return remove

    def listening(self) -> None:
        self._tell(lambda to: to.listening())

    def human(self, one: Timed) -> None:
        self._tell(lambda to: to.human(one))

    def sounded(self, one: Sent) -> None:
        self._tell(lambda to: to.machine(one.sent))

    def planned(self, events: Sequence[Planned]) -> None:
        self._tell(lambda to: to.planned(events))

    def taken_back(self, first: int) -> None:
        self._tell(lambda to: to.taken_back(first))

    def state(self, state: State) -> None:
        self._tell(lambda to: to.state(state))

    def countdown(self, at: float | None) -> None:
        self._tell(lambda to: to.countdown(at))

    def stats(self, stats: Mapping[str, float]) -> None:
        self._tell(lambda to: to.stats(stats))

    def message(self, text: str) -> None:
        self._tell(lambda to: to.message(text))

    def fault(self, kind: str, error: Exception) -> None:
        self._tell(lambda to: to.fault(kind, error))

    def _tell(self, call: Callable[[Observer], None]) -> None:
        for observer in self._all:
            try:
                call(observer)
            except Exception:  # whoever watches must not stop the music
                log.exception("an observer failed")
