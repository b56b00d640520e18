"""When the machine's next turn begins: at once, or on the beat of a clock."""

from __future__ import annotations

from collections.abc import Callable

from perceivers_live.clock.midi_clock import Beats
from perceivers_live.clock.ticks import PPQ
from perceivers_live.controls.registry import ControlValues
from perceivers_live.performer.decision_times import KEPT_DECISIONS, DecisionTimes, lead
from perceivers_live.performer.phrases import PhraseDetector
from perceivers_live.performer.turns import EARLY, MAX_REPLY, MIN_REPLY, OVERTIME, Turn

BEAT_WAIT = 0.01  # seconds after which a beat that was not known may be known
SEEDED_DELAY = 0.1  # seconds from a phrase's end to the reply if a seed is set: longer than decisions take
HEAD_START = 0.3  # seconds before its beat at which a turn begins to decide
TEMPO_CHECK = 0.05  # seconds after which the time of that beat is predicted again
NO_CALL_REPLY = 8.0  # seconds of a turn without a call, after a takeover
DUET_NOTES = 3  # notes of the human before a duet begins
DUET_TAIL = 4.0  # seconds after the human's phrase within which a duet ends


class TurnStart:
    """Decides when the next turn begins, and what it is like. Used while the machine does not play.

    ``on_countdown`` receives each change of the time at which it begins without further input; None: it does not.
    """

    def __init__(
        self,
        phrases: PhraseDetector,
        decision_times: DecisionTimes,
        beats: Beats | None,
        on_countdown: Callable[[float | None], None],
    ) -> None:
        self._phrases, self._decision_times, self._beats = phrases, decision_times, beats
        self._on_countdown = on_countdown
        self._countdown: float | None = None  # as last reported
        self.awaits_beat = False  # a turn is due and waits for its beat; until then, the human continues the phrase
        self._requested = False  # by a takeover, which may wait for its beat
        self._yielded = False  # a solo waits for a takeover, a duet for that or a new phrase
        self._first_note: float | None = None  # its exact time in the turn that is due; None: as soon as possible

    def allow(self) -> None:
        """Turns begin again as if none had been yielded."""
        self._yielded = False

    def request(self) -> None:
        """The next turn is due immediately."""
        self._requested = True

    def cancel(self) -> None:
        """No turn waits for its beat."""
        self._requested = self.awaits_beat = False

    def postpone(self, turn: Turn) -> None:
        """The human plays before the first note of ``turn`` has sounded: it is given up, and the phrase goes on. A takeover stays
        requested.
        """
        self._requested, self.awaits_beat = turn.requested, True

    def yield_turn(self) -> None:
        """No turn begins until it is requested or, in a duet, until a new phrase."""
        self._yielded = True
        self.cancel()

    def begin_phrase(self, controls: ControlValues) -> None:
        """The human begins a new phrase."""
        self._yielded = self._yielded and controls["mode"] == "solo"

    def change_mode(self) -> None:
        """In the new mode, turns begin as if none had been yielded."""
        self._yielded = self.awaits_beat = False

    def next_check(self, now: float, controls: ControlValues, *, may_play: bool) -> float | None:
        """When to call again without further input. Up to ``now``: the turn begins, see ``new_turn``; None: none does."""
        due = self._due(now, controls) if may_play else None
        if not may_play:
            self.cancel()
        if due is not None and due <= now:
            return self._on_beat(now, controls)
        self.awaits_beat = False
        self._report(due)
        return due

    def new_turn(self, now: float, controls: ControlValues) -> Turn:
        """The turn that begins now, after ``next_check``."""
        phrases, respond, duet = self._phrases, controls["mode"] == "respond", controls["mode"] == "duet"
        first, end = self._first_note, phrases.over_at()
        start = now if first is None else max(first, now)  # it may be past if the model was lost meanwhile
        is_over = end is None or (self._requested and end <= start)
        if duet and not is_over:
            length = DUET_TAIL / (OVERTIME - EARLY)
        else:
            call = None if duet else phrases.length(now)
            wanted = (NO_CALL_REPLY if call is None else call) * float(controls["response_length"])
            length = min(max(wanted, MIN_REPLY), MAX_REPLY)
        turn = Turn(start, length, phrases.call, first, phrases.needed_silence if respond else None, requested=self._requested)
        self._requested = False
        return turn

    def _due(self, now: float, controls: ControlValues) -> float | None:
        """When a turn begins if it does not wait for a beat; None: it does not begin without further input."""
        phrases = self._phrases
        if self._requested:
            return now
        if controls["mode"] == "respond":
            return phrases.reply_due()
        if self._yielded:
            return None
        if controls["mode"] == "duet" and not self.awaits_beat:
            end = phrases.reply_due()  # only a phrase that is not over starts a duet
            return now if phrases.notes >= DUET_NOTES and end is not None and now < end else None
        return now

    def _on_beat(self, now: float, controls: ControlValues) -> float:
        """When a turn that is due begins. It waits until shortly before its beat: up to then, the tempo, the controls and the
        human may change what it will be.
        """
        self._first_note = first = self._first_note_time(now, controls)
        if self._beat_unknown(now, controls):
            begin = now + BEAT_WAIT
        elif first is None:
            begin = now
        else:
            begin = first - lead(controls) - max(HEAD_START, KEPT_DECISIONS * self._decision_times.expected)
        self.awaits_beat = begin > now
        if self.awaits_beat:
            self._report(first)
        return min(begin, now + TEMPO_CHECK) if self.awaits_beat else now

    def _first_note_time(self, now: float, controls: ControlValues) -> float | None:
        """The time of the first note: the next beat or bar, if ``start_on`` asks for one. Otherwise, if a seed is set, a time
        that depends on the phrase alone, so that the reply does not depend on how fast the machine was. None: as soon as
        possible.
        """
        ready = self._decision_times.earliest(now, controls)
        if self._beats is not None and controls["start_on"] == "beat":
            return self._beats.next_beat(ready)
        if self._beats is not None and controls["start_on"] == "bar":
            return self._beats.next_bar(ready, int(controls["beats_per_bar"]))
        end = self._phrases.reply_due()
        if controls["mode"] == "respond" and int(controls["seed"]) >= 0 and end is not None and end <= now:
            return end + SEEDED_DELAY + lead(controls)
        return None

    def _beat_unknown(self, now: float, controls: ControlValues) -> bool:
        """Whether ``start_on`` asks for a beat of a running clock that is not known yet: after a continue, or before the tempo is
        known. Right on the beat, as after a start, the machine can begin.
        """
        beats = self._beats
        if beats is None or controls["start_on"] == "now" or not beats.running or beats.next_beat(now) is not None:
            return False
        unit = 1 if controls["start_on"] == "beat" else int(controls["beats_per_bar"])
        return beats.position(now) % unit >= 1 / PPQ

    def _report(self, countdown: float | None) -> None:
        if countdown != self._countdown:
            self._countdown = countdown
            self._on_countdown(countdown)
