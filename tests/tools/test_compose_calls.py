"""The bundled calls, and the script that writes them."""

from __future__ import annotations

from pathlib import Path

import mido
import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.commands.demo import bundled_call
from perceivers_live.commands.piano_roll import notes_of
from tools import compose_calls as compose

BUNDLED = bundled_call().parent


def read(name: str) -> list[Timed]:
    now, timed = 0.0, list[Timed]()
    for message in mido.MidiFile(BUNDLED / name):
        now += message.time
        if message.type == "note_on":
            timed.append(Timed(now, NOTE_ON + message.note, message.velocity))
        elif message.type == "note_off":
            timed.append(Timed(now, NOTE_OFF + message.note))
        elif message.is_cc(64):
            timed.append(Timed(now, SUSTAIN_DOWN if message.value >= 64 else SUSTAIN_UP))
    return timed


def test_bundled_files_match_the_script_output(tmp_path: Path) -> None:
    for path in compose.write(tmp_path):
        assert path.read_bytes() == (BUNDLED / path.name).read_bytes()


@pytest.mark.parametrize("piece", compose.CALLS.values(), ids=compose.CALLS)
def test_every_bar_is_full(piece: compose.Piece) -> None:
    for bar in piece.bars:
        assert compose.length_of(bar.melody) == piece.beats
        assert all(compose.length_of(text) <= piece.beats for text in (bar.inner, bar.bass))


@pytest.mark.parametrize(("name", "shortest", "longest"), [("call.mid", 10, 12), ("call-original.mid", 8, 10)])
def test_a_call_is_a_well_formed_performance(name: str, shortest: int, longest: int) -> None:
    midi = mido.MidiFile(BUNDLED / name)
    assert (midi.type, midi.ticks_per_beat, len(midi.tracks)) == (1, 480, 2)
    timed = read(name)
    assert shortest < timed[-1].time < longest
    held, pedal = set[int](), False
    for _, action, velocity in timed:
        if action < NOTE_OFF:
            assert action not in held
            assert 20 <= velocity <= 110
            held.add(action)
        elif action < SUSTAIN_DOWN:
            held.remove(action - NOTE_OFF)
        else:
            assert pedal == (action == SUSTAIN_UP)
            pedal = not pedal
    assert not held
    assert not pedal


@pytest.mark.parametrize("name", compose.CALLS)
def test_melody_is_louder_than_its_accompaniment(name: str) -> None:
    piece = compose.CALLS[name]
    melody = {(note.pitch, note.voice == "melody") for note in compose.score(piece)}
    notes, _ = notes_of(read(name))

    def mean(top: bool) -> float:
        found = [note.velocity for note in notes if (note.pitch, top) in melody and (note.pitch, not top) not in melody]
        return sum(found) / len(found)

    assert mean(True) > mean(False) + 12


def test_schumanns_melody_has_the_original_pitches() -> None:
    melody = [note for note in compose.score(compose.VON_FREMDEN_LAENDERN) if note.voice == "melody"]
    names = "B4 G5 F#5 E5 D5 B4 G5 F#5 E5 D5 B4 G5 E5 D5 C5 A4 D5 B4"
    assert [note.pitch for note in melody] == [compose.pitch_of(name) for name in names.split()]


def test_pitch_names() -> None:
    assert [compose.pitch_of(name) for name in ("C4", "Bb3", "F#5", "B4", "C-1")] == [60, 58, 78, 71, 0]
