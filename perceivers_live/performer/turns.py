"""A turn: one stretch of the machine's playing, from its first note until it lets go of its last."""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import NamedTuple

from engine.events import REST, STEPS_PER_SECOND, Event

BREATH = 25  # steps: a wait this long, once the end is due, is a place to end
OVERTIME = 0.5  # of the turn's length: this late any gap between notes is a place to end; a whole length late, anything is
GAP = 4  # steps: what lies closer together is one chord
REMEMBERED = 512  # of the machine's own events


class MachineEvent(NamedTuple):
    """An event of the machine's. It keeps its serial number; its position and step in the history change when the human did
    something before it.
    """

    serial: int
    position: int
    step: int
    event: Event


class Turn:
    """``begun`` in seconds; ``length``: how many it should last, and the measure of how patiently a good end is awaited;
    ``rate``: notes a second to keep to, None = as it comes; ``start_at``: the moment of the first note, None = soon;
    ``max_silence``: seconds without a new note after which it owes one, None = never.
    """

    def __init__(
        self,
        begun: float,
        length: float,
        rate: float | None = None,
        start_at: float | None = None,
        max_silence: float | None = None,
    ) -> None:
        self.begun, self.length, self.rate, self.start_at = begun, length, rate, start_at
        self.max_silence = max_silence
        self.closing: int | None = None  # the step at which the last notes began to be released
        self._own: deque[MachineEvent] = deque(maxlen=REMEMBERED)

    def add(self, one: MachineEvent) -> None:
        """The machine's next event."""
        self._own.append(one)

    def reached(self, serial: int) -> int:
        """The position of the newest event up to a serial number, 0 if there is none."""
        return next((one.position for one in reversed(self._own) if one.serial <= serial), 0)

    def rewind(self, position: int) -> None:
        """What came after ``position`` was never played."""
        while self._own and self._own[-1].position > position:
            self._own.pop()

    def since(self, position: int) -> list[MachineEvent]:
        """What came after ``position``, oldest first."""
        return [one for one in self._own if one.position > position]

    @property
    def strikes(self) -> list[MachineEvent]:
        """The machine's own note-ons, oldest first, as far as they are remembered."""
        return [one for one in self._own if one.event.is_note_on]

    @property
    def crowd(self) -> int:
        """How many of the newest events share one moment."""
        return sum(1 for _ in takewhile(lambda one: one.event.wait == 0, reversed(self._own)))

    def opening(self, own: frozenset[int], last: Event, step: int) -> bool:
        """Whether the machine owes a note after ``last``, which was at ``step``: nothing of its own sounds, and the turn begins
        or has just paused; or it has struck nothing for so long that it would be heard as its end.
        """
        if self.closing is not None:
            return False
        strikes = self.strikes
        if self.max_silence is not None and strikes and step - strikes[-1].step > self.max_silence * STEPS_PER_SECOND:
            return True
        return not own and (last.action == REST or not strikes)

    def may_end(self, event: Event, at: float, due: float) -> bool:
        """Whether the turn can end before ``event``, which would sound at time ``at``: past ``due``, and never within a chord."""
        if not (event.is_note_on or event.action == REST) or at <= due:
            return False
        late = (at - due) / self.length
        return event.wait >= BREATH or (late > OVERTIME and event.wait > GAP) or (late > 1 and event.wait > 0)
