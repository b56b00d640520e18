"""The rolling musical state: the event history and the model's state after it.

    absorb(events)      appends events and computes the state after them
    decide(...)         draws the next event from the newest state
    rewind(position)    drops the events after a position; within the slack this moves a pointer
    snapshot(), restore()
    rebuild()           recomputes the state from the history, after the runtime lost its rings

Not thread-safe: one thread owns an engine, the performer's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from engine.ahead import AheadRuntime, DecisionRequest, decided
from engine.config import CheckpointError
from engine.events import START_EVENT, Event
from engine.runtimes import MAX_CHUNK, Runtime, SamplingBias, chunks
from engine.sounding import Sounding

RECENT = 512  # events that are recomputed after a failure; takes half a second at most on two cores


class EngineError(RuntimeError):
    """An invalid rewind, or a state that is not finite."""


class Moment(NamedTuple):
    """One position: its event, and the keys and pedal that are down after it."""

    event: Event
    sounding: Sounding


class Snapshot(NamedTuple):
    """An exact musical state. Any runtime of the same model can restore it."""

    position: int
    high_water: int
    moments: tuple[Moment, ...]  # the newest positions, as far back as a rewind within the slack can go
    rings: tuple[np.ndarray, ...]
    history: tuple[Event, ...]  # the newest events, as many as the state depends on
    before: Sounding  # keys and pedal before the history


class Engine:
    """A runtime and its event history. ``position``: that of the newest event; the start event has position 0. ``high_water``:
    the highest position whose rows were written into the rings; a rewind to more than ``slack`` before it needs rows that have
    been overwritten.
    """

    def __init__(self, runtime: Runtime) -> None:
        """Raises ``CheckpointError`` for a model that cannot stream."""
        if runtime.config.mask != "band":
            raise CheckpointError("a model with mask = block cannot stream; it is for ablations only")
        self.runtime = runtime
        self.config = config = runtime.config
        self._moments: deque[Moment] = deque(maxlen=config.slack + 1)
        self._history: deque[Event] = deque()  # the newest events, as many as the state depends on
        self._before = Sounding()  # keys and pedal before the history
        self._stale = False  # whether the runtime's state must be rebuilt before use
        self.position = self.high_water = 0
        self.forget()

    def forget(self) -> None:
        """Clears the history. Only the start event remains."""
        self._history.clear()
        self._history.append(START_EVENT)
        self._before = Sounding()
        self.position = 0
        self.rebuild()

    @property
    def sounding(self) -> Sounding:
        """The keys and pedal that are down after the newest event. Read only."""
        return self._moments[-1].sounding

    @property
    def last(self) -> Event:
        """The newest event."""
        return self._moments[-1].event

    def since(self, position: int) -> list[Event]:
        """The events after ``position``; at most slack + 1 of them are known."""
        return [moment.event for moment in list(self._moments)[-(self.position - position) :]] if position < self.position else []

    @property
    def step(self) -> int:
        """Time of the newest event in 10 ms steps since the start event."""
        return self._moments[-1].sounding.step

    def absorb(self, events: Sequence[Event]) -> None:
        """Appends events to the history and computes the state after them. Raises what the runtime raises; the events are then in
        the history all the same, and the next call rebuilds the state from it.

        In a long list, events too far back for the latents of the newest positions only enter the cross-attention's rings.
        """
        first = self.position + 1
        soundings = self._recorded(events, self._moments[-1].sounding)
        self._history.extend(events)
        self.position += len(events)
        while len(self._history) > self.config.history:
            self._before.apply(self._history.popleft())
        if self._stale:
            self.rebuild(RECENT)
        else:
            self._compute(events, soundings, first)
            self.high_water = max(self.high_water, self.position)

    def _recorded(self, events: Sequence[Event], before: Sounding) -> list[Sounding]:
        """The keys and pedal after each of the events; appends these to the moments."""
        soundings, now = [], before
        for event in events:
            now = now.copy()
            now.apply(event)
            soundings.append(now)
        self._moments.extend(map(Moment, events, soundings))
        return soundings

    def _compute(self, events: Sequence[Event], soundings: Sequence[Sounding], first: int) -> None:
        self._stale = True
        for at in chunks(len(events)):
            distant = at.stop - at.start == MAX_CHUNK and len(events) - at.stop >= self.config.latent_reach
            (self.runtime.prefill_cross if distant else self.runtime.step)(
                np.array(events[at], np.int64),
                np.stack([one.ages() for one in soundings[at]]),
                np.array([one.step for one in soundings[at]], np.int64),
                first + at.start,
            )
        self._stale = False

    def decide(self, bias: SamplingBias) -> Event:
        """The next event, not yet absorbed. Raises ``EngineError`` if the model's state is not finite."""
        return self._decided(lambda: decided(self.runtime, self.position, bias))

    def decide_request(self, request: DecisionRequest) -> Event:
        """The event of ``request``. A runtime behind a network decides several events at once."""
        runtime = self.runtime
        if not isinstance(runtime, AheadRuntime):
            return self._decided(lambda: request.decide(partial(decided, runtime, self.position), self.sounding, self.position))
        event = self._decided(lambda: runtime.decide_ahead(self.position, request, self.sounding))
        self.high_water = max(self.high_water, self.position + runtime.ahead)
        return event

    def _decided(self, decide: Callable[[], Event | None]) -> Event:
        """The event that ``decide`` draws from the newest state."""
        if self._stale:
            self.rebuild(RECENT)
        try:
            drawn = decide()
        except Exception:
            self._stale = True  # the failure may belong to an earlier, asynchronous step
            raise
        if drawn is None:
            raise EngineError("the model's state is not finite")
        return drawn

    def rewind(self, position: int) -> None:
        """Drops every event after ``position``. Within the slack this moves pointers; further back it recomputes from the
        history. Raises ``EngineError`` for a position that does not exist, or that the history does not reach.
        """
        back = self.position - position
        pointers_do = back < len(self._moments) and self.high_water - position <= self.config.slack
        left = len(self._history) - back
        enough = left > position or left >= self.config.history - 2 * self.config.slack
        if position < 0 or back < 0 or not (pointers_do or enough):
            raise EngineError(f"cannot rewind to position {position} from {self.position}")
        for _ in range(back):
            self._history.pop()
        self.position = position
        if pointers_do:
            for _ in range(back):
                self._moments.pop()
        else:
            self.rebuild()

    def invalidate(self) -> None:
        """Marks the runtime's state as wrong or lost. The next call recomputes it from the newest events."""
        self._stale = True

    def rebuild(self, newest: int | None = None) -> None:
        """Recomputes the state from the history. With ``newest``, from that many events only, which is faster: older events are
        dropped, as if the session had begun there.
        """
        while newest is not None and len(self._history) > newest:
            self._before.apply(self._history.popleft())
        self._stale = True
        history = list(self._history)
        self._moments.clear()
        soundings = self._recorded(history, self._before)  # before the runtime's part, which may fail
        self.runtime.reset(self._first)
        self._compute(history, soundings, self._first)
        self.high_water = self.position

    @property
    def _first(self) -> int:
        """Position of the oldest event of the history."""
        return self.position - len(self._history) + 1

    def hidden(self) -> np.ndarray:
        """The model's hidden state at the newest position, float32 [D]."""
        return self.runtime.hidden(self.position)

    def recent_hidden(self, count: int) -> np.ndarray:
        """The hidden states at the newest ``count`` positions, oldest first, float32 [count, D]; the slack bounds ``count``."""
        return np.stack([self.runtime.hidden(self.position - back) for back in reversed(range(count))])

    def snapshot(self) -> Snapshot:
        """The exact musical state. Raises ``StateError`` while a standby computes, and what the runtime raises."""
        if self._stale:
            self.rebuild()
        rings = tuple(self.runtime.rings())
        return Snapshot(self.position, self.high_water, tuple(self._moments), rings, tuple(self._history), self._before.copy())

    def restore(self, snapshot: Snapshot) -> None:
        """Continues from a snapshot of the same model. Raises what the runtime raises."""
        self.runtime.restore(snapshot.rings, snapshot.position - len(snapshot.history) + 1)
        self._moments = deque(snapshot.moments, self.config.slack + 1)
        self._history = deque(snapshot.history)
        self._before = snapshot.before.copy()
        self.position, self.high_water, self._stale = snapshot.position, snapshot.high_water, False
