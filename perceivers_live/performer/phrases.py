"""When has the human finished a phrase? A silence counts as an end when it is long for the way the music has been going.

The silence that ends a phrase is ``patience * (BASE + FACTOR * pace)``. The pace is the root mean square of the recent gaps
between onsets: the few long gaps that an end could be taken for hardly show in a mean or a median. Of the keys only whether any
are held counts; pedal, loudness and the texture of the last notes told too little to be worth their constants. The constants
were fitted to MAESTRO's training and validation pieces; ``benchmarks/phrases.py`` measures what comes of them on its test pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, Timed
from perceivers_live.controls.settings import PhraseSettings

CHORD = 0.05  # onsets closer than this, in seconds, belong together
LONG_ENOUGH = 1.0  # seconds of a phrase that have a rate
PAUSE = 2.5  # seconds: of a longer gap between two onsets the rest is no part of the rate
BASE = 0.6  # seconds of silence that end a phrase, however fast the music,
FACTOR = 1.5  # and this many times the pace on top
HELD = 0.75  # what a second with keys held counts, beside a second without
SETTLE = 0.1  # seconds: hands that let go take so long to do so
MEMORY = 5.0  # seconds of playing: gaps count less and less
FIRST_GAP = 0.75  # seconds: the gap taken to have gone before the first note


class PhraseDetector:
    """Follows the human's actions; ``end`` says when the phrase is over if nothing more comes."""

    def __init__(self, settings: PhraseSettings, patience: Callable[[], float] = lambda: 1.0) -> None:
        self._settings, self._patience = settings, patience
        self._held: set[int] = set()
        self._gaps, self._squares = 1.0, FIRST_GAP**2  # the gaps' number and the sum of their squares, both fading
        self._chord = self._onset = self._up = self._last = -math.inf  # the last chord, onset, time the keys came up, action
        self.reset()

    def reset(self) -> None:
        """A new phrase; the pace of the last one and the keys that are still held are remembered."""
        self.start: float | None = None
        self._notes = 0
        self._paused = 0.0  # seconds of it that do not count in its rate

    @property
    def held(self) -> frozenset[int]:
        """The keys that the human holds."""
        return frozenset(self._held)

    @property
    def notes(self) -> int:
        return self._notes

    @property
    def rate(self) -> float | None:
        """Notes a second of the phrase, long pauses left out; None before there is enough of it to tell."""
        played = self._onset - self.start - self._paused if self.start is not None else 0.0
        return (self._notes - 1) / played if played >= LONG_ENOUGH else None

    @property
    def ending_silence(self) -> float:
        """Seconds without an onset that, for the pace of the playing, are long enough for the end of a phrase."""
        return BASE + FACTOR * math.sqrt(self._squares / self._gaps)

    def length(self, now: float) -> float | None:
        """Seconds from the first note to the last action, or to ``now`` while keys are held; None before there is a phrase."""
        return None if self.start is None else (now if self._held else self._last) - self.start

    def feed(self, timed: Timed) -> None:
        self._last = max(self._last, timed.time)
        if timed.action < NOTE_OFF:
            if self.start is None:
                self.start = timed.time
            elif timed.time - self._onset > PAUSE:
                self._paused += timed.time - self._onset - PAUSE
            if timed.time - self._chord > CHORD:  # from the chord's first note: a fast run is no endless chord
                self._learn(timed.time - self._chord)
                self._chord = timed.time
            self._onset = timed.time
            self._notes += 1
            self._held.add(timed.action - NOTE_ON)
        elif timed.action < NOTE_OFF + PITCHES and self._held:
            self._held.discard(timed.action - NOTE_OFF)
            if not self._held:
                self._up = timed.time

    def end(self) -> float | None:
        """The time at which the phrase counts as ended, None before there is a phrase. It is later than the last action.

        The silence is counted from the last onset, at less than a second a second while keys are held.
        """
        if self.start is None or self._notes < self._settings.min_notes:
            return None
        least, most = self._settings.min_silence_ms / 1000, self._settings.max_silence_ms / 1000
        silence = min(max(self._patience() * self.ending_silence, least), most)
        if self._held:
            return max(self._onset + silence / HELD, self._last + SETTLE)
        return max(self._up + silence - HELD * (self._up - self._onset), self._last + SETTLE)

    def _learn(self, gap: float) -> None:
        """Takes a gap into the pace, unless it is too long to be one within a phrase.

        The gap between two phrases is taken as well if it is that short: whoever comes back so soon had only gone on, and is
        next time given longer.
        """
        if gap * 1000 <= self._settings.max_silence_ms:
            kept = math.exp(-gap / MEMORY)
            self._gaps, self._squares = kept * self._gaps + 1, kept * self._squares + gap * gap
