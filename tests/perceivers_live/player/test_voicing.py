"""Transposition and loudness of the output: note-offs match their note-ons."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, Timed
from perceivers_live.performer.performer import State
from perceivers_live.player.ledger import Ledger, Voicing
from tests.perceivers_live.playing import check, check_at_rest, human_plays, is_valid_history, musicians, notes, onsets, playing
from tests.perceivers_live.receiver import Synthesizer, unbalanced
from tests.perceivers_live.toys import Musician, restless, steady
from tests.perceivers_live.virtual_session import VirtualSession


@musicians
@pytest.mark.parametrize("mode", ["duet", "solo"])
def test_note_offs_match_their_note_ons_across_transpositions(mode: str, musician: Musician) -> None:
    session = playing(mode, musician)
    for shift in (12, -12, 1, 0, 24, -24, 2, 0, 7, -1) * 3:
        session.controls.set("transpose", shift)
        session.run(session.now + 0.13)
        check(session)
        human_plays(session, 1, pitch=60 + shift)
        check(session)
    assert is_valid_history(session)
    check_at_rest(session)


def test_pitches_that_would_sound_the_same_do_not_hang_in_the_history() -> None:
    """The first is held at one transposition; the second would be played at another."""
    session = playing("solo", steady(4, (60, 62), chord=2))
    session.run(session.now + 5, stop=lambda: session.player.ledger.notes == {62})
    session.controls.set("transpose", 2)
    session.run(session.now + 1.0)
    check_at_rest(session)


@pytest.mark.parametrize("shift", [24, -24])
@pytest.mark.parametrize("register", [(0, 127), (110, 127), (0, 15)])
def test_no_note_leaves_the_range_of_midi_nor_the_register(shift: int, register: tuple[int, int]) -> None:
    low, high = register
    session = VirtualSession(
        steady(3, range(128)), {"mode": "solo", "transpose": shift, "register_low": low, "register_high": high, "loudness": 1.0}
    )
    session.run(6.0)
    sent_pitches = [message[1] for message in session.port.messages if message[0] == 0x90]
    possible = [pitch + shift for pitch in range(low, high + 1) if 0 <= pitch + shift < PITCHES]
    assert set(sent_pitches) <= set(possible)
    assert bool(sent_pitches) == bool(possible)
    assert [one.action - NOTE_ON + shift for one in onsets(session)] == sent_pitches
    check_at_rest(session)


@pytest.mark.parametrize(("transpose", "has_key"), [(0, True), (1, False)])
def test_turn_ends_even_if_the_register_has_no_playable_key(transpose: int, has_key: bool) -> None:
    session = VirtualSession(restless, {"mode": "respond", "register_low": 127, "register_high": 127, "transpose": transpose})
    human_plays(session, 8)
    session.run(session.now + 20, stop=lambda: session.performer.state is State.PLAYING)
    assert session.performer.state is State.PLAYING
    session.run(session.now + 20, stop=lambda: session.performer.state is State.LISTENING)
    assert session.performer.state is State.LISTENING
    assert bool(onsets(session)) == has_key
    check_at_rest(session)


@pytest.mark.parametrize("shift", [5, -5])
def test_transposed_machine_avoids_the_humans_keys(shift: int) -> None:
    session = VirtualSession(restless, {"mode": "duet", "transpose": shift, "register_low": 55, "register_high": 80})
    session.receive(*(Timed(0.1 + 0.1 * i, NOTE_ON + pitch, 80) for i, pitch in enumerate((60, 64, 67, 72))))
    for _ in range(10):
        human_plays(session, 2, pitch=40)
    assert len(onsets(session)) > 8
    assert is_valid_history(session)
    check_at_rest(session)


def test_human_key_is_forbidden_as_model_pitch_and_as_sounding_pitch() -> None:
    synthesizer = Synthesizer()
    ledger = Ledger(synthesizer.send, voicing=lambda: Voicing(12))
    ledger.keys.apply(Timed(0.0, NOTE_ON + 62, 80))
    assert ledger.forbidden == {62, 50}
    assert ledger.play(NOTE_ON + 62, 80) is None
    assert ledger.play(NOTE_ON + 50, 80) is None


def test_human_key_press_releases_its_model_pitch_and_its_sounding_pitch() -> None:
    session = playing("solo", steady(60, (70, 72), chord=2), transpose=2)
    session.run(session.now + 9, stop=lambda: session.player.ledger.notes == {70, 72})
    session.receive(Timed(session.now, NOTE_ON + 72, 80))  # 70 sounds as 72, and 72 is 72
    assert session.player.ledger.notes == frozenset()
    assert is_valid_history(session)
    check_at_rest(session)


@pytest.mark.parametrize("loudness", [-1.0, -0.3, 0.0, 0.7, 1.0])
def test_louder_or_softer_velocities_stay_in_order_and_in_range(loudness: float) -> None:
    voicing = Voicing(0, loudness)
    velocities = [voicing.velocity(velocity) for velocity in range(1, 128)]
    assert velocities == sorted(velocities)
    assert velocities[0] >= 1
    assert velocities[-1] == 127
    assert math.copysign(1, velocities[63] - 64) == math.copysign(1, loudness) or not loudness
    assert loudness or velocities == list(range(1, 128))


def test_loudness_changes_the_output_but_not_the_history() -> None:
    plain, loud = playing("solo"), playing("solo", loudness=0.8)
    assert plain.history() == loud.history()
    assert sum(m[2] for m in notes(loud) if m[0] == 0x90) > sum(m[2] for m in notes(plain) if m[0] == 0x90)


def test_notes_balance_under_random_voicing_changes() -> None:
    messages: list[tuple[int, ...]] = []
    voicing = [Voicing()]
    ledger = Ledger(lambda message: messages.append(tuple(message)), voicing=lambda: voicing[0])
    chance = np.random.default_rng(3)
    for _ in range(3000):
        voicing[0] = Voicing(int(chance.integers(-24, 25)), float(chance.uniform(-1, 1)))
        pitch = int(chance.integers(0, 128))
        ledger.play((NOTE_ON if chance.random() < 0.6 else NOTE_OFF) + pitch, int(chance.integers(1, 128)))
    ledger.release_machine()
    assert unbalanced(messages) == []
    assert all(0 <= byte < 128 for message in messages for byte in message[1:])
