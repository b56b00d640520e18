"""The rolling musical state: what was absorbed, where the model stands, and how to go back.

    absorb(events)      the rings advance
    decide(...)         the next event, from the newest position
    rewind(position)    forget what was never played: moves a pointer
    snapshot(), restore()
    rebuild()           from the history, should the runtime have lost its rings

One owner, one thread: the performer. Nothing here knows of ports, OSC or clocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.config import CheckpointError
from engine.events import NO_VELOCITY, NOTE_OFF, START_EVENT, Event
from engine.runtimes import CHUNKS, Runtime, SamplingBias
from engine.sounding import Sounding

RECENT = 512  # events that are computed again after a failure: within half a second, on two cores


class EngineError(RuntimeError):
    """The engine was asked for what it cannot do, or its runtime failed."""


class Moment(NamedTuple):
    """A position: its event and what sounds after it."""

    event: Event
    sounding: Sounding


class Snapshot(NamedTuple):
    """An exact musical state, free of the runtime it came from."""

    position: int
    high_water: int
    moments: tuple[Moment, ...]  # the newest ones, as many as a rewind can go back to
    rings: tuple[np.ndarray, ...]
    history: tuple[Event, ...]  # the newest events, as many as the state depends on
    before: Sounding  # what sounded before them


class Engine:
    """A runtime with a memory. ``position`` is that of the newest event; the start event is position 0."""

    def __init__(self, runtime: Runtime) -> None:
        """Raises ``CheckpointError`` for a model whose memory cannot roll."""
        if runtime.config.mask != "band":
            raise CheckpointError("a model with a block mask was trained to compare with; it cannot stream")
        self.runtime = runtime
        self.config = config = runtime.config
        self._latent = config.layers * (config.window - 1) + config.slack + 1  # positions whose latents the newest ones feel
        self._moments: deque[Moment] = deque(maxlen=config.slack + 1)
        self._history: deque[Event] = deque()  # as much of it as the state depends on; everything follows from it
        self._limit = config.reach + self._latent + config.slack  # so that a rewound one is still enough to rebuild from
        self._before = Sounding()  # what sounded before that
        self._stale = False  # whether the runtime has yet to be brought up to date
        self.position = self.high_water = 0
        self.forget()

    def forget(self) -> None:
        """Back to an empty history: the start event alone."""
        self._history.clear()
        self._history.append(START_EVENT)
        self._before = Sounding()
        self.position = 0
        self.rebuild()

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
        """Appends events to the history and computes the state there. If the runtime fails, whatever it raises is passed on; the
        events are in the history, and the next call computes from that.

        Of more events than the newest positions depend on, the first ones only reach the cross-attention's rings.
        """
        first = self.position + 1
        soundings = self._recorded(events, self._moments[-1].sounding)
        self._history.extend(events)
        self.position += len(events)
        while len(self._history) > self._limit:
            self._before.apply(self._history.popleft())
        if self._stale:
            self.rebuild(RECENT)
        else:
            self._compute(events, soundings, first)
            self.high_water = max(self.high_water, self.position)

    def _recorded(self, events: Sequence[Event], before: Sounding) -> list[Sounding]:
        """What sounds after each of the events; they become the newest moments."""
        soundings, now = [], before
        for event in events:
            now = now.copy()
            now.apply(event)
            soundings.append(now)
        self._moments.extend(map(Moment, events, soundings))
        return soundings

    def _compute(self, events: Sequence[Event], soundings: Sequence[Sounding], first: int) -> None:
        self._stale, done, total = True, 0, len(events)
        while done < total:
            size = next(size for size in reversed(CHUNKS) if size <= total - done)
            chunk = soundings[done : done + size]
            distant = size == CHUNKS[-1] and total - done - size >= self._latent
            (self.runtime.prefill_cross if distant else self.runtime.step)(
                np.array(events[done : done + size], np.int64),
                np.stack([one.ages() for one in chunk]),
                np.array([one.step for one in chunk], np.int64),
                first + done,
            )
            done += size
        self._stale = False

    def decide(self, bias: SamplingBias) -> Event:
        """The next event, not yet absorbed. Raises ``EngineError`` if the model's state is not finite."""
        if self._stale:
            self.rebuild(RECENT)
        try:
            drawn = self.runtime.decide(self.position, bias)
        except Exception:
            self._stale = True  # a runtime may fail long after it was given what it fails at
            raise
        if drawn is None:
            raise EngineError("the model's state is not finite")
        wait, action, velocity = drawn
        return Event(wait, action, velocity if action < NOTE_OFF else NO_VELOCITY)

    def rewind(self, position: int) -> None:
        """Forgets every event after ``position``. Within the slack this moves pointers; further back it recomputes from the
        history. Raises ``EngineError`` for a position that never was, or that too little history is left for.
        """
        back = self.position - position
        pointers_do = back < len(self._moments) and self.high_water - position <= self.config.slack
        left = len(self._history) - back
        enough = left > position or left >= self._limit - 2 * self.config.slack
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
        """The state may be wrong, or lost: the next call computes it again from the newest events."""
        self._stale = True

    def rebuild(self, newest: int | None = None) -> None:
        """Computes the state again from the history, or from its ``newest`` events, which is sooner done: the state is then that
        of a session which began there, and what came before is forgotten.
        """
        while newest is not None and len(self._history) > newest:
            self._before.apply(self._history.popleft())
        self._stale = True
        history = list(self._history)
        self._moments.clear()
        soundings = self._recorded(history, self._before)  # known whatever becomes of the runtime
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
        if self._stale:
            self.rebuild()
        rings = tuple(self.runtime.rings())
        return Snapshot(self.position, self.high_water, tuple(self._moments), rings, tuple(self._history), self._before.copy())

    def restore(self, snapshot: Snapshot) -> None:
        self.runtime.restore(snapshot.rings, snapshot.position - len(snapshot.history) + 1)
        self._moments = deque(snapshot.moments, self.config.slack + 1)
        self._history = deque(snapshot.history)
        self._before = snapshot.before.copy()
        self.position, self.high_water, self._stale = snapshot.position, snapshot.high_water, False
