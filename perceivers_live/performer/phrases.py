"""Detects the end of the human's phrase: a silence that is long for the pace of the music.

The silence that ends a phrase is ``patience * (BASE_SILENCE + PACE_FACTOR * pace)``. The pace is the root mean square of the
recent gaps between onsets; a mean or a median hardly depends on the few long gaps that could be mistaken for an end. Held keys
count, through ``HELD_WEIGHT``. Pedal, loudness and the texture of the last notes improved detection too little to be used. The
constants were fitted to MAESTRO's training and validation pieces; ``benchmarks/phrases.py`` measures the result on its test
pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from engine.adjustment import NO_CALL, CallStatistics
from engine.events import NOTE_OFF, NOTE_ON, PITCHES, Timed
from perceivers_live.controls.settings import PhraseSettings

CHORD_SPAN = 0.05  # seconds; onsets closer than this belong to one chord
MIN_RATE_TIME = 1.0  # seconds of a phrase before it has a note rate
MAX_RATE_GAP = 2.5  # seconds; the excess of longer gaps between onsets does not count in the note rate
BASE_SILENCE = 0.6  # seconds of silence that end a phrase at any pace,
PACE_FACTOR = 1.5  # plus the pace times this
HELD_WEIGHT = 0.75  # seconds of silence that a second with keys held counts as
MIN_END_DELAY = 0.1  # seconds from the last action to the end; releases of several keys take this long
TIME_CONSTANT = 5.0  # seconds of playing; older gaps count less, exponentially
INITIAL_GAP = 0.75  # seconds; the gap assumed before the first note


class PhraseDetector:
    """Receives the human's actions; ``reply_due`` predicts when the phrase ends without further actions."""

    def __init__(self, settings: PhraseSettings, patience: Callable[[], float] = lambda: 1.0) -> None:
        self._settings, self._patience = settings, patience
        self._held: set[int] = set()
        self._mode: str | None = ""  # as last given to ``set_mode``
        self.forget()

    def forget(self) -> None:
        """Starts a new phrase, and drops the pace. The held keys are kept."""
        self._gap_weight, self._gap_squares = 1.0, INITIAL_GAP**2  # weighted number of gaps, and sum of squares
        self._chord_time = self._onset_time = -math.inf  # of the latest chord and the latest onset
        self._release_time = self._last_time = -math.inf  # when all keys came up, and of the latest action
        self.reset()

    def reset(self) -> None:
        """Starts a new phrase. The pace and the held keys are kept."""
        self._start: float | None = None
        self._dismissed = False
        self._notes = self._velocities = 0  # number of notes, and sum of their velocities
        self._chords = 0
        self._excluded = 0.0  # seconds that do not count in the note rate

    def set_mode(self, now: float, mode: str | None) -> None:
        """Sets the mode in which the machine plays from ``now`` on; None: it may not play. There is no reply to what was played
        while it could not play, nor to a phrase that was over before the mode changed. Length and rate of the phrase are kept
        until the next note, for a takeover.
        """
        if mode not in (None, self._mode):
            end = self.reply_due()
            self._dismissed |= self._mode is None or (end is not None and end < now)
        self._mode = mode

    @property
    def start(self) -> float | None:
        """Time of the phrase's first note; None before there is a phrase."""
        return None if self._dismissed else self._start

    @property
    def held(self) -> frozenset[int]:
        """The keys that the human holds."""
        return frozenset(self._held)

    @property
    def notes(self) -> int:
        """Number of notes of the phrase."""
        return self._notes

    @property
    def rate(self) -> float | None:
        """Notes per second of the phrase, without long pauses; None while the phrase is shorter than ``MIN_RATE_TIME``."""
        played = self._onset_time - self._start - self._excluded if self._start is not None else 0.0
        return (self._notes - 1) / played if played >= MIN_RATE_TIME else None

    @property
    def call(self) -> CallStatistics:
        """What the phrase was like, for the reply."""
        rate = self.rate
        return CallStatistics(rate, self._velocities / self._notes, self._notes / self._chords) if rate is not None else NO_CALL

    @property
    def needed_silence(self) -> float:
        """Seconds without an onset that end a phrase at this pace, for a ``patience`` of 1."""
        return BASE_SILENCE + PACE_FACTOR * math.sqrt(self._gap_squares / self._gap_weight)

    def length(self, now: float) -> float | None:
        """Seconds from the first note to the last action, or to ``now`` while keys are held; None before the first note."""
        return None if self._start is None else (now if self._held else self._last_time) - self._start

    def feed(self, timed: Timed) -> None:
        """Adds an action to the phrase."""
        self._last_time = max(self._last_time, timed.time)
        if timed.action < NOTE_OFF:
            if self._dismissed:
                self.reset()
            if self._start is None:
                self._start = timed.time
            elif timed.time - self._onset_time > MAX_RATE_GAP:
                self._excluded += timed.time - self._onset_time - MAX_RATE_GAP
            if timed.time - self._chord_time > CHORD_SPAN:  # since the chord's first note, so that a fast run is not one chord
                self._update_pace(timed.time - self._chord_time)
                self._chord_time = timed.time
                self._chords += 1
            self._onset_time = timed.time
            self._notes += 1
            self._velocities += timed.velocity
            self._held.add(timed.action - NOTE_ON)
        elif timed.action < NOTE_OFF + PITCHES and self._held:
            self._held.discard(timed.action - NOTE_OFF)
            if not self._held:
                self._release_time = timed.time

    def reply_due(self) -> float | None:
        """The time at which the phrase ends without further actions, and gets a reply; None while it has too few notes."""
        return self.over_at() if self._notes >= self._settings.min_notes else None

    def over_at(self) -> float | None:
        """The time at which the phrase ends without further actions, however few notes it has; later notes begin a new phrase.
        None before the first note. Later than the last action.

        The silence is measured from the last onset. Time with keys held counts ``HELD_WEIGHT``.
        """
        if self.start is None:
            return None
        shortest, longest = self._settings.min_silence_ms / 1000, self._settings.max_silence_ms / 1000
        silence = min(max(self._patience() * self.needed_silence, shortest), longest)
        if self._held:
            return max(self._onset_time + silence / HELD_WEIGHT, self._last_time + MIN_END_DELAY)
        return max(
            self._release_time + silence - HELD_WEIGHT * (self._release_time - self._onset_time), self._last_time + MIN_END_DELAY
        )

    def _update_pace(self, gap: float) -> None:
        """Includes a gap in the pace, unless it is longer than any silence within a phrase.

        This includes short gaps between two phrases: the human who continues so soon had not finished, and gets more time next.
        """
        if gap * 1000 <= self._settings.max_silence_ms:
            decay = math.exp(-gap / TIME_CONSTANT)
            self._gap_weight, self._gap_squares = decay * self._gap_weight + 1, decay * self._gap_squares + gap * gap
