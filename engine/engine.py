"""The rolling musical state: what was absorbed, where the model stands, and how to go back.

    absorb(events)      the rings advance
    decide(...)         the next event, from the newest position
    rewind(position)    forget what was never played: moves a pointer
    snapshot(), restore()

One owner, one thread: the performer. Nothing here knows of ports, OSC or clocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.config import CheckpointError
from engine.events import NO_VELOCITY, NOTE_OFF, START_EVENT, Event
from engine.runtimes import Odds, Runtime
from engine.sounding import AGES, Sounding

CHUNKS = (1, 8, 64)  # events absorbed at once; fixed sizes suit compiled runtimes


class EngineError(RuntimeError):
    """The engine was asked for what it cannot do, or its runtime failed."""


class Moment(NamedTuple):
    """A position: its event, what sounds after it, and the model's hidden state there."""

    event: Event
    sounding: Sounding
    hidden: Any


class Snapshot(NamedTuple):
    """An exact musical state, free of the runtime it came from."""

    position: int
    high_water: int
    moments: tuple[Moment, ...]  # hidden states as arrays
    rings: tuple[np.ndarray, ...]
    history: tuple[Event, ...]


class Engine:
    """A runtime with a memory. ``position`` is that of the newest event; the start event is position 0."""

    def __init__(self, runtime: Runtime) -> None:
        """Raises ``CheckpointError`` for a model whose memory cannot roll."""
        if runtime.config.mask != "band":
            raise CheckpointError("a model with a block mask was trained to compare with; it cannot stream")
        self.runtime = runtime
        self.config = runtime.config
        self._moments: deque[Moment] = deque(maxlen=self.config.slack + 1)
        self._history: deque[Event] = deque(maxlen=self.config.reach + self.config.window * self.config.layers)
        self.forget()

    def forget(self) -> None:
        """Back to an empty history."""
        self.runtime.reset()
        self._moments.clear()
        self._history.clear()
        self.position = self.high_water = -1
        self.absorb([START_EVENT])

    @property
    def sounding(self) -> Sounding:
        """What sounds after the newest event. Not to be changed."""
        return self._moments[-1].sounding

    @property
    def last(self) -> Event:
        """The newest event."""
        return self._moments[-1].event

    def since(self, position: int) -> list[Event]:
        """The events after ``position``, as far back as the slack."""
        return [moment.event for moment in list(self._moments)[-(self.position - position) :]] if position < self.position else []

    @property
    def step(self) -> int:
        """Time of the newest event in 10 ms steps since the start event."""
        return self._moments[-1].sounding.step

    def absorb(self, events: Sequence[Event]) -> None:
        """Appends events to the history. Raises ``EngineError`` if the runtime fails; the state is then as before the chunk."""
        done = 0
        while done < len(events):
            size = next(size for size in reversed(CHUNKS) if size <= len(events) - done)
            self._absorb_chunk(events[done : done + size])
            done += size

    def _absorb_chunk(self, chunk: Sequence[Event]) -> None:
        soundings, now = [], self._moments[-1].sounding if self._moments else Sounding()
        for event in chunk:
            now = now.copy()
            now.apply(event)
            soundings.append(now)
        ages = np.stack([one.ages() for one in soundings]).reshape(-1, AGES)
        times = np.array([one.step for one in soundings], np.int64)
        hidden = self.runtime.step(np.array(chunk, np.int64).reshape(-1, 3), ages, times, self.position + 1)
        for event, sounding, h in zip(chunk, soundings, hidden, strict=True):
            self._moments.append(Moment(event, sounding, h))
            self._history.append(event)
        self.position += len(chunk)
        self.high_water = max(self.high_water, self.position)

    def decide(self, odds: Odds) -> Event:
        """The next event, not yet absorbed. Raises ``EngineError`` if the model's state is not finite."""
        hidden = self._moments[-1].hidden
        if not np.isfinite(self.runtime.as_array(hidden)).all():
            raise EngineError("the model's state is not finite")
        wait, action, velocity = self.runtime.decide(hidden, odds)
        return Event(wait, action, velocity if action < NOTE_OFF else NO_VELOCITY)

    def rewind(self, position: int) -> None:
        """Forgets every event after ``position``. Within the slack this moves pointers; further back it recomputes from the
        history that is kept. Raises ``EngineError`` for a position that is gone or never was.
        """
        if not 0 <= position <= self.position:
            raise EngineError(f"cannot rewind to position {position} from {self.position}")
        back = self.position - position
        if back < len(self._moments) and self.high_water - position <= self.config.slack:
            for _ in range(back):
                self._moments.pop()
                self._history.pop()
            self.position = position
            return
        if len(self._history) <= self.position:
            raise EngineError(f"cannot rewind {back} events: only {self.config.slack} are kept in a session this long")
        kept = list(self._history)[1 : position + 1]
        self.forget()
        self.absorb(kept)

    def hidden(self) -> np.ndarray:
        """The model's hidden state at the newest position, float32 [D]."""
        return self.runtime.as_array(self._moments[-1].hidden)

    def recent_hidden(self, count: int) -> np.ndarray:
        """The hidden states at the newest ``count`` positions, oldest first, float32 [count, D]; the slack bounds ``count``."""
        return np.stack([self.runtime.as_array(moment.hidden) for moment in list(self._moments)[-count:]])

    def snapshot(self) -> Snapshot:
        moments = tuple(m._replace(hidden=self.runtime.as_array(m.hidden)) for m in self._moments)
        return Snapshot(self.position, self.high_water, moments, tuple(self.runtime.rings()), tuple(self._history))

    def restore(self, snapshot: Snapshot) -> None:
        self.runtime.restore(snapshot.rings)
        self._moments = deque(
            (m._replace(hidden=self.runtime.from_array(m.hidden)) for m in snapshot.moments), self.config.slack + 1
        )
        self._history = deque(snapshot.history, self._history.maxlen)
        self.position, self.high_water = snapshot.position, snapshot.high_water
