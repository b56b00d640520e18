"""A turn of the machine: from its first note to the release of its last."""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import NamedTuple

from engine.events import REST, STEPS_PER_SECOND, Event

PAUSE_STEPS = 25  # after its due time a turn ends at a wait of at least this length
OVERTIME = 0.5  # fraction of the turn's length; this long after its due time it ends at any wait between chords
CHORD_STEPS = 4  # events with at most this wait belong to one chord
MAX_EVENTS = 512  # events of the machine that a turn keeps


class MachineEvent(NamedTuple):
    """An event of the machine. Its serial number is constant. Its position and step in the history change when an earlier action
    of the human is inserted.
    """

    serial: int
    position: int
    step: int
    event: Event


class Turn:
    """The machine's events in a turn, and the conditions for its first note and its end.

    ``start``: monotonic seconds. ``length``: intended duration in seconds; the longer it is, the longer the turn waits for a good
    place to end. ``rate``: target notes per second; None: no target. ``start_at``: exact time of the first note; None: as soon as
    possible. ``max_silence``: seconds without a note-on after which the next event must be one; None: no limit.
    """

    def __init__(
        self,
        start: float,
        length: float,
        rate: float | None = None,
        start_at: float | None = None,
        max_silence: float | None = None,
    ) -> None:
        self.start, self.length, self.rate, self.start_at = start, length, rate, start_at
        self.max_silence = max_silence
        self.closing: int | None = None  # the step at which the turn began to release its last notes; None: not yet
        self._own: deque[MachineEvent] = deque(maxlen=MAX_EVENTS)

    def add(self, one: MachineEvent) -> None:
        """Appends the machine's next event."""
        self._own.append(one)

    def position_of(self, serial: int) -> int:
        """Position of the newest event with at most this serial number; 0 if there is none."""
        return next((one.position for one in reversed(self._own) if one.serial <= serial), 0)

    def rewind(self, position: int) -> None:
        """Drops the events after ``position``, which have not sounded."""
        while self._own and self._own[-1].position > position:
            self._own.pop()

    def events_after(self, position: int) -> list[MachineEvent]:
        """The events after ``position``, oldest first."""
        return [one for one in self._own if one.position > position]

    @property
    def strikes(self) -> list[MachineEvent]:
        """The note-ons among the events kept, oldest first."""
        return [one for one in self._own if one.event.is_note_on]

    @property
    def simultaneous_events(self) -> int:
        """How many of the newest events have a wait of 0."""
        return sum(1 for _ in takewhile(lambda one: one.event.wait == 0, reversed(self._own)))

    def must_play_note(self, own: frozenset[int], last: Event, step: int) -> bool:
        """Whether the event after ``last``, which is at ``step``, must be a note-on: if the machine holds no key (``own``), and
        the turn begins or the last event is a rest; or if it has played no note for ``max_silence``, which would sound like the
        end of the turn.
        """
        if self.closing is not None:
            return False
        strikes = self.strikes
        if self.max_silence is not None and strikes and step - strikes[-1].step > self.max_silence * STEPS_PER_SECOND:
            return True
        return not own and (last.action == REST or not strikes)

    def may_end(self, event: Event, at: float, due: float) -> bool:
        """Whether the turn can end before ``event``, which would sound at time ``at``: after ``due``, and not within a chord."""
        if not (event.is_note_on or event.action == REST) or at <= due:
            return False
        late = (at - due) / self.length
        return event.wait >= PAUSE_STEPS or (late > OVERTIME and event.wait > CHORD_STEPS) or (late > 1 and event.wait > 0)
