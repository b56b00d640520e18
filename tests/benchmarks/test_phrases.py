"""Detection of phrase ends, measured on music with known phrases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from benchmarks.phrases import Detector, FixedSilence, chord_segments, measure, phrase_detector
from engine.events import NOTE_OFF, NOTE_ON, Timed

ONSETS = [0.25 * i + 6.0 * phrase for phrase in range(3) for i in range(8)]  # 4.25 s from a phrase's last to the next one's first
PIECE = chord_segments([action for at in ONSETS for action in (Timed(at, NOTE_ON + 60, 64), Timed(at + 0.2, NOTE_OFF + 60))])


@pytest.mark.parametrize("make", [partial(phrase_detector, 1.0), partial(FixedSilence, 1.0)])
def test_every_phrase_end_is_detected_without_misfires(make: Callable[[], Detector]) -> None:
    found = measure([PIECE], make)
    assert found["misfires_per_minute"] == 0
    assert found["in_time"] == 1


def test_a_short_silence_fires_within_a_phrase() -> None:
    assert measure([PIECE], partial(FixedSilence, 0.1))["misfires_per_minute"] > 0
