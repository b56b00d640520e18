"""A turn of the machine: from its first note to the release of its last."""

from __future__ import annotations

from collections import Counter, deque
from itertools import pairwise, takewhile
from typing import NamedTuple

from engine.adjustment import KEPT_STRIKES, NO_CALL, CallStatistics
from engine.events import REST, STEPS_PER_SECOND, Event

MIN_REPLY, MAX_REPLY = 2.0, 60.0  # seconds
EARLY, LATE, LAST, OVERDUE = -0.08, 0.02, 0.06, 0.10  # fractions of the turn's length around its due time: see ``may_end``
OVERTIME = 0.15  # fraction of the length after the due time; by then everything is released
PAUSE_STEPS = 25  # so long without a note is a pause,
PAUSE_GAPS = 1.5  # and so is one longer than this many typical gaps between notes
HARMONY_STEPS = 200  # the notes this long before the last chord are its harmony
HARMONY_TONES = 4  # pitch classes of a harmony
HOLD_GAPS = 2.0  # typical gaps that the last chord is held
MIN_HOLD, MAX_HOLD = 25, 100  # steps
GAP_NOTES = 24  # latest notes that determine the typical gap
CHORD_STEPS = 4  # events with at most this wait belong to one chord
MAX_EVENTS = 4 * KEPT_STRIKES  # events of the machine that a turn keeps: the newest ``KEPT_STRIKES`` note-ons are among them


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
    place to end. ``call``: what it replies to. ``first_note_at``: exact time of the first note; None: as soon as
    possible. ``max_silence``: seconds without a note-on after which the next event must be one; None: no limit. ``requested``: by
    a takeover, so that its first note should not wait for the others of its chord.
    """

    def __init__(
        self,
        start: float,
        length: float,
        call: CallStatistics = NO_CALL,
        first_note_at: float | None = None,
        max_silence: float | None = None,
        requested: bool = False,
    ) -> None:
        self.start, self.length, self.call, self.first_note_at = start, length, call, first_note_at
        self.max_silence, self.requested = max_silence, requested
        self.closing: int | None = None  # the step at which the last chord is released; None: the turn goes on
        self._own: deque[MachineEvent] = deque(maxlen=MAX_EVENTS)

    def add(self, event: MachineEvent) -> None:
        """Appends the machine's next event."""
        self._own.append(event)

    def position_of(self, serial: int) -> int:
        """Position of the newest event with at most this serial number; 0 if there is none."""
        return next((one.position for one in reversed(self._own) if one.serial <= serial), 0)

    def rewind(self, position: int) -> None:
        """Drops the events after ``position``, which have not sounded. If there are any, the end is decided again."""
        while self._own and self._own[-1].position > position:
            self._own.pop()
            self.closing = None

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
        """Whether the machine must play a note after ``last``, which is at ``step``: if it holds no key (``own``), and the turn
        begins or the last event is a rest; or if it has played no note for ``max_silence``, which would sound like the end of
        the turn.
        """
        if self.closing is not None:
            return False
        strikes = self.strikes
        if self.max_silence is not None and strikes and step - strikes[-1].step > self.max_silence * STEPS_PER_SECOND:
            return True
        return not own and (last.action == REST or not strikes)

    def may_end(self, event: Event, step: int, late: float) -> bool:
        """Whether the turn can end before ``event``, which would be at ``step``. ``late``: time after it is due, as a fraction of
        the turn's length.

        The later it is, the less is required: a pause after a chord of the current harmony, or the release of such a chord (from
        ``EARLY`` on); a pause (from the due time on) or such a chord (from ``LATE`` on); any gap between chords (from ``LAST``
        on), any gap at all (from ``OVERDUE`` on). A turn without notes, for instance because the register has no playable key,
        ends from ``OVERDUE`` on unless ``event`` is its first note.
        """
        if late <= EARLY or not self.strikes:
            return late > OVERDUE and not event.is_note_on
        since, typical = step - self.strikes[-1].step, self._typical_gap()
        if event.is_note_off:
            return event.pitch in self.last_chord() and since > max(typical, CHORD_STEPS) and self._on_harmony()
        if not (event.is_note_on or event.action == REST) or event.wait == 0:
            return False
        if since <= CHORD_STEPS or late > LAST:
            return late > (LAST if since > CHORD_STEPS else OVERDUE)
        pause, at_rest = since >= PAUSE_STEPS or since > PAUSE_GAPS * typical, self._on_harmony()
        return (pause and (at_rest or late > 0)) or (at_rest and late > LATE)

    def last_chord(self) -> frozenset[int]:
        """Pitches of the latest notes that were struck together."""
        strikes = self.strikes
        return frozenset(one.event.pitch for one in strikes if one.step >= strikes[-1].step - CHORD_STEPS)

    def close(self, step: int, limit: int) -> None:
        """Ends the turn after the event at ``step``, without further notes. The last chord is held, at most up to ``limit``."""
        last = self.strikes[-1].step if self.strikes else step
        hold = min(max(round(HOLD_GAPS * self._typical_gap()), MIN_HOLD), MAX_HOLD)
        self.closing = max(min(last + hold, limit), last + MIN_HOLD // 2)

    def _typical_gap(self) -> float:
        """Steps between chords: the median of the latest ones."""
        steps = [one.step for one in self.strikes[-GAP_NOTES:]]
        gaps = sorted(late - early for early, late in pairwise(steps) if late - early > CHORD_STEPS)
        return gaps[len(gaps) // 2] if gaps else PAUSE_STEPS

    def _on_harmony(self) -> bool:
        """Whether the outer notes of the last chord are among the pitch classes struck most often just before it."""
        strikes = self.strikes
        if not strikes:
            return False
        begin, last = strikes[-1].step - CHORD_STEPS, self.last_chord()
        before = Counter(one.event.pitch % 12 for one in strikes if begin - HARMONY_STEPS <= one.step < begin)
        tones = {tone for tone, _ in before.most_common(HARMONY_TONES)}
        return not tones or {min(last) % 12, max(last) % 12} <= tones
