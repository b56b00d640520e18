"""A folder of MIDI files becomes a packed cache: broken files are reported and skipped, and what is left is what a keyboard
would have sent."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import struct
from pathlib import Path

import mido
import numpy as np
import pytest

pytest.importorskip("symusic")

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import MAX_FILE_BYTES, MessageReader, message_of, read_file, write_file
from tests.music import improvise_timed
from trainer.data import FORMAT, Corpus, DataError, find_files, parse, prepare


def music(count: int, *, seed: int) -> list[Timed]:
    """Legal music on whole milliseconds, everything released at the end."""
    timed = [Timed(round(one.time, 3), one.action, one.velocity) for one in improvise_timed(count, seed=seed)]
    reader = MessageReader()
    for one in timed:
        reader.feed(one.time, message_of(one.action, one.velocity))
    return timed + reader.close(timed[-1].time + 0.5)


def write_messages(path: Path, *tracks: list[tuple[int, list[int]]]) -> None:
    """Tracks of (millisecond, message)."""
    file = mido.MidiFile(type=1, ticks_per_beat=480)
    for number, messages in enumerate(tracks):
        track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=480_000)] if number == 0 else [])
        for now, message in itertools.pairwise([(0, []), *messages]):
            track.append(mido.Message.from_bytes(message[1], time=message[0] - now[0]))
        file.tracks.append(track)
    file.save(path)


def on(pitch: int, channel: int = 0) -> list[int]:
    return [0x90 | channel, pitch, 64]


def off(pitch: int, channel: int = 0) -> list[int]:
    return [0x80 | channel, pitch, 0]


def pedal(value: int, channel: int = 0) -> list[int]:
    return [0xB0 | channel, 64, value]


def by_millisecond(timed: list[Timed]) -> list[tuple[int, list[tuple[int, int]]]]:
    """What happens in each millisecond, in any order."""
    rows = sorted((round(one.time * 1000), one.action, one.velocity) for one in timed)
    return [(time, [row[1:] for row in group]) for time, group in itertools.groupby(rows, key=lambda row: row[0])]


def heard(timed: list[Timed]) -> list[tuple[int, int, int, int]]:
    """(start, end, action, velocity) in milliseconds of every note and pedalling that lasts."""
    began: dict[int, tuple[int, int]] = {}
    rows = []
    for one in timed:
        now, subject = round(one.time * 1000), one.action % 128 if one.action < SUSTAIN_DOWN else SUSTAIN_DOWN
        if one.action < NOTE_OFF or one.action == SUSTAIN_DOWN:
            began[subject] = (now, one.velocity)
        else:
            start, velocity = began.pop(subject)
            rows += [(start, now, subject, velocity)] if now > start else []
    return sorted(rows)


def parsed(path: Path) -> list[Timed]:
    return [Timed(*row) for row in zip(*(part.tolist() for part in parse(path)), strict=True)]


def check_playable(timed: list[Timed]) -> None:
    down: set[int] = set()
    foot = False
    for one in timed:
        if one.action < NOTE_OFF:
            assert one.action not in down, "struck while it sounds"
            down.add(one.action)
        elif one.action < SUSTAIN_DOWN:
            assert one.action - NOTE_OFF in down, "released while it is up"
            down.remove(one.action - NOTE_OFF)
        else:
            assert foot != (one.action == SUSTAIN_DOWN), "the pedal is there already"
            foot = one.action == SUSTAIN_DOWN
    assert not down


# --- parse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_parse_gives_what_the_live_reader_gives(tmp_path: Path, seed: int) -> None:
    write_file(tmp_path / "a.mid", [("piano", music(300, seed=seed))])
    timed = parsed(tmp_path / "a.mid")
    assert by_millisecond(timed) == by_millisecond(read_file(tmp_path / "a.mid"))
    assert all(a.time <= b.time for a, b in itertools.pairwise(timed))
    check_playable(timed)


AWKWARD: dict[str, list[list[tuple[int, list[int]]]]] = {
    "struck again while it sounds": [[(0, on(60)), (100, on(60)), (200, off(60)), (300, off(60))]],
    "two channels, first in first out": [[(0, on(60)), (200, off(60))], [(100, on(60, 1)), (300, off(60, 1))]],
    "two channels, first in last out": [[(0, on(60)), (300, off(60))], [(100, on(60, 1)), (200, off(60, 1))]],
    "two channels in unison": [[(0, on(60)), (200, off(60))], [(0, on(60, 1)), (300, off(60, 1))]],
    "no length, then again": [[(0, on(60)), (0, off(60)), (0, on(60)), (300, off(60))]],
    "no length": [[(0, on(60)), (0, off(60)), (200, on(62)), (300, off(62))]],
    "repeated at once": [[(0, on(60)), (100, off(60)), (100, on(60)), (200, off(60))]],
    "pedal changed at once": [
        [(0, pedal(127)), (5, on(60)), (100, pedal(0)), (100, pedal(127)), (200, off(60)), (300, pedal(0))],
    ],
    "half pedal": [[(0, on(60)), (1, pedal(63)), (2, pedal(64)), (3, pedal(90)), (4, pedal(20)), (100, off(60))]],
    "drums": [[(0, on(60)), (10, on(36, 9)), (20, pedal(127, 9)), (30, off(36, 9)), (100, off(60))]],
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_music_is_playable(tmp_path: Path, name: str) -> None:
    write_messages(tmp_path / "a.mid", *AWKWARD[name])
    check_playable(parsed(tmp_path / "a.mid"))


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_music_is_read_as_the_live_reader_reads_it(tmp_path: Path, name: str) -> None:
    write_messages(tmp_path / "a.mid", *AWKWARD[name])
    assert heard(parsed(tmp_path / "a.mid")) == heard(read_file(tmp_path / "a.mid"))


def test_releases_come_before_strikes_of_the_same_moment(tmp_path: Path) -> None:
    write_messages(tmp_path / "a.mid", [(0, on(60)), (100, on(62)), (100, off(60)), (200, off(62))])
    assert [one.action for one in parsed(tmp_path / "a.mid")] == [NOTE_ON + 60, NOTE_OFF + 60, NOTE_ON + 62, NOTE_OFF + 62]


# --- find_files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "held_out"), [(45, ["19.mid", "39.mid"]), (5, ["04.MIDI"]), (2, ["01.mid"])])
def test_every_twentieth_or_else_the_last_is_held_out_where_there_is_no_official_split(
    tmp_path: Path, count: int, held_out: list[str]
) -> None:
    folder = tmp_path / "data" / "sub"
    folder.mkdir(parents=True)
    for i in range(count):
        write_file(folder / f"{i:02}.{'mid' if i % 2 else 'MIDI'}", [("piano", music(80, seed=i))])
    write_file(folder / "99.mid", [("piano", music(10, seed=0))])  # too short to be used, and so no validation
    (folder / "notes.txt").touch()
    corpus = Corpus(prepare(tmp_path / "data", tmp_path / "cache", workers=1))
    assert [Path(corpus.pieces[i]["name"]).name for i in corpus.split("validation")] == held_out
    assert len(corpus.split("train")) == count - len(held_out)


def write_table(folder: Path, rows: dict[str, str]) -> None:
    with (folder / "maestro-v3.0.0.csv").open("w", newline="", encoding="utf-8") as lines:
        table = csv.DictWriter(lines, ["canonical_composer", "split", "midi_filename"])
        table.writeheader()
        for name, split in rows.items():
            table.writerow({"canonical_composer": "Béla, B.", "split": split, "midi_filename": name})


# --- prepare ---------------------------------------------------------------------------------------------------------

GOOD = {"2004/a.midi": "train", "2004/b.midi": "validation", "2006/c.mid": "test", "2006/d.mid": "train"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maestro")
    for i, name in enumerate(GOOD):
        (folder / name).parent.mkdir(exist_ok=True)
        write_file(folder / name, [("piano", music(80, seed=i))])
    whole = (folder / "2004/a.midi").read_bytes()
    (folder / "empty.mid").touch()
    (folder / "text.mid").write_text("no music at all")
    (folder / "cut.mid").write_bytes(whole[: len(whole) // 2])
    (folder / "claims.mid").write_bytes(whole[:10] + b"\x7f\xff" + whole[12:18] + b"\x7f\xff\xff\xff" + whole[22:])
    write_file(folder / "few.mid", [("piano", music(10, seed=9))])
    write_table(folder, GOOD)
    return folder


@pytest.fixture(scope="module")
def cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(folder, tmp_path_factory.mktemp("cache"), workers=1)


def test_broken_files_are_skipped_and_reported(cache: Path) -> None:
    index = json.loads((cache / "index.json").read_text())
    assert sorted(piece["name"] for piece in index["pieces"]) == sorted(GOOD)
    reasons = dict(line.split(": ", 1) for line in index["skipped"])
    assert sorted(reasons) == ["claims.mid", "cut.mid", "empty.mid", "few.mid", "text.mid"]
    assert "16 notes" in reasons["few.mid"]
    assert all(reasons.values())


def test_official_splits_are_kept(cache: Path) -> None:
    corpus = Corpus(cache)
    for split in ("train", "validation", "test"):
        names = [corpus.pieces[i]["name"] for i in corpus.split(split)]
        assert sorted(names) == sorted(name for name, where in GOOD.items() if where == split)


def test_packed_pieces_are_what_was_parsed(folder: Path, cache: Path) -> None:
    corpus = Corpus(cache)
    for i, piece in enumerate(corpus.pieces):
        original, packed = parse(folder / piece["name"]), corpus.actions(i)
        assert corpus.length(i) == len(packed.times) == len(original.times)
        assert np.abs(packed.times - (original.times - original.times[0])).max() <= 0.0001
        assert np.array_equal(packed.actions, original.actions)
        assert np.array_equal(packed.velocities, original.velocities)


def test_the_same_folder_uses_the_cache_again(folder: Path, cache: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert prepare(folder, cache.parent, workers=1) == cache
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before


def small_folder(folder: Path) -> Path:
    folder.mkdir()
    write_file(folder / "a.mid", [("piano", music(80, seed=1))])
    return folder


def test_a_changed_folder_is_prepared_anew_and_an_unfinished_cache_is_completed(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "data")
    first = prepare(folder, tmp_path / "cache", workers=1)
    (first / "index.json").unlink()  # as if it had been interrupted
    (first / "actions.npy").write_bytes(b"half")
    assert prepare(folder, tmp_path / "cache", workers=1) == first
    assert len(Corpus(first).pieces) == 1
    write_file(folder / "b.mid", [("piano", music(80, seed=2))])
    second = prepare(folder, tmp_path / "cache", workers=1)
    assert second != first
    assert [piece["name"] for piece in Corpus(second).pieces] == ["a.mid", "b.mid"]


def test_a_file_of_the_same_size_but_other_music_is_prepared_anew(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "data")
    first = prepare(folder, tmp_path / "cache", workers=1)
    data = (folder / "a.mid").read_bytes()
    at = data.index(b"\x90")
    (folder / "a.mid").write_bytes(data[: at + 2] + bytes([data[at + 2] ^ 1]) + data[at + 3 :])  # another velocity
    second = prepare(folder, tmp_path / "cache", workers=1)
    assert Corpus(second).actions(0).velocities.tolist() == parse(folder / "a.mid").velocities.tolist()
    assert second != first


def test_an_enormous_gap_in_a_file_does_not_stop_the_rest(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "data")
    notes = b"".join(b"\x01\x90" + bytes([60 + i, 64]) + b"\x01\x80" + bytes([60 + i, 0]) for i in range(20))
    slow = b"\x00\xff\x51\x03\xff\xff\xff" + notes + b"\xff\xff\xff\x7f\x90\x3c\x40" + b"\x01\x80\x3c\x40" + b"\x00\xff\x2f\x00"
    header = b"MThd" + struct.pack(">LHHH", 6, 0, 1, 1)  # one tick a beat, 17 seconds a beat
    (folder / "b.mid").write_bytes(header + b"MTrk" + struct.pack(">L", len(slow)) + slow)
    corpus = Corpus(prepare(folder, tmp_path / "cache", workers=1))
    assert corpus.pieces[0]["name"] == "a.mid"
    for i in range(len(corpus.pieces)):
        assert (np.diff(corpus.actions(i).times) >= 0).all()


def test_a_folder_without_music_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .* files found"):
        prepare(tmp_path, tmp_path / "cache", workers=1)
    (tmp_path / "a.mid").write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of 1") as caught:
        prepare(tmp_path, tmp_path / "cache", workers=1)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "data")
    (folder / "maestro-broken.csv").write_text("composer,year\nBach,1720\n")
    with pytest.raises(DataError) as caught:
        find_files(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b'"midi_filename,split\n' + b"a" * 200_000], ids=["no text", "an endless field"]
)
def test_a_table_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    folder = small_folder(tmp_path / "data")
    (folder / "maestro-broken.csv").write_bytes(content)
    with pytest.raises(DataError, match="no table") as caught:
        find_files(folder)
    assert "\n" not in str(caught.value)


def test_what_is_larger_or_longer_than_music_is_left_out(tmp_path: Path) -> None:
    """A few bytes can claim years: times that do not fit into the cache, rests that do not fit into the memory."""
    folder = small_folder(tmp_path / "data")
    notes = b"".join(b"\x01\x90" + bytes([60 + i, 64]) + b"\x01\x80" + bytes([60 + i, 0]) for i in range(20))
    long = notes + b"\xff\xff\xff\x7f\x90\x3c\x40" + b"\x01\x80\x3c\x40" + b"\x00\xff\x2f\x00"
    for name, ticks_per_beat in (("years", 1), ("days", 24)):
        header = b"MThd" + struct.pack(">LHHH", 6, 0, 1, ticks_per_beat)
        (folder / f"{name}.mid").write_bytes(header + b"MTrk" + struct.pack(">L", len(long)) + long)
    with (folder / "large.mid").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # sparse
    target = prepare(folder, tmp_path / "cache", workers=1)
    skipped = dict(line.split(": ", 1) for line in json.loads((target / "index.json").read_text())["skipped"])
    assert sorted(skipped) == ["days.mid", "large.mid", "years.mid"]
    assert "24 hours" in skipped["days.mid"]
    assert "larger than" in skipped["large.mid"]


DAMAGED = {
    "no JSON": b"{",
    "a list": b"[]",
    "no pieces": json.dumps({"format": FORMAT, "pedal": "events"}).encode(),
    "deep": b"[" * 100_000,
}
WRONG = [{"start": 5}, {"stop": 10**9}, {"stop": "7"}, {"stop": 0}, {"split": "nowhere"}, {"name": None}]


def check_refused(cache: Path) -> None:
    with pytest.raises(DataError, match="damaged") as caught:
        Corpus(cache)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_index_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "index.json").write_bytes(DAMAGED[name])
    check_refused(tmp_path)


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_an_index_that_does_not_fit_the_arrays_is_refused(tmp_path: Path, cache: Path, change: dict[str, object]) -> None:
    shutil.copytree(cache, tmp_path / "copy")
    index = json.loads((cache / "index.json").read_text())
    index["pieces"][0] |= change
    (tmp_path / "copy" / "index.json").write_text(json.dumps(index))
    check_refused(tmp_path / "copy")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x80\x04pickle"])
def test_arrays_that_are_none_are_refused(tmp_path: Path, cache: Path, content: bytes) -> None:
    shutil.copytree(cache, tmp_path / "copy")
    (tmp_path / "copy" / "times.npy").write_bytes(content)
    check_refused(tmp_path / "copy")


def test_a_cache_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"format": 999, "pieces": []}))
    with pytest.raises(DataError, match="another format"):
        Corpus(tmp_path)


def test_pedal_events_survive_the_cache(folder: Path, cache: Path) -> None:
    corpus = Corpus(cache)
    for i in range(len(corpus.pieces)):
        actions = corpus.actions(i).actions
        assert np.count_nonzero(actions == SUSTAIN_DOWN) == np.count_nonzero(actions == SUSTAIN_UP) > 0


def test_extended_pedal_is_folded_into_the_notes_in_a_cache_of_its_own(folder: Path, cache: Path) -> None:
    other = prepare(folder, cache.parent, pedal="extend", workers=1)
    assert other != cache
    plain, extended = Corpus(cache), Corpus(other)
    assert (plain.pedal, extended.pedal) == ("events", "extend")
    for i in range(len(plain.pieces)):
        before, after = plain.actions(i), extended.actions(i)
        assert (after.actions < SUSTAIN_DOWN).all()
        strikes = [one.actions[one.actions < NOTE_OFF].tolist() for one in (before, after)]
        assert strikes[0] == strikes[1]
        signs = [np.where(one.actions < NOTE_OFF, -1, one.actions < SUSTAIN_DOWN) for one in (before, after)]
        assert (signs[1] * after.times).sum() > (signs[0] * before.times).sum()  # notes last as long as they sound
