"""Raw messages and files: whatever comes in, clean actions come out, or one line that says why not."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import mido
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import LONGEST, MAX_FILE_BYTES, MessageReader, MidiFileError, message_of, read_file, write_file
from tests.music import improvise_timed

bounded = settings(max_examples=100, deadline=None, derandomize=True)


def on(pitch: int, velocity: int = 64, channel: int = 0) -> list[int]:
    return [0x90 | channel, pitch, velocity]


def off(pitch: int, channel: int = 0) -> list[int]:
    return [0x80 | channel, pitch, 64]


def control(number: int, value: int, channel: int = 0) -> list[int]:
    return [0xB0 | channel, number, value]


def actions(reader: MessageReader, *messages: Sequence[int]) -> list[list[int]]:
    """What each message gives, without times."""
    return [[one.action for one in reader.feed(0.0, message)] for message in messages]


class Piano:
    """Fails as soon as an action is impossible on a piano."""

    def __init__(self) -> None:
        self.down: set[int] = set()
        self.pedal = False

    def play(self, timed: Iterable[Timed]) -> None:
        for one in timed:
            if one.action < NOTE_OFF:
                assert one.action not in self.down
                assert 1 <= one.velocity <= 127
                self.down.add(one.action)
            elif one.action < SUSTAIN_DOWN:
                self.down.remove(one.action - NOTE_OFF)
            else:
                assert one.action in (SUSTAIN_DOWN, SUSTAIN_UP)
                assert self.pedal != (one.action == SUSTAIN_DOWN)
                self.pedal = one.action == SUSTAIN_DOWN


# --- MessageReader ---------------------------------------------------------------------------------------------------


def test_notes_keep_time_pitch_and_velocity() -> None:
    reader = MessageReader()
    assert reader.feed(1.5, on(60, 99)) == [Timed(1.5, NOTE_ON + 60, 99)]
    assert reader.held == {60}
    assert reader.feed(2.5, off(60)) == [Timed(2.5, NOTE_OFF + 60)]
    assert reader.held == frozenset()


def test_note_on_with_velocity_zero_is_a_note_off() -> None:
    assert actions(MessageReader(), on(60), on(60, 0), on(60, 0)) == [[NOTE_ON + 60], [NOTE_OFF + 60], []]


def test_a_strike_of_a_sounding_key_closes_it_first() -> None:
    reader = MessageReader()
    assert actions(reader, on(60), on(60), off(60), off(60)) == [
        [NOTE_ON + 60],
        [NOTE_OFF + 60, NOTE_ON + 60],
        [NOTE_OFF + 60],
        [],
    ]


def test_a_key_held_on_two_channels_sounds_until_the_last_lets_go() -> None:
    for first, second in ((0, 5), (5, 0)):
        reader = MessageReader()
        assert actions(reader, on(60), on(60, 64, 5)) == [[NOTE_ON + 60], [NOTE_OFF + 60, NOTE_ON + 60]]
        assert actions(reader, off(60, first), off(60, second)) == [[], [NOTE_OFF + 60]]


@pytest.mark.parametrize("message", [off(60), on(60, 0), off(61), off(60, 3)])
def test_stray_note_offs_give_nothing(message: list[int]) -> None:
    reader = MessageReader()
    reader.feed(0.0, on(62))
    assert reader.feed(0.0, message) == []
    assert reader.held == {62}


def test_a_note_off_on_another_channel_does_not_release() -> None:
    reader = MessageReader()
    assert actions(reader, on(60, 64, 1), off(60, 2), off(60, 1)) == [[NOTE_ON + 60], [], [NOTE_OFF + 60]]


def test_the_pedal_flips_at_64() -> None:
    values = [0, 63, 64, 100, 127, 64, 63, 1, 0, 127]
    given_ = actions(MessageReader(), *(control(64, value) for value in values))
    assert given_ == [[], [], [SUSTAIN_DOWN], [], [], [], [SUSTAIN_UP], [], [], [SUSTAIN_DOWN]]


def test_the_pedal_is_down_while_any_channel_holds_it() -> None:
    reader = MessageReader()
    messages = [control(64, 127), control(64, 127, 1), control(64, 0), control(64, 0, 2), control(64, 0, 1)]
    assert actions(reader, *messages) == [[SUSTAIN_DOWN], [], [], [], [SUSTAIN_UP]]
    assert not reader.pedal


@pytest.mark.parametrize("number", [120, 123])
def test_sound_off_and_notes_off_release_their_channel_only(number: int) -> None:
    reader = MessageReader()
    actions(reader, on(64), on(60), on(67, 64, 1), on(60, 64, 1), control(64, 127))
    assert actions(reader, control(number, 0)) == [[NOTE_OFF + 64]]  # 60 is held by channel 1 as well
    assert reader.held == {60, 67}
    assert reader.pedal
    assert sorted(actions(reader, control(number, 0, 1))[0]) == [NOTE_OFF + 60, NOTE_OFF + 67]


def test_reset_controllers_lifts_the_pedal_of_its_channel_and_keeps_the_keys() -> None:
    reader = MessageReader()
    actions(reader, on(60), control(64, 127), control(64, 127, 1))
    assert actions(reader, control(121, 127), control(121, 0, 1), control(121, 0)) == [[], [SUSTAIN_UP], []]
    assert reader.held == {60}


def test_drums_are_left_out_on_request() -> None:
    assert actions(MessageReader(drums=False), on(60, 64, 9), control(64, 127, 9), on(60)) == [[], [], [NOTE_ON + 60]]
    assert actions(MessageReader(), on(60, 64, 9)) == [[NOTE_ON + 60]]


def test_close_releases_keys_and_pedal_once() -> None:
    reader = MessageReader()
    actions(reader, on(64), on(60), on(60, 64, 3), control(64, 127), control(64, 127, 4))
    closed = reader.close(9.0)
    assert sorted(one.action for one in closed) == [NOTE_OFF + 60, NOTE_OFF + 64, SUSTAIN_UP]
    assert {one.time for one in closed} == {9.0}
    assert reader.close(10.0) == []
    assert (reader.held, reader.pedal) == (frozenset(), False)


@pytest.mark.parametrize(
    "message",
    [
        [],
        [0x90],
        [0x90, 60],
        [0x80, 60],
        [0xB0, 64],
        [0x90, 128, 64],
        [0x90, 60, 128],
        [0x90, 60, 255],
        [0x90, -1, 64],
        [0x90, 60, -5],
        [0xB0, 64, 200],
        [60, 64],
        [60, 64, 64],
        [0xF0, 60, 64, 0xF7],
        [0xF0],
        [0xF8],
        [0xFE],
        [0xFF, 60, 64],
        [0xC0, 5],
        [0xD0, 100],
        [0xE0, 0, 64],
        [0xA0, 60, 64],
        [300, 60, 64],
        [-1, 60, 64],
        [0x90, 62, 64, 64],
        [0x90, 62, 64, 0x90, 64, 64],
        [0x80, 60, 64, 64],
    ],
    ids=str,
)
def test_what_is_no_music_gives_nothing(message: list[int]) -> None:
    reader = MessageReader()
    actions(reader, on(60), control(64, 127))
    assert reader.feed(1.0, message) == []
    assert reader.held == {60}
    assert reader.pedal


CHANNEL_MESSAGES = st.tuples(
    st.sampled_from([0x80, 0x90, 0x90, 0xA0, 0xB0, 0xC0, 0xE0]), st.integers(0, 2), st.integers(58, 62), st.integers(0, 127)
).map(lambda drawn: [drawn[0] | drawn[1], drawn[2], drawn[3]])
CONTROL_CHANGES = st.tuples(st.integers(0, 2), st.sampled_from([64, 120, 121, 123, 1]), st.integers(0, 127)).map(
    lambda drawn: [0xB0 | drawn[0], drawn[1], drawn[2]]
)


@bounded
@given(st.lists(st.one_of(CHANNEL_MESSAGES, CONTROL_CHANGES, st.lists(st.integers(-3, 300), max_size=5)), max_size=60))
def test_any_bytes_give_clean_actions(messages: list[list[int]]) -> None:
    reader, piano = MessageReader(), Piano()
    for i, message in enumerate(messages):
        timed = reader.feed(i / 10, message)
        assert all(one.time == i / 10 for one in timed)
        piano.play(timed)
        assert (reader.held, reader.pedal) == (piano.down, piano.pedal)
    piano.play(reader.close(100.0))
    assert (piano.down, piano.pedal) == (set(), False)


def test_every_action_has_its_message_and_reads_back() -> None:
    for pitch in (0, 60, 127):
        assert message_of(NOTE_ON + pitch, 77, 3) == (0x93, pitch, 77)
        assert message_of(NOTE_OFF + pitch, 0, 3)[:2] == (0x83, pitch)
    assert message_of(NOTE_ON + 60, 0)[2] == 1  # velocity 0 would be a note-off
    assert message_of(NOTE_ON + 60, 500)[2] == 127
    reader = MessageReader()
    assert actions(reader, message_of(SUSTAIN_DOWN, 0, 2), message_of(SUSTAIN_UP, 0, 2)) == [[SUSTAIN_DOWN], [SUSTAIN_UP]]
    with pytest.raises(ValueError, match="no MIDI message"):
        message_of(258, 0)


# --- files -----------------------------------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack(">L", len(data)) + data


def midi_bytes(*tracks: bytes, kind: int = 1, division: int = 480) -> bytes:
    end = b"\x00\xff\x2f\x00"
    return chunk(b"MThd", struct.pack(">HHH", kind, len(tracks), division)) + b"".join(chunk(b"MTrk", t + end) for t in tracks)


@pytest.fixture
def midi(tmp_path: Path) -> Path:
    return tmp_path / "music.mid"


def read_bytes(path: Path, data: bytes) -> list[Timed]:
    path.write_bytes(data)
    return read_file(path)


def test_tempo_changes_count_from_where_they_stand(midi: Path) -> None:
    tempo = mido.MidiTrack(
        [
            mido.MetaMessage("set_tempo", tempo=500_000, time=0),
            mido.MetaMessage("set_tempo", tempo=1_000_000, time=480),
            mido.MetaMessage("set_tempo", tempo=250_000, time=480),
        ]
    )
    notes = mido.MidiTrack([mido.Message("note_on", note=60, velocity=50, time=240), mido.Message("note_off", note=60, time=480)])
    notes += [mido.Message("note_on", note=62, velocity=50, time=480), mido.Message("note_off", note=62, time=240)]
    mido.MidiFile(tracks=[tempo, notes], ticks_per_beat=480).save(midi)
    # beats 0.5, 1.5, 2.5, 3.0 at 0.5 s, 1 s and 0.25 s a beat
    assert [one.time for one in read_file(midi)] == pytest.approx([0.25, 1.0, 1.625, 1.75])


def test_tracks_are_merged_in_time_order(midi: Path) -> None:
    left = b"\x00\x90\x30\x40" + b"\x87\x40\x80\x30\x40"  # 960 ticks
    right = b"\x83\x60\x91\x48\x50" + b"\x83\x60\x81\x48\x40"  # 480 ticks each
    timed = read_bytes(midi, midi_bytes(left, right))
    assert [(one.time, one.action, one.velocity) for one in timed if one.action < NOTE_OFF] == [(0.0, 48, 64), (0.5, 72, 80)]
    assert sorted((one.time, one.action) for one in timed if one.action >= NOTE_OFF) == [(1.0, 176), (1.0, 200)]


def test_running_status(midi: Path) -> None:
    track = b"\x00\x90\x3c\x40" + b"\x60\x3e\x41" + b"\x60\x3c\x00" + b"\x60\x3e\x00"
    timed = read_bytes(midi, midi_bytes(track, division=96))
    assert [(one.time, one.action, one.velocity) for one in timed] == [(0, 60, 64), (0.5, 62, 65), (1.0, 188, 0), (1.5, 190, 0)]


def test_hanging_notes_and_pedal_are_closed_at_the_end(midi: Path) -> None:
    track = b"\x00\x90\x3c\x40" + b"\x00\xb0\x40\x7f" + b"\x60\x90\x3e\x40" + b"\x60\x80\x3e\x00"
    timed = read_bytes(midi, midi_bytes(track, division=96))
    assert timed[-3] == Timed(1.0, NOTE_OFF + 62)
    assert sorted(timed[-2:]) == [Timed(1.0, NOTE_OFF + 60), Timed(1.0, SUSTAIN_UP)]


def test_drums_are_skipped_unless_asked_for(midi: Path) -> None:
    track = b"\x00\x99\x24\x40" + b"\x00\x90\x3c\x40" + b"\x60\x89\x24\x40" + b"\x00\x80\x3c\x40"
    assert [one.action for one in read_bytes(midi, midi_bytes(track))] == [NOTE_ON + 60, NOTE_OFF + 60]
    assert [one.action for one in read_file(midi, drums=True)] == [NOTE_ON + 36, NOTE_ON + 60, NOTE_OFF + 36, NOTE_OFF + 60]


def test_other_messages_do_not_disturb(midi: Path) -> None:
    track = b"\x00\xf0\x05\x7e\x7f\x09\x01\xf7" + b"\x00\xc0\x05" + b"\x00\xe0\x00\x40" + b"\x60\x90\x3c\x40" + b"\x60\xd0\x40"
    track += b"\x00\xff\x05\x03la\xe9" + b"\x60\x80\x3c\x40"
    assert read_bytes(midi, midi_bytes(track, division=96)) == [Timed(0.5, NOTE_ON + 60, 64), Timed(1.5, NOTE_OFF + 60)]


def test_smpte_time_is_read_or_refused_but_never_runs_backwards(midi: Path) -> None:
    track = b"\x00\x90\x3c\x40" + b"\x64\x80\x3c\x40"  # 100 ticks at 25 frames of 40 ticks
    try:
        timed = read_bytes(midi, midi_bytes(track, division=(256 - 25) << 8 | 40))
    except MidiFileError:
        return
    assert [one.time for one in timed] == pytest.approx([0.0, 0.1])


GOOD = midi_bytes(b"\x00\x90\x3c\x40" + b"\x60\xb0\x40\x7f" + b"\x60\x80\x3c\x40" + b"\x60\xb0\x40\x00")
BROKEN = {
    "empty": b"",
    "text": b"this is no music",
    "zeros": bytes(1000),
    "header cut": GOOD[:9],
    "track header cut": GOOD[:18],
    "track cut": GOOD[:-7],
    "no track name": GOOD.replace(b"MTrk", b"MTrx"),
    "claims 32767 tracks": GOOD[:10] + b"\x7f\xff" + GOOD[12:],
    "claims a huge track": GOOD[:18] + b"\x7f\xff\xff\xff" + GOOD[22:],
    "claims a huge text": midi_bytes(b"\x00\xff\x01\xff\xff\xff\x7fx"),
    "claims a huge sysex": midi_bytes(b"\x00\xf0\xff\xff\xff\x7fx"),
    "no ticks in a beat": midi_bytes(b"\x10\x90\x3c\x40", division=0),
    "running status of nothing": midi_bytes(b"\x00\x3c\x40"),
    "tempo without bytes": midi_bytes(b"\x00\xff\x51\x00"),
}


def refusal(path: Path) -> str:
    with pytest.raises(MidiFileError) as caught:
        read_file(path)
    return str(caught.value)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_one_line(name: str, midi: Path) -> None:
    midi.write_bytes(BROKEN[name])
    message = refusal(midi)
    assert "\n" not in message
    assert str(midi) in message
    assert not message.endswith("()"), "says nothing about the reason"


def test_missing_files_and_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nowhere.mid")
    assert "\n" not in refusal(tmp_path)


def test_a_file_beyond_the_limit_is_not_even_opened(midi: Path) -> None:
    with midi.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # sparse
    began = time.process_time()
    assert "larger than 4 MB" in refusal(midi)
    assert time.process_time() - began < 0.5


def test_a_file_that_lasts_longer_than_a_day_is_refused(midi: Path) -> None:
    """A few bytes can claim years, and every second of them would become an event."""
    far = b"\xff\xff\xff\x7f"  # 268,435,455 ticks
    for division, read in ((480, False), (4000, True)):
        midi.write_bytes(midi_bytes(b"\x00\x90\x3c\x40" + far + b"\x80\x3c\x40", division=division))
        if read:
            assert read_file(midi)[-1].time < LONGEST
        else:
            assert "24 hours" in refusal(midi)


def test_an_endless_number_is_refused_in_linear_time(midi: Path) -> None:
    midi.write_bytes(midi_bytes(b"\xff" * 200_000))
    began = time.process_time()
    refusal(midi)
    assert time.process_time() - began < 1.5


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("midi") / "scratch.mid"


@pytest.fixture(scope="module")
def valid(scratch: Path) -> bytes:
    write_file(scratch, [("you", improvise_timed(30, seed=5)), ("machine", improvise_timed(30, seed=6))])
    return scratch.read_bytes()


def check_read_or_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    began = time.process_time()
    try:
        timed = read_file(path)
    except MidiFileError as error:
        assert "\n" not in str(error)
    else:
        piano = Piano()
        piano.play(timed)
        assert (piano.down, piano.pedal) == (set(), False)
        assert all(a.time <= b.time for a, b in itertools.pairwise(timed))
    assert time.process_time() - began < 2


@bounded
@given(cut=st.floats(0, 1))
def test_truncated_files_are_read_or_refused(cut: float, scratch: Path, valid: bytes) -> None:
    check_read_or_refused(scratch, valid[: int(cut * len(valid))])


@settings(bounded, max_examples=300)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files_are_read_or_refused(flips: list[tuple[float, int]], scratch: Path, valid: bytes) -> None:
    data = bytearray(valid)
    for where, byte in flips:
        data[int(where * len(data))] = byte
    check_read_or_refused(scratch, bytes(data))


@bounded
@given(st.binary(max_size=60), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(scratch: Path, header: bytes, track: bytes) -> None:
    check_read_or_refused(scratch, header + track)
    check_read_or_refused(scratch, midi_bytes(track))


def closed(timed: list[Timed]) -> list[Timed]:
    """The same with every note and the pedal released at the end, times in whole milliseconds."""
    timed = [Timed(round(one.time, 3), one.action, one.velocity) for one in timed]
    reader = MessageReader()
    for one in timed:
        reader.feed(one.time, message_of(one.action, one.velocity))
    return timed + reader.close(timed[-1].time + 1)


@pytest.mark.parametrize("seed", range(4))
def test_a_written_file_reads_back_the_same(seed: int, midi: Path) -> None:
    timed = closed(improvise_timed(300, seed=seed))
    write_file(midi, [("you", timed)])
    back = read_file(midi)
    assert [(one.action, one.velocity) for one in back] == [(one.action, one.velocity) for one in timed]
    assert [one.time for one in back] == pytest.approx([one.time for one in timed], abs=1e-6)


def test_two_tracks_keep_their_names_and_both_their_notes(midi: Path) -> None:
    you = [Timed(0.0, NOTE_ON + 60, 50), Timed(1.0, NOTE_OFF + 60)]
    machine = [Timed(0.5, NOTE_ON + 72, 90), Timed(1.5, NOTE_OFF + 72)]
    write_file(midi, [("you", you), ("machine", machine)])
    assert [track.name for track in mido.MidiFile(midi).tracks] == ["you", "machine"]
    back = read_file(midi)
    assert [(one.action, one.velocity) for one in back] == [(60, 50), (72, 90), (NOTE_OFF + 60, 0), (NOTE_OFF + 72, 0)]
    assert [one.time for one in back] == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_a_written_file_has_no_drift_over_hours(midi: Path) -> None:
    timed = [Timed(i * 7.0007, NOTE_ON + 60 if i % 2 == 0 else NOTE_OFF + 60, 64 * (1 - i % 2)) for i in range(2000)]
    write_file(midi, [("long", timed)])
    assert max(abs(a.time - b.time) for a, b in zip(read_file(midi), timed, strict=True)) <= 0.0005 + 1e-6
