"""When has the human finished a phrase? A silence counts as an end when it is long for the way the music has been going."""

from __future__ import annotations

import statistics
from collections import deque

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, Timed
from perceivers_live.config import PhraseSettings

CHORD = 0.05  # onsets closer than this, in seconds, belong together
LONG_ENOUGH = 1.0  # seconds of a phrase that have a pace
RECENT = 12  # inter-onset intervals that the pace is judged by


class PhraseDetector:
    """Follows the human's actions; ``end`` says when the phrase is over if nothing more comes."""

    def __init__(self, settings: PhraseSettings) -> None:
        self._settings = settings
        self._gaps: deque[float] = deque(maxlen=RECENT)
        self._held: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """A new phrase; the pace of the last one and the keys that are still held are remembered."""
        self.start: float | None = None
        self._onset = self._chord = self._last = 0.0
        self._notes = 0

    @property
    def held(self) -> frozenset[int]:
        """The keys that the human holds."""
        return frozenset(self._held)

    @property
    def notes(self) -> int:
        return self._notes

    @property
    def rate(self) -> float | None:
        """Notes a second of the phrase, None before there is enough of it to tell."""
        if self.start is None or self._onset - self.start < LONG_ENOUGH:
            return None
        return (self._notes - 1) / (self._onset - self.start)

    def feed(self, timed: Timed) -> None:
        self._last = timed.time
        if timed.action < NOTE_OFF:
            if self.start is None:
                self.start = self._chord = timed.time
            elif timed.time - self._chord > CHORD:  # from the chord's first note: a fast run is no endless chord
                self._gaps.append(timed.time - self._chord)
                self._chord = timed.time
            self._onset = timed.time
            self._notes += 1
            self._held.add(timed.action - NOTE_ON)
        elif timed.action < NOTE_OFF + PITCHES:
            self._held.discard(timed.action - NOTE_OFF)

    def end(self) -> float | None:
        """The time at which the phrase counts as ended, None before there is a phrase.

        Counted from the last onset: the recent gap between onsets times ``gap_factor``, within the limits. While keys are held
        only the longest silence will do; a note-off or a pedal change just before puts the end off by the shortest.
        """
        least, most = self._settings.min_silence_ms / 1000, self._settings.max_silence_ms / 1000
        if self.start is None or self._notes < self._settings.min_notes:
            return None
        if self._held:
            return max(self._onset + most, self._last + least)
        pace = statistics.median(self._gaps) if self._gaps else most / self._settings.gap_factor
        silence = min(max(pace * self._settings.gap_factor, least), most)
        return max(self._onset + silence, self._last + least / 2)
