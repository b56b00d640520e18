"""MIDI files: any content gives valid actions or a one-line error."""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path

import mido
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_UP, Timed
from engine.midi import MessageReader, message_of
from engine.midi_file import LONGEST, MAX_FILE_BYTES, MidiFileError, read_file, write_file
from tests.midi_files import END, chunk, header, midi_bytes, riff, track_bytes
from tests.music import Piano, improvise_timed

bounded = settings(max_examples=100, deadline=None, derandomize=True)


@pytest.fixture
def midi(tmp_path: Path) -> Path:
    return tmp_path / "music.mid"


def read_bytes(path: Path, data: bytes) -> list[Timed]:
    path.write_bytes(data)
    return read_file(path)


def test_tempo_changes_apply_from_their_position(midi: Path) -> None:
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


def test_running_status_is_read(midi: Path) -> None:
    track = b"\x00\x90\x3c\x40" + b"\x60\x3e\x41" + b"\x60\x3c\x00" + b"\x60\x3e\x00"
    timed = read_bytes(midi, midi_bytes(track, division=96))
    assert [(one.time, one.action, one.velocity) for one in timed] == [(0, 60, 64), (0.5, 62, 65), (1.0, 188, 0), (1.5, 190, 0)]


def test_hanging_notes_and_pedal_are_released_at_the_end(midi: Path) -> None:
    track = b"\x00\x90\x3c\x40" + b"\x00\xb0\x40\x7f" + b"\x60\x90\x3e\x40" + b"\x60\x80\x3e\x00"
    timed = read_bytes(midi, midi_bytes(track, division=96))
    assert timed[-3] == Timed(1.0, NOTE_OFF + 62)
    assert sorted(timed[-2:]) == [Timed(1.0, NOTE_OFF + 60), Timed(1.0, SUSTAIN_UP)]


def test_drums_are_skipped_by_default(midi: Path) -> None:
    track = b"\x00\x99\x24\x40" + b"\x00\x90\x3c\x40" + b"\x60\x89\x24\x40" + b"\x00\x80\x3c\x40"
    assert [one.action for one in read_bytes(midi, midi_bytes(track))] == [NOTE_ON + 60, NOTE_OFF + 60]
    assert [one.action for one in read_file(midi, drums=True)] == [NOTE_ON + 36, NOTE_ON + 60, NOTE_OFF + 36, NOTE_OFF + 60]


def test_other_messages_are_ignored(midi: Path) -> None:
    track = b"\x00\xf0\x05\x7e\x7f\x09\x01\xf7" + b"\x00\xc0\x05" + b"\x00\xe0\x00\x40" + b"\x60\x90\x3c\x40" + b"\x60\xd0\x40"
    track += b"\x00\xff\x05\x03la\xe9" + b"\x60\x80\x3c\x40"
    assert read_bytes(midi, midi_bytes(track, division=96)) == [Timed(0.5, NOTE_ON + 60, 64), Timed(1.5, NOTE_OFF + 60)]


def test_smpte_time_is_read_or_refused(midi: Path) -> None:
    track = b"\x00\x90\x3c\x40" + b"\x64\x80\x3c\x40"  # 100 ticks at 25 frames of 40 ticks
    try:
        timed = read_bytes(midi, midi_bytes(track, division=(256 - 25) << 8 | 40))
    except MidiFileError:
        return
    assert [one.time for one in timed] == pytest.approx([0.0, 0.1])


GOOD = midi_bytes(b"\x00\x90\x3c\x40" + b"\x60\xb0\x40\x7f" + b"\x60\x80\x3c\x40" + b"\x60\xb0\x40\x00")
INVALID = {
    "empty": b"",
    "text": b"this is no music",
    "zeros": bytes(1000),
    "header cut": GOOD[:9],
    "track header cut": GOOD[:18],
    "no track name": GOOD.replace(b"MTrk", b"MTrx"),
    "claims a huge text": midi_bytes(b"\x00\xff\x01\xff\xff\xff\x7fx"),
    "claims a huge sysex": midi_bytes(b"\x00\xf0\xff\xff\xff\x7fx"),
    "no ticks in a beat": midi_bytes(b"\x10\x90\x3c\x40", division=0),
    "running status of nothing": midi_bytes(b"\x00\x3c\x40"),
    "RIFF of something else": b"RIFF\x10\x00\x00\x00WAVEdata\x04\x00\x00\x00MThd",
}


def check_refused(path: Path) -> str:
    with pytest.raises(MidiFileError) as caught:
        read_file(path)
    return str(caught.value)


@pytest.mark.parametrize("name", INVALID)
def test_invalid_files_are_refused_in_one_line(name: str, midi: Path) -> None:
    midi.write_bytes(INVALID[name])
    message = check_refused(midi)
    assert "\n" not in message
    assert str(midi) in message
    assert not message.endswith("()"), "the message has no reason"


def test_missing_files_and_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    assert "No such file" in check_refused(tmp_path / "nowhere.mid")
    assert "\n" not in check_refused(tmp_path)


@pytest.mark.parametrize("size", [MAX_FILE_BYTES + 1, 3 << 30])
def test_a_file_over_the_size_limit_is_refused_without_reading_all_of_it(midi: Path, size: int) -> None:
    with midi.open("wb") as file:
        file.truncate(size)  # sparse
    began = time.process_time()
    assert "larger than 4 MB" in check_refused(midi)
    assert time.process_time() - began < 0.5


def test_a_file_that_lasts_longer_than_a_day_is_refused(midi: Path) -> None:
    """A few bytes can encode a duration of years, and every second of it would become an event."""
    far = b"\xff\xff\xff\x7f"  # 268,435,455 ticks
    for division, read in ((480, False), (4000, True)):
        midi.write_bytes(midi_bytes(b"\x00\x90\x3c\x40" + far + b"\x80\x3c\x40", division=division))
        if read:
            assert read_file(midi)[-1].time < LONGEST
        else:
            assert "24 hours" in check_refused(midi)


def test_an_unterminated_variable_length_number_is_refused_in_linear_time(midi: Path) -> None:
    midi.write_bytes(midi_bytes(b"\xff" * 200_000))
    began = time.process_time()
    check_refused(midi)
    assert time.process_time() - began < 1.5


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("midi") / "scratch.mid"


@pytest.fixture(scope="module")
def valid(scratch: Path) -> bytes:
    write_file(scratch, [("human", improvise_timed(30, seed=5)), ("machine", improvise_timed(30, seed=6))])
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
def test_a_written_file_is_read_back_unchanged(seed: int, midi: Path) -> None:
    timed = closed(improvise_timed(300, seed=seed))
    write_file(midi, [("human", timed)])
    back = read_file(midi)
    assert [(one.action, one.velocity) for one in back] == [(one.action, one.velocity) for one in timed]
    assert [one.time for one in back] == pytest.approx([one.time for one in timed], abs=1e-6)


def test_two_tracks_keep_their_names_and_notes(midi: Path) -> None:
    you = [Timed(0.0, NOTE_ON + 60, 50), Timed(1.0, NOTE_OFF + 60)]
    machine = [Timed(0.5, NOTE_ON + 72, 90), Timed(1.5, NOTE_OFF + 72)]
    write_file(midi, [("human", you), ("machine", machine)])
    assert [track.name for track in mido.MidiFile(midi).tracks] == ["human", "machine"]
    back = read_file(midi)
    assert [(one.action, one.velocity) for one in back] == [(60, 50), (72, 90), (NOTE_OFF + 60, 0), (NOTE_OFF + 72, 0)]
    assert [one.time for one in back] == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_a_written_file_has_no_drift_over_hours(midi: Path) -> None:
    timed = [Timed(i * 7.0007, NOTE_ON + 60 if i % 2 == 0 else NOTE_OFF + 60, 64 * (1 - i % 2)) for i in range(2000)]
    write_file(midi, [("long", timed)])
    assert max(abs(a.time - b.time) for a, b in zip(read_file(midi), timed, strict=True)) <= 0.0005 + 1e-6


# --- irrelevant content and damage -----------------------------------------------------------------------------------

NOTES = track_bytes([(wait, event) for i in range(20) for wait, event in ((0, (0x90, 50 + i, 64)), (240, (0x80, 50 + i, 0)))])
STRIKES = [(250 * i, 50 + i) for i in range(20)]  # milliseconds


def strikes(timed: list[Timed]) -> list[tuple[int, int]]:
    return [(round(one.time * 1000), one.action) for one in timed if one.action < NOTE_OFF]


def with_events(*events: bytes) -> bytes:
    """The notes after these events, all at time zero."""
    return midi_bytes(b"".join(b"\x00" + event for event in events) + NOTES)


IRRELEVANT = {
    "a key of 8 flats": with_events(b"\xff\x59\x02\xf8\x00"),
    "a key in one byte": with_events(b"\xff\x59\x01\x02"),
    "a metre of 2 bytes": with_events(b"\xff\x58\x02\x04\x02"),
    "a metre over 2 to the 200": with_events(b"\xff\x58\x04\x04\xc8\x18\x08"),
    "an SMPTE offset that is short": with_events(b"\xff\x54\x03\x60\x00\x00"),
    "a sequence number of 3 bytes": with_events(b"\xff\x00\x03\x00\x00\x00"),
    "a channel prefix of no bytes": with_events(b"\xff\x20\x00"),
    "text that is no text": with_events(b"\xff\x01\x04\xff\xfe\x00\x80"),
    "meta events nobody knows": with_events(b"\xff\x7f\x00", b"\xff\x60\x02\x01\x02", b"\xff\xf0\x01\xff"),
    "sysex of any content": with_events(b"\xf0\x05\x90\x3c\x40\xff\xf7", b"\xf0\x00"),
    "sysex in packets": with_events(b"\xf0\x03\x43\x12\x00", b"\xf7\x02\x43\x12", b"\xf7\x02\x01\xf7"),
    "system messages": with_events(b"\xf1\x00", b"\xf2\x01\x02", b"\xf3\x01", b"\xf6", b"\xf8", b"\xfe"),
    "a tempo of zero": with_events(b"\xff\x51\x03\x00\x00\x00"),
    "a tempo in 2 bytes": with_events(b"\xff\x51\x02\x07\xa1"),
    "a tempo in 4 bytes": with_events(b"\xff\x51\x04\x00\x07\xa1\x20"),
    "other channel messages": with_events(b"\xc0\x05", b"\xd0\x05", b"\xe0\x00\x40", b"\xa0\x3c\x05"),
    "a chunk between the tracks": header(2) + chunk(b"MTrk", END) + chunk(b"XFIH", bytes(7)) + chunk(b"MTrk", NOTES + END),
    "a chunk with a track in it": header(1) + chunk(b"Junk", b"MTrk" + bytes(20)) + chunk(b"MTrk", NOTES + END),
    "a longer header": header(1, more=b"\x00\x01\x02\x03") + chunk(b"MTrk", NOTES + END),
    "more tracks claimed": header(9) + chunk(b"MTrk", NOTES + END),
    "fewer tracks claimed": header(0) + chunk(b"MTrk", END) + chunk(b"MTrk", NOTES + END),
    "a format that there is not": header(1, kind=77) + chunk(b"MTrk", NOTES + END),
    "bytes after the end": midi_bytes(NOTES) + b"\x00\x00\r\n TAG",
    "bytes before the header": bytes(128) + midi_bytes(NOTES),
    "no end of track": header(1) + chunk(b"MTrk", NOTES),
    "a length never filled in": header(1) + b"MTrk\x00\x00\x00\x00" + NOTES + END,
    "a length too large": header(1) + b"MTrk\x7f\x00\x00\x00" + NOTES + END,
    "a length too small, another track behind": header(2) + b"MTrk\x00\x00\x00\x1c" + NOTES + END + chunk(b"MTrk", END),
    "RIFF": riff(midi_bytes(NOTES)),
    "RIFF with other chunks": riff(midi_bytes(NOTES), b"LIST\x05\x00\x00\x00MThd!\x00"),
    "RIFF with a bank of sounds behind": riff(midi_bytes(NOTES)) + b"DLS " + bytes(MAX_FILE_BYTES),
}


@pytest.mark.parametrize("name", IRRELEVANT)
def test_irrelevant_content_does_not_change_the_notes(name: str, midi: Path) -> None:
    timed = read_bytes(midi, IRRELEVANT[name])
    assert strikes(timed) == STRIKES
    assert sorted(one.action for one in timed if one.action >= NOTE_OFF) == [NOTE_OFF + pitch for _, pitch in STRIKES]


DAMAGED = {
    "cut off in a message": (midi_bytes(NOTES)[:100], 9),
    "cut off in a track that says so": (header(1) + chunk(b"MTrk", NOTES[:31]), 4),
    "an endless number": (midi_bytes(NOTES + b"\xff" * 10 + NOTES), 20),
    "data without a status, in one of two tracks": (midi_bytes(b"\x00\x3c\x40", NOTES), 20),
    "a text that never ends": (midi_bytes(NOTES + b"\x00\xff\x01\xff\xff\x7f"), 20),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_the_intact_part_of_a_damaged_file_is_read(name: str, midi: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, notes = DAMAGED[name]
    timed = read_bytes(midi, data)
    assert strikes(timed) == STRIKES[:notes]
    piano = Piano()
    piano.play(timed)
    assert not piano.down
    assert [str(midi) in record.getMessage() for record in caplog.records] == [True]


def test_velocities_over_127_are_clamped_and_pitches_over_127_are_ignored(midi: Path) -> None:
    timed = read_bytes(midi, midi_bytes(b"\x00\x90\x3c\xc8" + b"\x00\x90\x80\x40" + b"\x60\x80\x3c\x00"))
    assert [(one.action, one.velocity) for one in timed] == [(NOTE_ON + 60, 127), (NOTE_OFF + 60, 0)]


def test_notes_end_at_all_notes_off_or_at_the_end_of_the_track(midi: Path) -> None:
    track = b"\x00\x90\x3c\x40" + b"\x60\xb0\x7b\x00" + b"\x00\x90\x3e\x40" + b"\x00\x90\x40\x40" + b"\x60\xc0\x00" + b"\x60"
    timed = read_bytes(midi, midi_bytes(track + b"\xff\x2f\x00", division=96))
    assert [(one.time, one.action) for one in timed] == [
        (0.0, NOTE_ON + 60),
        (0.5, NOTE_OFF + 60),
        (0.5, NOTE_ON + 62),
        (0.5, NOTE_ON + 64),
        (1.5, NOTE_OFF + 62),
        (1.5, NOTE_OFF + 64),
    ]


def test_a_late_end_of_track_does_not_prolong_a_hanging_note(midi: Path) -> None:
    assert read_bytes(midi, midi_bytes(b"\x00\x90\x3c\x40" + b"\xff\xff\x7f\xff\x2f\x00"))[-1] == Timed(5.0, NOTE_OFF + 60)


def test_a_key_on_two_channels_at_once_is_one_strike(midi: Path) -> None:
    piano, strings = b"\x00\x90\x3c\x50" + b"\x60\x80\x3c\x00", b"\x01\x91\x3c\x40" + b"\x81\x40\x81\x3c\x00"
    timed = read_bytes(midi, midi_bytes(piano, strings, division=96))
    assert [(one.action, one.velocity) for one in timed] == [(NOTE_ON + 60, 80), (NOTE_OFF + 60, 0)]
    assert timed[1].time == pytest.approx((1 + 192) / 96 / 2)


def test_tracks_of_format_2_are_read_in_sequence(midi: Path) -> None:
    tracks = [b"\x00\x90\x3c\x40" + b"\x60\x80\x3c\x00", b"\x00\x90\x3e\x40" + b"\x60\x80\x3e\x00"]
    timed = read_bytes(midi, midi_bytes(*tracks, kind=2, division=96))
    assert strikes(timed) == [(0, 60), (500, 62)]


@pytest.mark.parametrize(("frames", "rate"), [(24, 24), (25, 25), (29, 30_000 / 1001), (30, 30)])
def test_smpte_time_ignores_the_tempo(midi: Path, frames: int, rate: float) -> None:
    track = b"\x00\xff\x51\x03\x01\x00\x00" + b"\x00\x90\x3c\x40" + b"\x64\x80\x3c\x40"  # 100 ticks
    timed = read_bytes(midi, midi_bytes(track, division=(256 - frames) << 8 | 40))
    assert [one.time for one in timed] == pytest.approx([0.0, 100 / 40 / rate])


@bounded
@given(st.integers(1, 0xFFFFFF), st.integers(1, 0x7FFF))
def test_times_equal_those_of_mido_for_any_tempo_and_division(scratch: Path, tempo: int, division: int) -> None:
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=tempo, time=7)])
    track += [mido.Message("note_on", note=60, velocity=50, time=240), mido.Message("note_off", note=60, time=100)]
    mido.MidiFile(tracks=[track], ticks_per_beat=division).save(scratch)
    first = mido.tick2second(7, division, 500_000) + mido.tick2second(240, division, tempo)
    assert [one.time for one in read_file(scratch)] == pytest.approx([first, first + mido.tick2second(100, division, tempo)])


def test_the_worst_file_of_the_largest_size_is_read_in_bounded_time(midi: Path) -> None:
    midi.write_bytes(midi_bytes((b"\x00\x90" + b"\x00\x3c\x40\x00".join([b"\x3c\x40"] * (MAX_FILE_BYTES // 6)))[:-100]))
    began = time.process_time()
    read_file(midi)
    assert time.process_time() - began < 60


def test_a_pipe_is_read(tmp_path: Path) -> None:
    """Such as the shell's ``<(...)``."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[midi_bytes(NOTES)])
    writer.start()
    timed = read_file(tmp_path / "pipe")
    writer.join()
    assert len(timed) == 40


@pytest.mark.parametrize("name", ["a\0b.mid", "x" * 300 + ".mid", "nowhere/a.mid"])
def test_names_that_cannot_be_opened_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    assert "\n" not in check_refused(tmp_path / name)


def test_delta_times_of_skipped_messages_are_counted(midi: Path) -> None:
    skipped = b"\x08\xf0\x02\x43\x12" + b"\x08\xf7\x02\x01\xf7" + b"\x10\xff\x59\x01\x00" + b"\x20\xc0\x05" + b"\x20\xf8"
    timed = read_bytes(midi, midi_bytes(skipped + b"\x00\x90\x3c\x40" + b"\x60\x80\x3c\x40", division=96))
    assert [one.time for one in timed] == [0.5, 1.0]


def test_any_name_and_any_silence_can_be_written(midi: Path) -> None:
    """A silence of 100 hours is written as the longest delta time of the format, which exceeds the limit for reading."""
    write_file(midi, [("Чайковский \U0001f3b9", [Timed(0.0, NOTE_ON + 60, 64), Timed(1.0, NOTE_OFF + 60)])])
    assert mido.MidiFile(midi).tracks[0].name == "?????????? ?"
    assert len(read_file(midi)) == 2
    write_file(midi, [("long", [Timed(0.0, NOTE_ON + 60, 64), Timed(360_000.0, NOTE_OFF + 60)])])
    assert "24 hours" in check_refused(midi)


@pytest.mark.parametrize("name", IRRELEVANT)
def test_rewritten_files_can_be_read_by_mido(name: str, midi: Path) -> None:
    write_file(midi, [("again", read_bytes(midi, IRRELEVANT[name]))])
    times = itertools.accumulate((message.time for message in mido.MidiFile(midi)), initial=0.0)
    found = [
        (round(time * 1000), message.note)
        for time, message in zip(list(times)[1:], mido.MidiFile(midi), strict=True)
        if message.type == "note_on"
    ]
    assert found == STRIKES
