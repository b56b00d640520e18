"""Transposed and louder on their way out, notes end as they began."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, Timed
from perceivers_live.player.ledger import Ledger, Voicing
from tests.perceivers_live.playing import check, check_at_rest, go_on, legal, musicians, notes, onsets, playing
from tests.perceivers_live.receiver import Synthesizer, unbalanced
from tests.perceivers_live.toys import Musician, restless, steady
from tests.perceivers_live.virtual_stage import Stage


@musicians
@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_every_note_is_released_as_it_was_struck_however_it_is_transposed(mode: str, musician: Musician) -> None:
    stage = playing(mode, musician)
    for shift in (12, -12, 1, 0, 24, -24, 2, 0, 7, -1) * 3:
        stage.controls.set("transpose", shift)
        stage.run(stage.now + 0.13)
        check(stage)
        go_on(stage, 1, pitch=60 + shift)
        check(stage)
    assert legal(stage)
    check_at_rest(stage)


def test_two_pitches_that_would_sound_as_one_do_not_hang_in_the_memory() -> None:
    """The first is held at one transposition; the second would be struck at another."""
    stage = playing("solo", steady(4, (60, 62), chord=2))
    stage.run(stage.now + 5, stop=lambda: stage.player.ledger.notes == {62})
    stage.controls.set("transpose", 2)
    stage.run(stage.now + 1.0)
    check_at_rest(stage)


@pytest.mark.parametrize("shift", [24, -24])
@pytest.mark.parametrize("register", [(0, 127), (110, 127), (0, 15)])
def test_no_note_leaves_the_range_of_midi_nor_the_register(shift: int, register: tuple[int, int]) -> None:
    low, high = register
    stage = Stage(
        steady(3, range(128)), {"mode": "solo", "transpose": shift, "register_low": low, "register_high": high, "loudness": 1.0}
    )
    stage.run(6.0)
    struck = [message[1] for message in stage.port.messages if message[0] == 0x90]
    possible = [pitch + shift for pitch in range(low, high + 1) if 0 <= pitch + shift < PITCHES]
    assert set(struck) <= set(possible)
    assert bool(struck) == bool(possible)
    assert [one.action - NOTE_ON + shift for one in onsets(stage)] == struck
    check_at_rest(stage)


@pytest.mark.parametrize("shift", [5, -5])
def test_transposed_the_machine_still_keeps_off_the_humans_keys(shift: int) -> None:
    stage = Stage(restless, {"mode": "duet", "transpose": shift, "register_low": 55, "register_high": 80})
    stage.hear(*(Timed(0.1 + 0.1 * i, NOTE_ON + pitch, 80) for i, pitch in enumerate((60, 64, 67, 72))))
    for _ in range(10):
        go_on(stage, 2, pitch=40)
    assert len(onsets(stage)) > 8
    assert legal(stage)
    check_at_rest(stage)


def test_a_transposed_machine_does_not_choose_a_key_that_the_human_holds_since_before_the_history() -> None:
    synthesizer = Synthesizer()
    ledger = Ledger(synthesizer.send, voicing=lambda: Voicing(12))
    ledger.keys.apply(Timed(0.0, NOTE_ON + 62, 80))
    assert ledger.forbidden == {62, 50}
    assert ledger.play(NOTE_ON + 62, 80) is None
    assert ledger.play(NOTE_ON + 50, 80) is None


def test_a_key_is_given_up_by_what_it_is_in_the_music_and_by_what_it_sounds_as() -> None:
    stage = playing("solo", steady(60, (70, 72), chord=2), transpose=2)
    stage.run(stage.now + 9, stop=lambda: stage.player.ledger.notes == {70, 72})
    stage.hear(Timed(stage.now, NOTE_ON + 72, 80))  # 70 sounds as 72, and 72 is 72
    assert stage.player.ledger.notes == frozenset()
    assert legal(stage)
    check_at_rest(stage)


@pytest.mark.parametrize("loudness", [-1.0, -0.3, 0.0, 0.7, 1.0])
def test_louder_or_softer_velocities_stay_in_order_and_in_range(loudness: float) -> None:
    voicing = Voicing(0, loudness)
    velocities = [voicing.velocity(velocity) for velocity in range(1, 128)]
    assert velocities == sorted(velocities)
    assert velocities[0] >= 1
    assert velocities[-1] == 127
    assert math.copysign(1, velocities[63] - 64) == math.copysign(1, loudness) or not loudness
    assert loudness or velocities == list(range(1, 128))


def test_loudness_moves_what_is_heard_and_not_what_is_remembered() -> None:
    plain, loud = playing("solo"), playing("solo", loudness=0.8)
    assert plain.history() == loud.history()
    assert sum(m[2] for m in notes(loud) if m[0] == 0x90) > sum(m[2] for m in notes(plain) if m[0] == 0x90)


def test_a_wild_voicing_never_strikes_a_key_twice() -> None:
    messages: list[tuple[int, ...]] = []
    voicing = [Voicing()]
    ledger = Ledger(lambda message: messages.append(tuple(message)), voicing=lambda: voicing[0])
    chance = np.random.default_rng(3)
    for _ in range(3000):
        voicing[0] = Voicing(int(chance.integers(-24, 25)), float(chance.uniform(-1, 1)))
        pitch = int(chance.integers(0, 128))
        ledger.play((NOTE_ON if chance.random() < 0.6 else NOTE_OFF) + pitch, int(chance.integers(1, 128)))
    ledger.close()
    assert unbalanced(messages) == []
    assert all(0 <= byte < 128 for message in messages for byte in message[1:])
