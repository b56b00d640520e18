"""When a phrase counts as ended."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.config import PhraseSettings
from perceivers_live.phrases import PhraseDetector
from tests.perceivers_live.scripted import note, phrase

SETTINGS = PhraseSettings()
SHORTEST, LONGEST = SETTINGS.min_silence_ms / 1000, SETTINGS.max_silence_ms / 1000


def detector_after(timed: Iterable[Timed], settings: PhraseSettings = SETTINGS) -> PhraseDetector:
    detector = PhraseDetector(settings)
    for one in timed:
        detector.feed(one)
    return detector


def silence_after(gap: float, count: int = 8) -> float:
    """How long after the last onset of an even run the phrase ends."""
    end = detector_after(one for i in range(count) for one in note(i * gap, 0.04, 60 + i % 20)).end()
    assert end is not None
    return end - (count - 1) * gap


def test_nothing_played_is_no_phrase() -> None:
    assert PhraseDetector(SETTINGS).end() is None
    assert detector_after([Timed(0.0, SUSTAIN_DOWN), Timed(1.0, NOTE_OFF + 60)]).end() is None


def test_fast_playing_ends_sooner_than_slow_playing() -> None:
    silences = [silence_after(gap) for gap in (0.1, 0.25, 0.4, 0.6)]
    assert silences == sorted(silences)
    assert silences[0] < silences[2] < silences[3]


@given(st.floats(0.06, 3.0), st.integers(2, 30))
def test_the_silence_stays_within_its_limits(gap: float, count: int) -> None:
    assert SHORTEST - 1e-9 <= silence_after(gap, count) <= LONGEST + 1e-9


def test_a_very_fast_run_is_answered_like_a_fast_one() -> None:
    """A glissando or a trill: onsets as close as those of a spread chord."""
    assert silence_after(0.045, count=24) <= silence_after(0.25)


@given(st.floats(0.06, 2.3), st.integers(2, 40))
def test_an_even_passage_is_never_cut(gap: float, count: int) -> None:
    detector = PhraseDetector(SETTINGS)
    for i in range(count):
        for one in note(i * gap, gap * 0.9, 60 + i % 20):
            detector.feed(one)
        end = detector.end()
        assert end is not None
        assert end > (i + 1) * gap


@given(st.lists(st.floats(0.15, 0.35), min_size=3, max_size=40))
def test_nor_one_with_a_human_unevenness(gaps: list[float]) -> None:
    detector, now = PhraseDetector(SETTINGS), 0.0
    for i, gap in enumerate(gaps):
        for one in note(now, 0.1, 60 + i % 20):
            detector.feed(one)
        end = detector.end()
        assert end is not None
        now += gap
        assert end > now


def test_a_chord_is_one_onset() -> None:
    chords = [one for i in range(6) for pitch in (60, 64, 67) for one in note(i * 0.5 + pitch / 10_000, 0.3, pitch)]
    chords.sort(key=lambda one: one.time)
    end = detector_after(chords).end()
    assert end is not None
    assert end - 2.5 == pytest.approx(min(0.5 * SETTINGS.gap_factor, LONGEST), abs=0.05)


def test_held_keys_wait_for_the_longest_silence() -> None:
    run = phrase(gap=0.1)
    released, held = detector_after(run), detector_after(run[:-1])
    assert held.end() == pytest.approx(0.7 + LONGEST)
    end = released.end()
    assert end is not None
    assert end < 0.7 + LONGEST / 2


def test_a_late_release_puts_the_end_off() -> None:
    run = phrase(gap=0.1)
    end = detector_after([*run[:-1], run[-1]._replace(time=3.0)]).end()
    assert end is not None
    assert 3.0 < end < 3.0 + SHORTEST


def test_a_pedal_change_puts_the_end_off() -> None:
    detector = detector_after(phrase(gap=0.1))
    before = detector.end()
    detector.feed(Timed(1.15, SUSTAIN_UP))
    after = detector.end()
    assert before is not None
    assert after is not None
    assert before < after < 1.15 + SHORTEST


def test_too_few_notes_are_no_phrase() -> None:
    settings = PhraseSettings(min_notes=3)
    assert detector_after(phrase(count=2), settings).end() is None
    assert detector_after(phrase(count=3), settings).end() is not None


def test_a_reset_begins_a_new_phrase_and_remembers_the_pace() -> None:
    detector = detector_after(phrase(gap=0.1))
    assert (detector.start, detector.notes) == (0.0, 8)
    detector.reset()
    assert (detector.start, detector.notes, detector.end()) == (None, 0, None)
    for one in note(10.0, 0.1, 60):
        detector.feed(one)
    end = detector.end()
    assert detector.start == 10.0
    assert end is not None
    assert end < 10.0 + LONGEST / 2


def test_a_key_held_across_a_reset_is_still_held() -> None:
    """An interruption begins a new phrase; the left hand did not let go for it."""
    detector = detector_after([*phrase(gap=0.1), Timed(0.8, NOTE_ON + 40, 80)])
    detector.reset()
    for one in note(1.0, 0.1, 60):
        detector.feed(one)
    assert detector.end() == pytest.approx(1.0 + LONGEST)
    detector.feed(Timed(1.2, NOTE_OFF + 40))
    end = detector.end()
    assert end is not None
    assert end < 1.0 + LONGEST
