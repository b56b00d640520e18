"""Detection of phrase ends, measured on music with known phrases."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.phrases import FixedSilence, chord_segments, detector, measure
from engine.events import NOTE_OFF, NOTE_ON, Timed

PHRASES = [0.25 * i + 6.0 * phrase for phrase in range(3) for i in range(8)]  # onsets; 4.25 s from phrase to phrase


@pytest.mark.parametrize("make", [partial(detector, 1.0), partial(FixedSilence, 1.0)])
def test_every_phrase_end_is_detected_without_misfires(make: partial[FixedSilence]) -> None:
    timed = [action for at in PHRASES for action in (Timed(at, NOTE_ON + 60, 64), Timed(at + 0.2, NOTE_OFF + 60))]
    found = measure([chord_segments(timed)], make)
    assert found["misfires_per_minute"] == 0
    assert found["in_time"] == 1


def test_a_short_silence_fires_within_a_phrase() -> None:
    timed = [action for at in PHRASES for action in (Timed(at, NOTE_ON + 60, 64), Timed(at + 0.2, NOTE_OFF + 60))]
    assert measure([chord_segments(timed)], partial(FixedSilence, 0.1))["misfires_per_minute"] > 0
