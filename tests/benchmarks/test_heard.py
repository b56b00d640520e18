"""Measured quantities of a passage, and their tables and picture."""

from __future__ import annotations

import pytest

from benchmarks.controls import Asked, rows, summary, table
from benchmarks.controls_picture import draw
from benchmarks.heard import chord_spread, collapsed, ending, heard, most_held
from benchmarks.likeness import passage
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed


def melody(rate: float, seconds: float, velocity: int = 60, keys: tuple[int, ...] = (60, 64, 67, 72)) -> list[Timed]:
    """Even notes, each half as long as the gap to the next."""
    timed = []
    for i in range(round(rate * seconds)):
        key = keys[i % len(keys)]
        timed += [Timed(i / rate, NOTE_ON + key, velocity), Timed((i + 0.5) / rate, NOTE_OFF + key)]
    return timed


def test_measured_rate_velocity_length_and_range_equal_the_played_ones() -> None:
    found = heard(melody(8.0, 4.0, 77))
    assert found["rate"] == pytest.approx(8.0)
    assert (found["velocity"], found["spread"]) == (77, 0)
    assert found["note length"] == pytest.approx(1 / 16)
    assert found["seconds"] == pytest.approx(4.0 - 1 / 16)
    assert (found["low"], found["high"], found["held"]) == (60, 72, 1)
    assert heard([]) == {}


def test_keys_held_together_are_counted_and_the_spread_of_a_chord_is_measured() -> None:
    chord = [Timed(0.01 * i, NOTE_ON + 60 + 4 * i, 60) for i in range(3)] + [Timed(1.0, NOTE_OFF + 60 + 4 * i) for i in range(3)]
    assert most_held(passage(chord).notes) == 3
    assert chord_spread(passage(chord)) == pytest.approx(0.02)


def test_silence_a_trill_and_a_spray_of_notes_are_collapses() -> None:
    call = melody(6.0, 6.0, keys=(60, 64, 67, 72, 62, 65, 69, 71))
    assert not collapsed(call, call)
    assert collapsed([], call)
    assert collapsed(melody(12.0, 6.0, keys=(60, 62)), call)
    assert collapsed(melody(40.0, 6.0, keys=tuple(range(40, 90))), call)


def test_an_ending_is_described_by_hold_harmony_and_pedal() -> None:
    held = [
        Timed(0.0, SUSTAIN_DOWN),
        *melody(4.0, 3.0),
        Timed(3.0, NOTE_ON + 60, 60),
        Timed(4.0, NOTE_OFF + 60),
        Timed(4.1, SUSTAIN_UP),
    ]
    found = ending(held)
    assert found["hold"] == pytest.approx(4.0)
    assert found["on harmony"] == 1.0
    assert found["pedal after"] == pytest.approx(0.1)
    pedalled = sorted([*held, Timed(2.5, SUSTAIN_UP), Timed(2.6, SUSTAIN_DOWN)], key=lambda action: action.time)
    cut = ending(pedalled, before=2.4)
    assert cut["pedal after"] == pytest.approx(0.125), "a pedal-up long after the cut was counted"
    dissonant = [*melody(4.0, 3.0), Timed(3.0, NOTE_ON + 61, 60), Timed(3.1, NOTE_OFF + 61)]
    assert ending(dissonant)["on harmony"] == 0.0


def test_a_row_states_the_deviation_of_the_reply_from_the_request() -> None:
    call, reply = melody(6.0, 6.0, 60), melody(9.0, 6.0, 72)
    both = {**heard(reply), **{f"call {name}": value for name, value in heard(call).items()}, "collapsed": 0.0}
    row = summary(Asked("density", "1", {"density": 1.0}), [both])
    assert row["rate, x call"] == pytest.approx(1.5)
    assert row["rate error"] == pytest.approx(0.25)
    assert row["velocity moved"] == pytest.approx(12)
    assert row["within 20 %"] == 1.0
    assert "density" in table([(Asked("density", "1", {}), row)])
    assert draw([("density", "1", [both])]).width > 200


def test_every_control_named_in_the_rows_can_be_set() -> None:
    from perceivers_live.controls.registry import Controls

    for row in rows(()):
        Controls(row.settings)
    assert {row.control for row in rows(["density"])} == {"density"}
