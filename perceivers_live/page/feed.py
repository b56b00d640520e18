"""Converts events of the session to messages for the pages. The methods are called on threads that must not block, so they only
queue a function; the hub's thread calls it to create the message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from engine.events import NOTE_OFF, PITCHES, REST, SUSTAIN_DOWN, Timed
from engine.text import printable
from perceivers_live.page.hub import Hub
from perceivers_live.page.protocol import Message, seconds


class PlannedEvent(Protocol):
    """An event of the player's plan."""

    @property
    def time(self) -> float: ...

    @property
    def serial(self) -> int: ...

    @property
    def action(self) -> int: ...

    @property
    def velocity(self) -> int: ...


class Feed:
    """Passes events of the session to ``hub``. ``sounds_as``: maps a planned pitch to the pitch that is sent."""

    def __init__(self, hub: Hub, sounds_as: Callable[[int], int] = lambda pitch: pitch) -> None:
        self._hub, self._sounds_as = hub, sounds_as

    def human(self, timed: Timed) -> None:
        """The human played an action."""
        if self._hub.is_watched:
            self._hub.post(lambda: _played("human", timed))

    def machine(self, timed: Timed) -> None:
        """The machine played an action."""
        if self._hub.is_watched:
            self._hub.post(lambda: _played("machine", timed))

    def planned(self, events: Sequence[PlannedEvent]) -> None:
        """Events were planned."""
        if self._hub.is_watched:
            self._hub.post(lambda: self._plan(events))

    def dropped(self, first: int) -> None:
        """Planned events with serial numbers from ``first`` on were dropped and will not sound."""
        if self._hub.is_watched:
            self._hub.post(lambda: {"type": "dropped", "first": first})

    def turn(self, state: str) -> None:
        """The state of the machine changed: listening or playing."""
        self._hub.post(lambda: {"type": "turn", "state": state})

    def countdown(self, at: float | None) -> None:
        """The time at which the machine will start to play; None if it will not."""
        self._hub.post(lambda: {"type": "countdown", "at": None if at is None else seconds(at)})

    def health(self, figures: Mapping[str, float], runtime: str) -> None:
        """Current figures of latency and counters."""
        self._hub.post(lambda: {"type": "health", "figures": dict(figures), "runtime": runtime})

    def message(self, text: str) -> None:
        """A message to the user."""
        self._hub.post(lambda: {"type": "notice", "level": "info", "text": printable(text)})

    def _plan(self, events: Sequence[PlannedEvent]) -> Message | None:
        told = [
            [one.serial, seconds(one.time), *_action(one.action, one.velocity, self._sounds_as)]
            for one in events
            if one.action < REST
        ]
        return {"type": "planned", "events": told} if told else None


def _played(part: str, timed: Timed) -> Message:
    return {"type": "played", "part": part, "events": [[seconds(timed.time), *_action(timed.action, timed.velocity)]]}


def _action(action: int, velocity: int, sounds_as: Callable[[int], int] = lambda pitch: pitch) -> tuple[str, int, int]:
    if action < NOTE_OFF:
        return "on", sounds_as(action), velocity
    if action < NOTE_OFF + PITCHES:
        return "off", sounds_as(action - NOTE_OFF), 0
    return ("down" if action == SUSTAIN_DOWN else "up"), 0, 0
