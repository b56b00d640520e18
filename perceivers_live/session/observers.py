"""Callbacks for what happens in a session. The recorder, the page, OSC and the log use them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.events import NOTE_OFF, Timed
from perceivers_live.performer.performer import State
from perceivers_live.player.ledger import Sent
from perceivers_live.player.player import Planned, PlayerObserver

log = logging.getLogger(__name__)


def _nothing(_: object) -> None:
    pass


@dataclass(frozen=True)
class Observer:
    """Callbacks; each default does nothing. They are called on any thread and must not wait. Times are monotonic seconds.

    ``started``: the session listens. ``human``, ``machine``: an action of that part, as it was played or
    sent; of the human also on keys that the machine does not listen to. ``planned``: events
    that the machine is going to play. ``dropped``: planned events with this serial number or a later one were cancelled.
    ``state``: the machine has started to listen or to play. ``countdown``: the time at which the machine will start to play if
    the human plays nothing more, whenever it changes; None: it will not start by itself. ``stats``: the session's counters, four
    times a second. ``message``: a message to the user, such as which control a controller was bound to. ``fault``: the kind of a
    fault, and the error.
    """

    started: Callable[[], None] = lambda: None
    human: Callable[[Timed], None] = _nothing
    machine: Callable[[Timed], None] = _nothing
    planned: Callable[[Sequence[Planned]], None] = _nothing
    dropped: Callable[[int], None] = _nothing
    state: Callable[[State], None] = _nothing
    countdown: Callable[[float | None], None] = _nothing
    stats: Callable[[Mapping[str, float]], None] = _nothing
    message: Callable[[str], None] = _nothing
    fault: Callable[[str, Exception], None] = lambda *_: None


class Observers(PlayerObserver):
    """Calls every observer. An exception in one is logged and does not affect the others."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._all = tuple(observers)

    def add(self, observer: Observer) -> Callable[[], None]:
        """Adds an observer; returns a function that removes it."""
        self._all = (*self._all, observer)

        def remove() -> None:
            self._all = tuple(one for one in self._all if one is not observer)

        return remove

    def started(self) -> None:
        self._notify(lambda observer: observer.started())

    def human(self, timed: Timed) -> None:
        self._notify(lambda observer: observer.human(timed))

    def sounded(self, sent: Sent) -> None:
        if sent.fault is None or sent.sent.action >= NOTE_OFF:  # a release that failed also ends what observers show or record
            self._notify(lambda observer: observer.machine(sent.sent))

    def planned(self, events: Sequence[Planned]) -> None:
        self._notify(lambda observer: observer.planned(events))

    def dropped(self, first: int) -> None:
        self._notify(lambda observer: observer.dropped(first))

    def state(self, state: State) -> None:
        self._notify(lambda observer: observer.state(state))

    def countdown(self, at: float | None) -> None:
        self._notify(lambda observer: observer.countdown(at))

    def stats(self, stats: Mapping[str, float]) -> None:
        self._notify(lambda observer: observer.stats(stats))

    def message(self, text: str) -> None:
        self._notify(lambda observer: observer.message(text))

    def fault(self, kind: str, error: Exception) -> None:
        self._notify(lambda observer: observer.fault(kind, error))

    def _notify(self, call: Callable[[Observer], None]) -> None:
        for observer in self._all:
            try:
                call(observer)
            except Exception:  # an observer must not stop the music
                log.exception("an observer failed")
