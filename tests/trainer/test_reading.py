"""The trainer reads a file as the daemon does, with the fast and the sequential reader; mido and symusic read the same notes."""

from __future__ import annotations

from pathlib import Path

import mido
import numpy as np
import pytest

pytest.importorskip("symusic")

import symusic
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.codec import encode_arrays
from engine.engine import Engine
from engine.events import NOTE_OFF, REST, SUSTAIN_DOWN, Event, Timed
from engine.midi import MessageReader
from engine.midi_file import read_file, to_timed_actions
from engine.smf import decode
from perceivers_live.performer.timeline import Timeline
from tests.midi_files import midi_bytes, track_bytes
from tests.music import Piano
from tests.perceivers_live.toys import ToyRuntime
from trainer.reading import Actions, actions_of, parse, prepare_actions, to_actions, to_actions_fast

bounded = settings(max_examples=300, deadline=None, derandomize=True)

WAITS = st.sampled_from([0, 0, 0, 1, 5, 14, 20, 500])  # milliseconds, shorter and longer than the longest delay of a layered note
CHANNELS = st.sampled_from([0, 0, 0, 1, 9])
PITCHES = st.integers(60, 63)
NOTES = st.tuples(st.sampled_from([0x80, 0x90]), CHANNELS, PITCHES, st.sampled_from([0, 1, 64, 127]))
CONTROLLERS = st.tuples(
    st.just(0xB0),
    CHANNELS,
    st.sampled_from([64, 64, 64, 67, 120, 121, 123, 126]),
    st.sampled_from([0, 55, 56, 63, 64, 127]),
)
MESSAGES = (NOTES | CONTROLLERS).map(lambda drawn: (drawn[0] | drawn[1], *drawn[2:]))
IRRELEVANT = st.sampled_from([(0xFF, 0x59, 1, 5), (0xFF, 0x51, 3, 0, 0, 0), (0xF0, 2, 0x43, 0x90), (0xF7, 1, 0xF7), (0xC0, 3)])
TEMPOS = st.sampled_from([(0xFF, 0x51, 3, 0x03, 0xD0, 0x90), (0xFF, 0x51, 3, 0x0F, 0x42, 0x40)])
TRACKS = st.lists(st.lists(st.tuples(WAITS, MESSAGES | IRRELEVANT | TEMPOS), max_size=40), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("midi") / "scratch.mid"


def same(one: Actions, other: Actions) -> bool:
    return all(np.array_equal(*columns) for columns in zip(one, other, strict=True))


@bounded
@given(TRACKS, st.sampled_from([0, 1, 2]))
def test_to_actions_equals_to_timed_actions_for_any_file(tracks: list[list[tuple[int, tuple[int, ...]]]], kind: int) -> None:
    performance = decode(midi_bytes(*map(track_bytes, tracks), kind=kind, division=500))
    slow = to_timed_actions(performance)
    assert same(to_actions(performance), actions_of(slow))
    piano = Piano()
    piano.play(slow)
    assert (piano.down, piano.pedal) == (set(), False)


@st.composite
def plain_music(draw: st.DrawFn) -> list[tuple[int, tuple[int, int, int]]]:
    """Alternating note-ons and note-offs of each key, and pedal movements, on one channel; waits in ticks."""
    events: list[tuple[int, tuple[int, int, int]]] = []
    down: set[int] = set()
    for wait, pitch, velocity, moves_pedal in draw(
        st.lists(st.tuples(WAITS, PITCHES, st.integers(1, 127), st.booleans()), min_size=1, max_size=60)
    ):
        if moves_pedal:
            events.append((wait, (0xB0, 64, velocity)))
        elif pitch in down:
            events.append((wait, draw(st.sampled_from([(0x80, pitch, velocity), (0x90, pitch, 0)]))))
        else:
            events.append((wait, (0x90, pitch, velocity)))
        if not moves_pedal:
            down ^= {pitch}
    return events + [(7, (0x80, pitch, 0)) for pitch in sorted(down)]


@bounded
@given(plain_music())
def test_plain_music_is_read_by_the_fast_reader(events: list[tuple[int, tuple[int, int, int]]]) -> None:
    performance = decode(midi_bytes(track_bytes(events)))
    fast = to_actions_fast(performance)
    assert fast is not None
    assert same(fast, actions_of(to_timed_actions(performance)))


NOT_PLAIN = {
    "two channels": [(0, (0x90, 60, 64)), (9, (0x80, 60, 0)), (0, (0x91, 62, 64)), (9, (0x81, 62, 0))],
    "struck while it is down": [(0, (0x90, 60, 64)), (9, (0x90, 60, 64)), (9, (0x80, 60, 0)), (9, (0x80, 60, 0))],
    "released while it is up": [(0, (0x80, 60, 0)), (9, (0x90, 60, 64)), (9, (0x80, 60, 0)), (9, (0x80, 60, 0))],
    "never released": [(0, (0x90, 60, 64)), (9, (0x90, 62, 64)), (9, (0x80, 60, 0))],
    "released by the other key": [(0, (0x90, 60, 64)), (9, (0x80, 62, 0))],
    "all notes off": [(0, (0x90, 60, 64)), (9, (0xB0, 123, 0)), (9, (0x80, 60, 0))],
    "controllers reset": [(0, (0xB0, 64, 127)), (9, (0xB0, 121, 0))],
    "a damaged key": [(0, (0x90, 200, 64)), (0, (0x80, 200, 64))],
    "nothing": [],
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_other_music_is_read_message_by_message(name: str) -> None:
    performance = decode(midi_bytes(track_bytes(NOT_PLAIN[name])))
    assert to_actions_fast(performance) is None
    assert same(to_actions(performance), actions_of(to_timed_actions(performance)))


def notes_of(timed: list[Timed]) -> list[tuple[int, int, int, int]]:
    """Start and end in milliseconds, pitch, velocity."""
    began: dict[int, tuple[int, int]] = {}
    notes = []
    for one in timed:
        if one.action < NOTE_OFF:
            began[one.action] = (round(one.time * 1000), one.velocity)
        elif one.action < SUSTAIN_DOWN:
            start, velocity = began.pop(one.action - NOTE_OFF)
            notes.append((start, round(one.time * 1000), one.action - NOTE_OFF, velocity))
    return sorted(notes)


@bounded
@given(plain_music())
def test_mido_and_symusic_read_the_same_notes(scratch: Path, events: list[tuple[int, tuple[int, int, int]]]) -> None:
    """Independent readers, on music that all of them read: no note has the length 0."""
    scratch.write_bytes(midi_bytes(track_bytes((2 * wait + 2, message) for wait, message in events), division=500))
    ours = notes_of(read_file(scratch))
    now, reader = 0.0, MessageReader()
    timed: list[Timed] = []
    for message in mido.MidiFile(scratch):
        now += message.time
        timed += reader.feed(now, message.bytes()) if not message.is_meta else []
    assert notes_of(timed) == ours
    theirs = [note for track in symusic.Score(scratch, ttype="second").tracks for note in track.notes]
    assert sorted((round(n.start * 1000), round(n.end * 1000), n.pitch, n.velocity) for n in theirs) == ours


# --- equal to a live session -----------------------------------------------------------------------------------------


def write(path: Path, *tracks: list[tuple[int, tuple[int, ...]]]) -> Path:
    """Waits in milliseconds."""
    path.write_bytes(midi_bytes(*map(track_bytes, tracks), division=500))
    return path


def test_long_silences_are_encoded_as_in_a_live_session(tmp_path: Path) -> None:
    night = 9 * 3600 * 1000 + 123
    waits = [gap for gap in (0, 333, night, 4996, 5004, 5006, 777) for gap in (gap, 126)]
    notes = [(wait, (0x90, 60, 64 * (1 - i % 2))) for i, wait in enumerate(waits)]
    path = write(tmp_path / "a.mid", notes)
    encoded = encode_arrays(*prepare_actions(parse(path), "events"))
    timeline = Timeline(Engine(ToyRuntime()))
    timeline.absorb(read_file(path))
    assert [Event(*row) for row in encoded.tolist()] == list(timeline.engine._history)
    assert np.count_nonzero(encoded[:, 1] == REST) == 4 * 4, "five seconds of silence, four times"


def test_layered_notes_and_fluctuating_pedals_are_read_as_in_a_live_session(tmp_path: Path) -> None:
    layered = [
        ((1, wait)[channel == 0], (status | channel, 60 + i, 64))
        for i in range(20)
        for status, wait in ((0x90, 100), (0x80, 60))
        for channel in (0, 1)
    ]
    fluctuating = [(30, (0xB0, 64, 62 + i % 4)) for i in range(200)]
    parsed = parse(write(tmp_path / "a.mid", layered, fluctuating))
    assert np.count_nonzero(parsed.actions < NOTE_OFF) == 20
    assert np.count_nonzero(parsed.actions == SUSTAIN_DOWN) == 1
    assert same(parsed, actions_of(read_file(tmp_path / "a.mid")))
