"""Writes the bundled calls: ``python -m tools.compose_calls [FOLDER]`` (by default into the package).

- ``call.mid``: Robert Schumann (1810-1856), "Von fremden Ländern und Menschen", Kinderszenen op. 15 no. 1 (1838),
  bars 1-8. Composer dead for more than 100 years, first published in 1839: public domain everywhere.
- ``call-original.mid``: a phrase of this project's own, in F major, under the project's licence.

The notes are written down as data below and then *performed*, so the performances are this project's own as well:

- tempo: an arch over each phrase, slower at both ends (N. Todd, "The dynamics of dynamics", JASA 91, 1992), and a final
  ritardando like a runner's stop (A. Friberg and J. Sundberg, JASA 105, 1999);
- touch: melody over bass over inner voices, louder towards the middle of a phrase, upwards and on the beat,
  softer towards the end;
- timing: the melody some 15 ms ahead, chords spread upwards, random offsets of a few milliseconds (seeded);
- pedal: changed just after each new harmony.

The output is deterministic. The files have a fixed tempo like a recording, not the bars of the score: 480 ticks a beat of 500 ms.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import mido  # type: ignore[import-untyped, unused-ignore]

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed

TICKS_PER_BEAT = 480
TEMPO = 500_000  # microseconds a beat
GRID = 48  # steps a beat, for the tempo curve
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


class Bar(NamedTuple):
    """One bar, voice by voice: ``pitch:length`` in beats, one after another, ``-`` a rest, ``+`` joins a chord.

    Without a length it is a triplet quaver, ``1/3``.
    """

    melody: str
    inner: str
    bass: str
    tenor: str = ""


class Written(NamedTuple):
    """A note of the score; ``beat`` counts from the first bar's first beat (an upbeat's are negative)."""

    pitch: int
    beat: Fraction
    length: Fraction
    voice: str
    place: int = 0  # in its chord, from below


@dataclass(frozen=True)
class Piece:
    title: str
    bars: Sequence[Bar]
    beats: int  # a bar
    per_minute: float  # beats, without the arches
    phrases: Sequence[tuple[float, float]]  # first and last bar of each, for the arches of tempo and touch; they may nest
    pedal: Sequence[float]  # beats of a bar at which the harmony, and so the pedal, changes
    loudness: Mapping[str, int]  # velocity of each voice
    seed: int
    upbeat: str = ""  # melody before the first bar
    pedal_hold: float = 1.0  # how much of each harmony is pedalled; 1 = legato
    arch: float = 0.1  # how much longer a beat is at the ends of a phrase
    swing: float = 0.5  # where in its beat an off-beat quaver falls
    ritardando: tuple[float, float] = (1, 1)  # beats from the end, and the final tempo as a part of the first
    breaths: Mapping[float, float] = field(default_factory=dict)  # seconds to wait before a beat
    last_bar_rings: float = 0.5  # seconds after the written end
    roll: float = 0.009  # seconds from note to note of a chord


VON_FREMDEN_LAENDERN = Piece(
    title="Schumann: Von fremden Ländern und Menschen, op. 15 no. 1, bars 1-8",
    bars=(
        Bar("B4:1 G5:1", "B3 D4 G4  Bb3 E4 G4", "G3:1/2 -:1/2  C#3:1/2 -:1/2"),
        Bar("F#5:3/4 E5:1/4 D5:1", "A3 D4 F#4  C4 D4 A4", "D3:1/2 -:1/2  F#3:1/2 -:1/2"),
        Bar("B4:1 G5:1", "B3 D4 G4  Bb3 E4 G4", "G3:1/2 -:1/2  C#3:1/2 -:1/2"),
        Bar("F#5:3/4 E5:1/4 D5:1", "A3 D4 F#4  C4 D4 A4", "D3:1/2 -:1/2  F#3:1/2 -:1/2"),
        Bar("B4:1 G5:1", "B3 D4 G4  - D4 G4", "G3:1/2 -:1/2  B2:1/2 -:1/2", tenor="-:1 G3:2"),  # tied over the bar
        Bar("E5:3/4 D5:1/4 C5:1", "- E4 G4  G3 C4 G4", "C3:1/2 -:1/2  E3:1/2 -:1/2"),
        Bar("A4:1 D5:1", "G3 C4 G4  F#3 C4 F#4", "D3:1/2 -:1/2  D3:1/2 -:1/2"),
        Bar("B4:2", "D3 B3 G4  - B3 G4", "G2:1/2 -:1/2  G3:1/2 -:1/2"),
    ),
    beats=2,
    per_minute=92,
    phrases=((1, 2), (3, 4), (5, 8), (1, 8)),
    pedal=(0, 1),
    loudness={"melody": 66, "tenor": 46, "inner": 38, "bass": 49},
    seed=1838,
    arch=0.07,
    ritardando=(4, 0.6),
    breaths={4: 0.05, 8: 0.07, 14: 0.06},
    last_bar_rings=0.6,
)

ORIGINAL = Piece(
    title="perceivers-live: an original phrase in F",
    bars=(  # Gm9 | C13 C7b9 | Fmaj9 D7b9 | Gm9 C7b9 | F6/9
        Bar("A5:3/2 G5:1/2 F5:1/2 D5:1/2 Bb4:1/2 C5:1/2", "-:3/2 F3+A3+Bb3+D4:1/2 -:1 F3+A3+Bb3+D4:3/4", "G2:3/2 -:1/2 D3:1"),
        Bar("D5:1/2 E5:1/2 G5:1/2 Bb5:1 A5:1/2 E5:1/2 Db5:1/2", "-:3/2 E3+A3+Bb3+D4:1/2 -:1 E3+Bb3+Db4:3/4", "C2:3/2 -:1/2 G2:1"),
        Bar("C5:1 G4:1/2 A4:1/2 F#4:1/2 A4:1/2 C5:1/2 Eb5:1/2", "-:1 E3+G3+A3+C4:3/4 -:5/4 F#3+C4:3/4", "F2:3/2 -:1/2 D3:1"),
        Bar("D5:1 Bb4:1/2 A4:1/2 Db5:1/2 Bb4:1/2 Ab4:1/2 G4:1/2", "-:1 F3+A3+Bb3+D4:3/4 -:5/4 E3+Bb3:3/4", "G2:3/2 -:1/2 C2:1"),
        Bar("A4:1 -:1/3 D5 G5 C6:2", "A3+D4+G4:4", "F2+C3:4"),
    ),
    upbeat="D5:1/2 F5:1/2",
    beats=4,
    per_minute=138,
    phrases=((0.75, 2.5), (3.5, 5), (0.75, 5)),
    pedal=(0, 2),
    loudness={"melody": 78, "inner": 54, "bass": 60},
    seed=88,
    pedal_hold=0.7,
    arch=0.06,
    swing=0.6,
    ritardando=(5, 0.62),
    breaths={10: 0.04, 16: 0.04},
    last_bar_rings=0.1,
    roll=0.012,
)

CALLS = {"call.mid": VON_FREMDEN_LAENDERN, "call-original.mid": ORIGINAL}


# --- the score -----------------------------------------------------------------------------------------------------


def pitch_of(name: str) -> int:
    """``C4`` -> 60, ``Bb3`` -> 58."""
    accidental = name.count("#") - name[1:].count("b")
    return 12 * (int(name.lstrip("ABCDEFG#b")) + 1) + SEMITONES[name[0]] + accidental


def read_voice(text: str, beat: Fraction, voice: str) -> Iterator[Written]:
    for token in text.split():
        names, _, length = token.partition(":")
        long = Fraction(length or "1/3")
        if names != "-":
            yield from (Written(pitch_of(name), beat, long, voice, place) for place, name in enumerate(names.split("+")))
        beat += long


def length_of(text: str) -> Fraction:
    return sum((Fraction(token.partition(":")[2] or "1/3") for token in text.split()), Fraction(0))


def score(piece: Piece) -> list[Written]:
    """All notes, in order of their beats."""
    notes = list(read_voice(piece.upbeat, -length_of(piece.upbeat), "melody"))
    for number, bar in enumerate(piece.bars):
        for voice, text in bar._asdict().items():
            notes += read_voice(text, Fraction(number * piece.beats), voice)
    return sorted(notes, key=lambda note: (note.beat, note.pitch))


# --- the performance -----------------------------------------------------------------------------------------------


class Clock:
    """Converts beats of the score to seconds; the first note is at 0."""

    def __init__(self, piece: Piece, first: Fraction, end: Fraction) -> None:
        self.piece, self.first, self.end = piece, first, float(end)
        self.seconds = [0.0]
        breaths = {round((beat - first) * GRID) - 1: seconds for beat, seconds in piece.breaths.items()}
        for step in range(int((end - first) * GRID)):
            beat = float(first) + (step + 0.5) / GRID
            self.seconds.append(self.seconds[-1] + breaths.get(step, 0.0) + self._beat_length(beat) / GRID)

    def closing(self, beat: float) -> float:
        """0 before the final ritardando, then rising to 1 at the end."""
        beats = self.piece.ritardando[0]
        return max(0.0, (beat - self.end + beats) / beats)

    def _beat_length(self, beat: float) -> float:
        length = 60 / self.piece.per_minute * (1 + self.piece.arch * (1 - swell(self.piece, beat)))
        speed: float = (1 + (self.piece.ritardando[1] ** 3 - 1) * self.closing(beat)) ** (1 / 3)
        return length / speed

    def at(self, beat: Fraction) -> float:
        swing = self.piece.swing - 0.5 if beat % 1 == Fraction(1, 2) else 0.0
        step = (float(beat - self.first) + swing) * GRID
        below = min(int(step), len(self.seconds) - 2)
        return self.seconds[below] + (step - below) * (self.seconds[below + 1] - self.seconds[below])


def swell(piece: Piece, beat: float) -> float:
    """Sum of the phrases' arches at a beat; each is 1 in the middle and 0 at the ends."""
    total = 0.0
    for first, last in piece.phrases:
        start, end = (first - 1) * piece.beats, last * piece.beats
        if start <= beat <= end:
            total += 1 - (2 * (beat - start) / (end - start) - 1) ** 2
    return total


def perform(piece: Piece) -> list[Timed]:
    """The performed piece: times in seconds from 0, in order."""
    notes = score(piece)
    chance = random.Random(piece.seed)
    last = max(note.beat + note.length for note in notes)
    clock = Clock(piece, notes[0].beat, last)
    ring = clock.seconds[-1] + piece.last_bar_rings
    starts = [clock.at(note.beat) + _offset(note, piece, chance) for note in notes]
    first = min(starts)
    struck_again: dict[int, float] = {}
    played: list[Timed] = []
    for note, start in sorted(zip(notes, starts, strict=True), key=lambda pair: pair[1], reverse=True):
        end = ring if note.beat + note.length == last and note.length >= 1 else _release(note, clock, chance)
        end = max(start + 0.05, min(end, struck_again.get(note.pitch, end + 1) - 0.03))
        struck_again[note.pitch] = start
        played.append(Timed(start - first, NOTE_ON + note.pitch, _velocity(note, piece, clock, chance)))
        played.append(Timed(end - first, NOTE_OFF + note.pitch))
    played += _pedal(piece, clock, ring, first, chance)
    return sorted(played, key=lambda one: (one.time, one.action < NOTE_OFF))


def _offset(note: Written, piece: Piece, chance: random.Random) -> float:
    """Seconds from the beat: the melody leads, a chord is spread, and timing varies a little."""
    lead = -0.012 if note.voice == "melody" else 0.003 if note.voice == "bass" else 0.005
    return lead + note.place * piece.roll + chance.triangular(-0.007, 0.007)


def _velocity(note: Written, piece: Piece, clock: Clock, chance: random.Random) -> int:
    velocity = piece.loudness[note.voice] + 5 * swell(piece, float(note.beat)) - 4
    if note.voice == "melody":
        velocity += (note.pitch - 74) * 0.7
        velocity += min(float(note.length) - 1, 0) * 8  # short notes are light
    if note.beat.denominator != 1:
        velocity -= 3
    elif note.beat % piece.beats == 0:
        velocity += 2
    velocity *= 1 - 0.25 * clock.closing(float(note.beat))
    return round(min(max(velocity + chance.triangular(-4, 4), 20), 110))


def _release(note: Written, clock: Clock, chance: random.Random) -> float:
    """Seconds of the release: legato in melody and inner voices; the bass is released early and held by the pedal."""
    overlap = 0.025 if note.voice == "melody" else 0.0 if note.voice == "bass" else 0.01
    return clock.at(note.beat + note.length) + overlap + chance.triangular(-0.012, 0.012)


def _pedal(piece: Piece, clock: Clock, ring: float, first: float, chance: random.Random) -> Iterator[Timed]:
    changes = [Fraction(number * piece.beats + beat) for number in range(len(piece.bars)) for beat in piece.pedal]
    changes = [beat for beat in changes if beat <= (len(piece.bars) - 1) * piece.beats]  # the last bar rings in one
    for beat, after in zip(changes, [*changes[1:], None], strict=True):
        down = clock.at(beat) + 0.12 + chance.triangular(-0.02, 0.02)
        if after is None:
            up = ring + 0.05
        elif piece.pedal_hold == 1:
            up = clock.at(after) + 0.02 + chance.triangular(-0.01, 0.01)
        else:
            up = clock.at(beat + (after - beat) * Fraction(piece.pedal_hold)) + chance.triangular(-0.02, 0.02)
        yield Timed(down - first, SUSTAIN_DOWN)
        yield Timed(up - first, SUSTAIN_UP)


# --- the file ------------------------------------------------------------------------------------------------------


def midi_file(piece: Piece) -> mido.MidiFile:
    """Type 1: a track for the tempo, a track for the piano."""
    conductor = mido.MidiTrack([mido.MetaMessage("track_name", name=piece.title), mido.MetaMessage("set_tempo", tempo=TEMPO)])
    piano = mido.MidiTrack([mido.MetaMessage("track_name", name="Piano"), mido.Message("program_change", program=0)])
    tick = 0
    for time, action, velocity in perform(piece):
        now = round(time * 1e6 / TEMPO * TICKS_PER_BEAT)
        if action < NOTE_OFF:
            message = mido.Message("note_on", note=action - NOTE_ON, velocity=velocity)
        elif action < SUSTAIN_DOWN:
            message = mido.Message("note_off", note=action - NOTE_OFF, velocity=64)
        else:
            message = mido.Message("control_change", control=64, value=127 if action == SUSTAIN_DOWN else 0)
        message.time = now - tick
        piano.append(message)
        tick = now
    for track in (conductor, piano):
        track.append(mido.MetaMessage("end_of_track"))
    return mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT, tracks=[conductor, piano])


def write(folder: Path) -> list[Path]:
    """Writes every call into a folder, which must exist."""
    paths = [folder / name for name in CALLS]
    for path, piece in zip(paths, CALLS.values(), strict=True):
        midi_file(piece).save(path)
    return paths


if __name__ == "__main__":
    for path in write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "perceivers_live" / "music"):
        print(path)
