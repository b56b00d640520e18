"""A folder of MIDI files is packed into a cache: invalid files are reported and skipped, the others are read like live input."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tqdm")

from engine.events import NOTE_OFF, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import MessageReader, message_of
from engine.midi_file import write_file
from tests.music import improvise_timed
from trainer.data import FORMAT, Corpus, DataError, find_files, prepare, summarised
from trainer.reading import parse


def music(count: int, *, seed: int) -> list[Timed]:
    """Legal music on whole milliseconds, everything released at the end."""
    timed = [Timed(round(one.time, 3), one.action, one.velocity) for one in improvise_timed(count, seed=seed)]
    reader = MessageReader()
    for one in timed:
        reader.feed(one.time, message_of(one.action, one.velocity))
    return timed + reader.close(timed[-1].time + 0.5)


# --- find_files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "held_out"), [(45, ["19.mid", "39.mid"]), (5, ["04.MIDI"]), (2, ["01.mid"])])
def test_without_an_official_split_every_20th_or_the_last_file_is_held_out(
    tmp_path: Path, count: int, held_out: list[str]
) -> None:
    folder = tmp_path / "data" / "sub"
    folder.mkdir(parents=True)
    for i in range(count):
        write_file(folder / f"{i:02}.{'mid' if i % 2 else 'MIDI'}", [("piano", music(80, seed=i))])
    write_file(folder / "99.mid", [("piano", music(10, seed=0))])  # too short to be used, so not held out
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

GOOD = {"2004/a.midi": "train", "2004/b.midi": "validation", "2006/c.mid": "test", "2006/d.KAR": "train"}


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
    (folder / "._2004.mid").write_text("what macOS knows of a file")
    write_file(folder / "few.mid", [("piano", music(10, seed=9))])
    write_table(folder, GOOD)
    return folder


@pytest.fixture(scope="module")
def cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(folder, tmp_path_factory.mktemp("cache"), workers=1)


READ = ["claims.mid", "cut.mid"]  # damaged, but readable at least in part


def test_the_index_lists_skipped_and_damaged_files(cache: Path) -> None:
    index = json.loads((cache / "index.json").read_text())
    assert sorted(piece["name"] for piece in index["pieces"]) == sorted([*GOOD, *READ])
    assert sorted(index["skipped"]) == ["empty.mid", "few.mid", "text.mid"]
    assert index["skipped"]["few.mid"] == "fewer than 16 notes"
    assert index["damaged"] == {"cut.mid": "truncated track"}


def test_the_log_counts_skipped_files_by_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = small_folder(tmp_path / "data")
    for i in range(200):
        (folder / f"text-{i}.mid").write_text(f"no music at all {i}")
    write_file(folder / "few.mid", [("piano", music(10, seed=9))])
    target = prepare(folder, tmp_path / "cache", workers=1)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 2
    assert "201 of 202 files left out: 200 not a MIDI file" in lines[0]
    assert "; 1 fewer than 16 notes" in lines[0]
    assert str(target / "index.json") in lines[1]


def test_only_the_most_frequent_reasons_are_listed() -> None:
    assert summarised(["b", "a", "b"]) == "2 b; 1 a"
    assert summarised([str(i) for i in range(5)] * 2 + ["5", "6"]) == "2 0; 2 1; 2 2; 2 3; 2 4; 2 for other reasons"


@pytest.mark.skipif(os.name == "nt", reason="names and permissions differ on Windows")
def test_unusual_files_and_folders_do_not_stop_the_preparation(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "data")
    names = [b"\xff\xfe.mid", b"two\nlines.mid", b"b" * 251 + b".mid"]
    for seed, name in enumerate([*names, b"locked.mid"], 2):
        write_file(Path(os.fsdecode(os.path.join(os.fsencode(folder), name))), [("piano", music(80, seed=seed))])  # noqa: PTH118 (of bytes)
    os.mkfifo(folder / "pipe.mid")  # opening it would block
    (folder / "loop").symlink_to(folder)
    (folder / "dangling.mid").symlink_to(folder / "nowhere")
    (folder / "folder.mid").mkdir()
    (folder / "locked.mid").chmod(0)
    (folder / "locked").mkdir(mode=0)
    target = prepare(folder, tmp_path / "cache", workers=1)
    used = [piece["name"] for piece in Corpus(target).pieces]
    unreadable = [] if os.access(folder / "locked.mid", os.R_OK) else ["locked.mid"]  # root may read everything
    assert sorted(used + unreadable) == sorted(["a.mid", "locked.mid", *map(os.fsdecode, names)])
    assert list(json.loads((target / "index.json").read_text())["skipped"]) == unreadable


def test_a_copy_of_a_file_is_left_out(tmp_path: Path) -> None:
    """Otherwise a performance could be in the training and in the validation split."""
    folder = small_folder(tmp_path / "data")
    for i in range(1, 20):
        write_file(folder / f"piece-{i:02}.mid", [("piano", music(80, seed=i + 1))])
    shutil.copy(folder / "piece-19.mid", folder / "piece-18 copy.mid")
    target = prepare(folder, tmp_path / "cache", workers=1)
    assert json.loads((target / "index.json").read_text())["skipped"] == {"piece-19.mid": "a copy of another file"}
    assert len(Corpus(target).pieces) == 20


def test_of_copies_with_official_splits_the_held_out_one_is_kept(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "data")
    write_file(folder / "b.mid", [("piano", music(80, seed=2))])
    shutil.copy(folder / "b.mid", folder / "also b.mid")
    (folder / "maestro-v3.0.0.csv").write_text("midi_filename,split\na.mid,train\nb.mid,test\n")
    corpus = Corpus(prepare(folder, tmp_path / "cache", workers=1))
    assert {piece["name"]: piece["split"] for piece in corpus.pieces} == {"a.mid": "train", "b.mid": "test"}


def test_a_file_that_vanishes_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_folder(tmp_path / "data")
    found = find_files(folder)
    monkeypatch.setattr("trainer.data.find_files", lambda _: [*found, (folder / "gone.mid", None)])
    index = json.loads((prepare(folder, tmp_path / "cache", workers=1) / "index.json").read_text())
    assert index["skipped"] == {"gone.mid": "cannot be read (No such file or directory)"}


def test_a_packed_folder_is_used_directly(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "packed")
    assert prepare(tmp_path / "packed", tmp_path / "cache", workers=1) == tmp_path / "packed"
    assert not (tmp_path / "cache").exists()
    with pytest.raises(DataError, match="packed with the pedal as events, wanted as extend"):
        prepare(tmp_path / "packed", tmp_path / "cache", pedal="extend", workers=1)


def test_a_cache_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="cannot be written") as caught:
        prepare(small_folder(tmp_path / "data"), tmp_path / "cache", workers=1)
    assert "\n" not in str(caught.value)


def test_long_silences_are_shortened_as_in_a_live_session(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    music_after = [one._replace(time=one.time + 9 * 3600) for one in music(40, seed=2)]
    write_file(folder / "a.mid", [("piano", music(40, seed=1) + music_after)])
    times = Corpus(prepare(folder, tmp_path / "cache", workers=1)).actions(0).times
    assert 4.99 < np.diff(times).max() < 5.01


def test_the_split_all_contains_every_piece(cache: Path) -> None:
    corpus = Corpus(cache)
    assert corpus.split("all") == list(range(len(corpus.pieces)))


def test_official_splits_are_kept(cache: Path) -> None:
    corpus = Corpus(cache)
    for split in ("train", "validation", "test"):
        names = [corpus.pieces[i]["name"] for i in corpus.split(split)]
        official = [name for name, where in GOOD.items() if where == split]
        assert sorted(names) == sorted(official + READ * (split == "train"))


def test_packed_pieces_equal_the_parsed_files(folder: Path, cache: Path) -> None:
    corpus = Corpus(cache)
    for i, piece in enumerate(corpus.pieces):
        original, packed = parse(folder / piece["name"]), corpus.actions(i)
        assert corpus.length(i) == len(packed.times) == len(original.times)
        assert np.abs(packed.times - (original.times - original.times[0])).max() <= 0.0001
        assert np.array_equal(packed.actions, original.actions)
        assert np.array_equal(packed.velocities, original.velocities)


def test_an_unchanged_folder_reuses_the_cache(folder: Path, cache: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert prepare(folder, cache.parent, workers=1) == cache
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before


def small_folder(folder: Path) -> Path:
    folder.mkdir()
    write_file(folder / "a.mid", [("piano", music(80, seed=1))])
    return folder


def test_a_changed_folder_is_prepared_again_and_an_unfinished_cache_completed(tmp_path: Path) -> None:
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


def test_a_changed_file_of_the_same_size_is_prepared_again(tmp_path: Path) -> None:
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
    with pytest.raises(DataError, match="no MIDI files found"):
        prepare(tmp_path, tmp_path / "cache", workers=1)
    (tmp_path / "a.mid").write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of 1") as caught:
        prepare(tmp_path, tmp_path / "cache", workers=1)
    assert "\n" not in str(caught.value)


def test_a_table_without_the_required_columns_is_refused_in_one_line(tmp_path: Path) -> None:
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
    with pytest.raises(DataError, match="not a csv file") as caught:
        find_files(folder)
    assert "\n" not in str(caught.value)


def test_files_that_are_too_large_or_too_long_are_skipped(tmp_path: Path) -> None:
    """A few bytes can encode a duration of years: times that do not fit into the cache, rests that do not fit into RAM."""
    folder = small_folder(tmp_path / "data")
    notes = b"".join(b"\x01\x90" + bytes([60 + i, 64]) + b"\x01\x80" + bytes([60 + i, 0]) for i in range(20))
    long = notes + b"\xff\xff\xff\x7f\x90\x3c\x40" + b"\x01\x80\x3c\x40" + b"\x00\xff\x2f\x00"
    for name, ticks_per_beat in (("years", 1), ("days", 24)):
        header = b"MThd" + struct.pack(">LHHH", 6, 0, 1, ticks_per_beat)
        (folder / f"{name}.mid").write_bytes(header + b"MTrk" + struct.pack(">L", len(long)) + long)
    with (folder / "large.mid").open("wb") as file:
        file.truncate(3 << 30)  # sparse
    target = prepare(folder, tmp_path / "cache", workers=1)
    skipped = json.loads((target / "index.json").read_text())["skipped"]
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
def test_invalid_array_files_are_refused(tmp_path: Path, cache: Path, content: bytes) -> None:
    shutil.copytree(cache, tmp_path / "copy")
    (tmp_path / "copy" / "times.npy").write_bytes(content)
    check_refused(tmp_path / "copy")


def test_a_cache_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"format": 999, "pieces": []}))
    with pytest.raises(DataError, match="another format"):
        Corpus(tmp_path)


def test_pedal_events_are_kept_in_the_cache(folder: Path, cache: Path) -> None:
    corpus = Corpus(cache)
    for i in range(len(corpus.pieces)):
        actions = corpus.actions(i).actions
        assert np.count_nonzero(actions == SUSTAIN_DOWN) == np.count_nonzero(actions == SUSTAIN_UP) > 0


def test_pedal_extend_lengthens_the_notes_in_a_separate_cache(folder: Path, cache: Path) -> None:
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
