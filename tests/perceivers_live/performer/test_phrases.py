"""When a phrase counts as ended."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adjustment import NO_CALL, CallStatistics
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.phrases import MAX_RATE_GAP, PhraseDetector
from tests.perceivers_live.virtual_session import note, phrase

SETTINGS = PhraseSettings()
SHORTEST, LONGEST = SETTINGS.min_silence_ms / 1000, SETTINGS.max_silence_ms / 1000


def detector_after(timed: Iterable[Timed], settings: PhraseSettings = SETTINGS, patience: float = 1.0) -> PhraseDetector:
    detector = PhraseDetector(settings, lambda: patience)
    for one in timed:
        detector.feed(one)
    return detector


def end_of(detector: PhraseDetector) -> float:
    end = detector.reply_due()
    assert end is not None
    return end


def premature_ends(timed: Iterable[Timed], settings: PhraseSettings = SETTINGS) -> list[float]:
    """When the detector would have ended the phrase of a performance that continues; reset each time, as by the performer."""
    detector = PhraseDetector(settings)
    ends = []
    for one in sorted(timed, key=lambda one: one.time):
        end = detector.reply_due()
        if end is not None and end < one.time:
            ends.append(end)
            detector.reset()
        detector.feed(one)
    return ends


def silence_after(gap: float, count: int = 8, patience: float = 1.0) -> float:
    """Seconds from the last onset of an even, detached run to the end of the phrase."""
    run = (one for i in range(count) for one in note(i * gap, 0.04, 60 + i % 20))
    return end_of(detector_after(run, patience=patience)) - (count - 1) * gap


def chords(onsets: Iterable[float], length: float, pitches: tuple[int, ...] = (48, 60, 64, 67)) -> list[Timed]:
    """Slightly spread chords, whose keys are released one after another."""
    spread = [one for at in onsets for i, pitch in enumerate(pitches) for one in note(at + i * 0.008, length + i * 0.01, pitch)]
    return sorted(spread, key=lambda one: one.time)


# --- when it ends --------------------------------------------------------------------------------------------------


def test_nothing_played_is_no_phrase() -> None:
    assert PhraseDetector(SETTINGS).reply_due() is None
    assert detector_after([Timed(0.0, SUSTAIN_DOWN), Timed(1.0, NOTE_OFF + 60)]).reply_due() is None


def test_a_run_is_answered_within_about_a_second() -> None:
    assert silence_after(0.1, count=24) < 1.0
    assert silence_after(0.2, count=16) < 1.25


def test_fast_playing_ends_sooner_than_slow_playing() -> None:
    silences = [silence_after(gap) for gap in (0.1, 0.25, 0.4, 0.6, 0.9)]
    assert silences == sorted(silences)
    assert silences[-1] > 1.5 * silences[0]


def test_a_very_fast_run_is_answered_like_a_fast_one() -> None:
    """A glissando or a trill: onsets as close as those of a spread chord."""
    assert silence_after(0.045, count=24) <= silence_after(0.25)


def test_a_chord_is_one_onset() -> None:
    onsets = [i * 0.5 for i in range(6)]
    spread, single = detector_after(chords(onsets, 0.3)), detector_after(chords(onsets, 0.3, (60,)))
    assert end_of(spread) == pytest.approx(end_of(single), abs=0.1)


def test_more_patience_waits_longer() -> None:
    silences = [silence_after(0.4, patience=patience) for patience in (0.5, 1.0, 2.0)]
    assert silences[0] < silences[1] < silences[2]


@given(st.floats(0.06, 3.0), st.integers(2, 30), st.floats(0.25, 4.0))
def test_the_silence_stays_within_its_limits(gap: float, count: int, patience: float) -> None:
    silence = silence_after(gap, count, patience)
    assert SHORTEST - 1e-9 <= silence <= LONGEST + 0.04


def test_too_few_notes_are_no_phrase() -> None:
    settings = PhraseSettings(min_notes=3)
    assert detector_after(phrase(count=2), settings).reply_due() is None
    assert detector_after(phrase(count=3), settings).reply_due() is not None


# --- when it does not end ------------------------------------------------------------------------------------------


@given(st.floats(0.06, 1.6), st.floats(0.05, 0.95), st.integers(2, 40))
def test_an_even_passage_is_never_cut(gap: float, held: float, count: int) -> None:
    assert not premature_ends(one for i in range(count) for one in note(i * gap, gap * held, 60 + i % 20))


@given(st.lists(st.floats(0.15, 0.35), min_size=3, max_size=40))
def test_uneven_passage_is_never_cut(gaps: list[float]) -> None:
    onsets = [sum(gaps[:i]) for i in range(len(gaps))]
    assert not premature_ends(one for i, onset in enumerate(onsets) for one in note(onset, 0.1, 60 + i % 20))


@pytest.mark.parametrize("length", [0.08, 0.18])
def test_a_hand_shift_in_steady_quavers_does_not_end_the_phrase(length: float) -> None:
    onsets = [i * 0.2 + (0.5 if i >= 20 else 0) for i in range(40)]  # 0.7 s instead of 0.2 s, once
    assert not premature_ends(one for i, onset in enumerate(onsets) for one in note(onset, length, 50 + i))


@pytest.mark.parametrize("length", [0.9, 1.45])
def test_a_slow_chorale_is_not_cut_between_its_chords(length: float) -> None:
    assert not premature_ends(chords([i * 1.5 for i in range(12)], length))


def test_detector_waits_longer_after_a_few_premature_ends() -> None:
    """Fast playing becomes slow: after a few premature ends the detector has adapted."""
    fast = [i * 0.15 for i in range(40)]
    slow = [fast[-1] + 1.8 * (i + 1) for i in range(12)]
    ends = premature_ends(one for i, onset in enumerate([*fast, *slow]) for one in note(onset, 0.1, 50 + i))
    assert ends
    assert max(ends) < slow[3]


# --- keys and pedal ------------------------------------------------------------------------------------------------


def test_held_final_chord_is_answered_slightly_later_than_a_released_one() -> None:
    run = phrase(gap=0.1)
    let_go, held = detector_after(run), detector_after(run[:-1])
    assert end_of(let_go) < end_of(held) < 0.7 + 2.0


def test_held_chord_is_answered_at_most_shortly_after_the_longest_silence() -> None:
    held = detector_after([one for one in chords([i * 2.4 for i in range(8)], 2.0) if one.time < 17.0])
    assert held.held
    assert end_of(held) - 16.8 < LONGEST / 0.7


def test_a_late_release_is_followed_by_a_moment_of_silence() -> None:
    run = phrase(gap=0.1)
    end = end_of(detector_after([*run[:-1], run[-1]._replace(time=3.0)]))
    assert 3.0 < end < 3.0 + SHORTEST


def test_phrase_end_depends_on_the_last_released_key() -> None:
    first = [*note(0.0, 0.3, 60)]
    together = detector_after(
        [*first, *(Timed(1.0, NOTE_ON + key, 60) for key in (48, 55)), *(Timed(1.4, NOTE_OFF + key) for key in (48, 55))]
    )
    apart = detector_after(
        [*first, *(Timed(1.0, NOTE_ON + key, 60) for key in (48, 55)), Timed(1.2, NOTE_OFF + 48), Timed(1.4, NOTE_OFF + 55)]
    )
    assert end_of(together) == end_of(apart)


def test_held_pedal_does_not_delay_the_end_of_a_phrase() -> None:
    plain = phrase(gap=0.1)
    pedalled = [Timed(0.05, SUSTAIN_DOWN), *plain]
    pedalled.sort(key=lambda one: one.time)
    assert end_of(detector_after(pedalled)) == pytest.approx(end_of(detector_after(plain)))


def test_pedal_change_does_not_end_the_phrase_at_once() -> None:
    detector = detector_after(phrase(gap=0.1))
    late = end_of(detector) - 0.01
    detector.feed(Timed(late, SUSTAIN_UP))
    assert late < end_of(detector) < late + SHORTEST


# --- from phrase to phrase -----------------------------------------------------------------------------------------


def test_reset_begins_a_new_phrase_and_keeps_the_pace() -> None:
    detector = detector_after(phrase(count=24, gap=0.1))
    assert (detector.start, detector.notes) == (0.0, 24)
    silence = end_of(detector) - 2.3
    detector.reset()
    assert (detector.start, detector.notes, detector.reply_due()) == (None, 0, None)
    for one in note(10.0, 0.08, 60):
        detector.feed(one)
    assert detector.start == 10.0
    assert end_of(detector) - 10.0 == pytest.approx(silence)


def test_a_key_held_across_a_reset_is_still_held() -> None:
    """An interruption begins a new phrase while the left hand still holds a key."""
    detector = detector_after([*phrase(gap=0.1), Timed(0.8, NOTE_ON + 40, 80)])
    detector.reset()
    for one in note(1.0, 0.1, 60):
        detector.feed(one)
    assert detector.held == {40}
    holding = end_of(detector)
    detector.feed(Timed(1.2, NOTE_OFF + 40))
    assert end_of(detector) < holding


# --- arbitrary input -----------------------------------------------------------------------------------------------

ACTIONS = st.one_of(st.integers(NOTE_ON + 58, NOTE_ON + 62), st.integers(NOTE_OFF + 58, NOTE_OFF + 62), st.integers(256, 257))
PLAYING = st.lists(st.tuples(st.floats(0.0, 4.0), ACTIONS), max_size=60)


@given(PLAYING, st.floats(0.25, 4.0))
def test_phrase_end_is_after_the_last_action_and_bounded(playing: list[tuple[float, int]], patience: float) -> None:
    """Releases of keys that are up, repeated note-ons, repeated pedal releases: anything a keyboard could send."""
    detector, now, onset = PhraseDetector(SETTINGS, lambda: patience), 0.0, None
    for wait, action in playing:
        now += wait
        detector.feed(Timed(now, action, 60 if action < NOTE_OFF else 0))
        onset = now if action < NOTE_OFF else onset
        end = detector.reply_due()
        assert (end is None) == (onset is None)
        if end is not None and onset is not None:
            assert end > now
            assert onset + SHORTEST <= end + 1e-9
            assert end <= now + LONGEST / 0.7


@given(st.lists(st.tuples(st.floats(-5.0, 5.0), ACTIONS), max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_actions_out_of_order_are_accepted(actions: list[tuple[float, int]], resets: list[int]) -> None:
    detector = PhraseDetector(SETTINGS)
    for i, (time, action) in enumerate(actions):
        if i in resets:
            detector.reset()
        detector.feed(Timed(time, action, 60))
        end = detector.reply_due()
        assert end is None or end > max(time for time, _ in actions[: i + 1])


# --- how long and how fast it was ----------------------------------------------------------------------------------


def test_a_phrase_lasts_until_its_keys_are_up() -> None:
    assert detector_after([]).length(5.0) is None
    assert detector_after(phrase(10.0, 8, 0.2)).length(100.0) == pytest.approx(1.56)
    assert detector_after([*phrase(10.0, 8, 0.2), Timed(12.0, NOTE_ON + 40, 80)]).length(15.0) == pytest.approx(5.0)


def test_rate_of_a_phrase_excludes_its_pauses() -> None:
    assert detector_after(phrase(0.0, 3, 0.2)).rate is None
    assert detector_after(phrase(0.0, 21, 0.2)).rate == pytest.approx(5.0)
    assert detector_after([*phrase(0.0, 21, 0.2), *phrase(40.0, 21, 0.2)]).rate == pytest.approx(4.0, rel=0.05)
    slow = [one for i in range(8) for one in chords([3.0 * i], 2.0)]
    assert detector_after(slow).rate == pytest.approx(31 / (7 * MAX_RATE_GAP), rel=0.05)  # and not as high as without pauses


def test_call_has_notes_per_second_and_mean_velocity() -> None:
    detector = PhraseDetector(PhraseSettings())
    assert detector.rate is None
    for i in range(9):
        detector.feed(Timed(10 + i * 0.25, NOTE_ON + 60 + i, 60 + i))
        if i < 4:
            assert detector.rate is None  # too short to tell
            assert detector.call == NO_CALL
    assert detector.rate == pytest.approx(4.0)
    assert detector.call == CallStatistics(pytest.approx(4.0), pytest.approx(64.0))


def test_call_has_the_number_of_notes_per_chord() -> None:
    detector = PhraseDetector(PhraseSettings())
    for i in range(9):
        for j in range(3):
            detector.feed(Timed(10 + i * 0.5 + 0.01 * j, NOTE_ON + 60 + j, 60))
    assert detector.call.chord == 3.0
    detector.reset()
    detector.feed(Timed(20.0, NOTE_ON + 60, 60))
    detector.feed(Timed(22.0, NOTE_ON + 61, 60))
    assert detector.call == CallStatistics(pytest.approx(0.5), 60.0)
