"""Unpacking untrusted archives of music: only music and tables, never outside the folder, within the size limits."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("pooch")
pytest.importorskip("tqdm")

from tests.trainer.archives import MUSIC, names, pack, sha256, tree
from trainer import tars
from trainer import unpack as unpacking
from trainer.data import DataError
from trainer.unpack import MEMBER_LIMIT, unpack

KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


def check_refused(archive: Path, cache: Path, **how: int) -> str:
    """Checks that an archive is refused with a one-line error and that no files are left. Returns the error."""
    with pytest.raises(DataError) as caught:
        unpack(archive, cache, **how)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{archive}: ")
    assert "DataError" not in str(caught.value)
    assert not cache.exists() or names(cache) == []
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_only_music_and_tables_are_unpacked(tmp_path: Path, kind: str) -> None:
    wanted = {"a.mid": b"a", "set/b.MIDI": b"b" * 500_000, "./set/deep/c d.midi": b"", "maestro-v3.0.0.csv": b"split"}
    wanted |= {"song.kar": b"k", "windows.rmi": b"r", "scene.smf": b"s"}
    other = {"README": b"read", "set/sound.wav": bytes(9999), "run.py": b"exit()", "__MACOSX/._a.mid": b"icon", "mid": b"name"}
    archive = pack(tmp_path / f"a.{kind}", wanted | other)
    folder = unpack(archive, tmp_path / "cache")
    assert tree(folder) == {name.removeprefix("./"): data for name, data in wanted.items()}
    assert folder == tmp_path / "cache" / sha256(archive.read_bytes())[:16]
    assert names(tmp_path / "cache") == [folder.name]


def test_the_archive_format_is_detected_from_the_content(tmp_path: Path) -> None:
    for kind in KINDS:
        archive = pack(tmp_path / f"a.{kind}", MUSIC).rename(tmp_path / "download")
        assert tree(unpack(archive, tmp_path / "cache" / kind)) == MUSIC


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    archive = pack(tmp_path / f"a.{kind}", MUSIC)
    folder = unpack(archive, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "_extract", lambda *_: pytest.fail("it is there already"))
        assert unpack(archive, tmp_path / "cache") == folder
    changed = unpack(pack(archive, {"other.mid": b"other"}), tmp_path / "cache")
    assert tree(changed) == {"other.mid": b"other"}
    assert tree(folder) == MUSIC


@pytest.mark.parametrize("kind", KINDS)
def test_members_with_names_outside_the_folder_are_skipped(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    escapes = ["../up.mid", "set/../../../up.mid", "..\\up.mid", ".. /up.mid", f"{tmp_path}/root.mid"]
    escapes += ["C:\\root.mid", "C:root.mid", "\\\\host\\share\\root.mid"]
    archive = pack(tmp_path / f"a.{kind}", {"first.mid": b"1"} | dict.fromkeys(escapes, b"out") | {"last.mid": b"2"})
    folder = unpack(archive, tmp_path / "deep" / "er" / "cache")
    assert tree(folder) == {"first.mid": b"1", "last.mid": b"2"}
    assert len(tree(tmp_path)) == 3, "the archive and the two files"
    assert [record.getMessage() for record in caplog.records] == [
        f"{archive}: {len(escapes)} members left out: {len(escapes)} a name that leads out of the folder"
    ]


def test_slashes_and_backslashes_separate_folders(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", {"set\\one.mid": b"1", "set/two.mid": b"2"})
    assert tree(unpack(archive, tmp_path / "cache")) == {"set/one.mid": b"1", "set/two.mid": b"2"}


def test_links_and_devices_in_a_tar_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "secret.mid").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    links = {
        "soft.mid": (tarfile.SYMTYPE, str(tmp_path / "secret.mid")),
        "hard.mid": (tarfile.LNKTYPE, "../../secret.mid"),
        "inner.mid": (tarfile.LNKTYPE, "real.mid"),
        "pipe.mid": (tarfile.FIFOTYPE, ""),
        "device.mid": (tarfile.CHRTYPE, ""),
        "folder": (tarfile.SYMTYPE, str(tmp_path / "outside")),
    }
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, (kind, goal) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, goal
            archive.addfile(info)
        for name in ("real.mid", "folder/through.mid", "soft.mid"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"real"))
    folder = unpack(tmp_path / "a.tar", tmp_path / "cache")
    assert tree(folder) == {"real.mid": b"real", "folder/through.mid": b"real", "soft.mid": b"real"}
    assert all(path.is_dir() or stat.S_ISREG(path.lstat().st_mode) for path in folder.rglob("*"))
    assert (tmp_path / "secret.mid").read_bytes() == b"secret"
    assert names(tmp_path / "outside") == []


def test_links_in_a_zip_are_skipped(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.mid")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("real.mid", b"real")
    assert tree(unpack(tmp_path / "a.zip", tmp_path / "cache")) == {"real.mid": b"real"}


@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.8])
def test_a_truncated_zip_is_refused_and_leaves_no_files(tmp_path: Path, share: float) -> None:
    archive = pack(tmp_path / "a.zip", MUSIC)
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    assert "cannot be unpacked" in check_refused(archive, tmp_path / "cache")


# --- damaged tars: intact members are unpacked -----------------------------------------------------------------------


def check_part(archive: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> dict[str, bytes]:
    """Unpacks a damaged archive and returns the files. Checks that they are intact and that the damage is logged."""
    caplog.clear()
    files = tree(unpack(archive, cache))
    assert files.items() <= MUSIC.items()
    assert len(caplog.records) in (1, 2)
    assert all(str(archive) in record.getMessage() for record in caplog.records)
    return files


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_members_of_a_tar_before_the_truncation_are_unpacked(
    tmp_path: Path, kind: str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    archive = pack(tmp_path / f"a.{kind}", MUSIC)
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    if kind == "tar.bz2":  # one bzip2 block contains all of this music
        assert "cannot be unpacked" in check_refused(archive, tmp_path / "cache")
        return
    files = check_part(archive, tmp_path / "cache", caplog)
    assert len(files) >= len(MUSIC) * share - 3
    assert "damaged or broken off" in caplog.text


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_tar_without_any_intact_member_is_refused(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"a.{kind}", MUSIC)
    archive.write_bytes(archive.read_bytes()[:60])
    assert "cannot be unpacked" in check_refused(archive, tmp_path / "cache")


@pytest.mark.parametrize("kept", range(512, 4 * 3584, 512))  # each file is a header and six blocks: all block boundaries
def test_truncation_of_a_tar_at_any_block_is_detected(tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    archive = pack(tmp_path / "a.tar", MUSIC)
    archive.write_bytes(archive.read_bytes()[:kept])
    if kept < 3584:
        assert "cannot be unpacked" in check_refused(archive, tmp_path / "cache")
    else:
        assert len(check_part(archive, tmp_path / "cache", caplog)) == kept // 3584


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("member", ["set/00.mid", "set/10.mid", "set/19.mid"])
def test_a_damaged_header_loses_only_its_member(tmp_path: Path, kind: str, member: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = pack(tmp_path / "a.tar", MUSIC)
    data = bytearray(plain.read_bytes())
    data[data.index(member.encode())] ^= 1
    archive = tmp_path / f"b.{kind}"
    archive.write_bytes(gzip.compress(data) if kind == "tar.gz" else data)
    files = check_part(archive, tmp_path / "cache", caplog)
    assert files == {name: data for name, data in MUSIC.items() if name != member}
    assert "1 members left out: 1 damaged" in caplog.text


def test_a_damaged_header_after_a_long_name_loses_only_its_member(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = {f"{'x' * 150}/{i}.mid": bytes([i]) * 100 for i in range(5)}
    archive = pack(tmp_path / "a.tar", long)
    data = bytearray(archive.read_bytes())
    at = data.index(b"2.mid")  # in the block after the header that announces a long name
    data[at - at % 512 + 512 + 150] ^= 1  # the header that follows it
    archive.write_bytes(data)
    files = tree(unpack(archive, tmp_path / "cache"))
    assert files == {name: data for name, data in long.items() if not name.endswith("/2.mid")}
    assert "1 damaged" in caplog.text


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])  # a plain tar has no checksum of its data
def test_a_changed_byte_is_detected(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    archive = pack(tmp_path / f"a.{kind}", MUSIC)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    if kind == "tar.bz2":
        assert "cannot be unpacked" in check_refused(archive, tmp_path / "cache")
        return
    files = tree(unpack(archive, tmp_path / "cache"))
    assert len(files) > len(MUSIC) / 3
    assert "damaged or broken off" in caplog.text


def test_the_search_for_the_next_header_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tars, "LONGEST_SEARCH", 10_000)
    archive = pack(tmp_path / "a.tar", {"a.mid": b"a"})
    archive.write_bytes(archive.read_bytes()[:1024] + b"x" * 20_000 + archive.read_bytes())
    assert tree(unpack(archive, tmp_path / "cache")) == {"a.mid": b"a"}
    assert "no header is found any more" in caplog.text
    assert "1 damaged" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_over_the_size_limit_is_refused(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"a.{kind}", {"a.mid": bytes(600_000), "b.mid": bytes(400_000), "c.wav": bytes(9_000_000)})
    assert "999,999" in check_refused(archive, tmp_path / "cache", limit=999_999)
    check_refused(archive, tmp_path / "cache", limit=0)
    assert len(tree(unpack(archive, tmp_path / "cache", limit=1_000_000))) == 2


def test_holes_of_sparse_files_count_towards_the_size_limit(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("a.mid").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = header[398:410] = b"%011o\0" % 0  # no data
    header[483:495] = b"%011o\0" % (1 << 25)  # a hole of 32 MB
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * ord(" "))
    (tmp_path / "a.tar").write_bytes(header + bytes(10_240))
    assert "1,000,000" in check_refused(tmp_path / "a.tar", tmp_path / "cache", limit=1_000_000)


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_without_music_is_refused(tmp_path: Path, kind: str) -> None:
    for entries in ({}, {"a.wav": b"sound"}, {"maestro-v3.0.0.csv": b"split"}):
        assert "no MIDI files in it" in check_refused(pack(tmp_path / f"a.{kind}", entries), tmp_path / "cache")


@pytest.mark.parametrize("data", [b"", b"P", b"PK", b"no archive at all", b"MThd" + bytes(2000), b"\x1f\x8b", bytes(20_000)])
def test_files_that_are_not_archives_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    check_refused(tmp_path / "a.zip", tmp_path / "cache")


# --- bad members -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_members_with_impossible_file_names_are_skipped(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    good = {"a.mid": b"file", "b.mid": b"file"}
    bad = {"a.mid/c.mid": b"below a file", "x" * 300 + ".mid": b"too long"}
    folder = unpack(pack(tmp_path / f"a.{kind}", good | bad), tmp_path / "cache")
    assert tree(folder) == good
    assert "2 members left out" in caplog.text


def test_a_file_with_the_name_of_a_folder_is_skipped(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", {"a.mid/b.mid": b"below it", "a.mid": b"file"})
    assert tree(unpack(archive, tmp_path / "cache")) == {"a.mid/b.mid": b"below it"}


def damage(archive: Path, member: str, how: str) -> None:
    """Makes one member of a zip damaged, encrypted or compressed by another method."""
    data = bytearray(archive.read_bytes())
    at = data.index(member.encode())
    header, central = at - 30, data.rindex(member.encode()) - 46
    if how == "data":
        data[at + len(member) + 5] ^= 1
    elif how == "header":
        data[header] ^= 1
    elif how == "encrypted":
        data[header + 6] |= 1
        data[central + 8] |= 1
    else:
        data[header + 8] = data[central + 10] = {"bzip2": 12, "lzma": 14, "unknown": 99}[how]
    archive.write_bytes(data)


@pytest.mark.parametrize("how", ["data", "header", "encrypted", "bzip2", "lzma", "unknown"])
def test_only_the_bad_member_of_a_zip_is_skipped(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    archive = pack(tmp_path / "a.zip", MUSIC)
    damage(archive, "set/07.mid", how)
    folder = unpack(archive, tmp_path / "cache")
    assert tree(folder) == {name: data for name, data in MUSIC.items() if name != "set/07.mid"}
    assert "1 members left out" in caplog.text


@pytest.mark.parametrize(("how", "reason"), [("encrypted", "1 encrypted"), ("data", "1 damaged"), ("bzip2", "1 compressed by")])
def test_a_zip_with_only_bad_members_is_refused_with_the_reasons(tmp_path: Path, how: str, reason: str) -> None:
    archive = pack(tmp_path / "a.zip", {"a.mid": bytes(1000)})
    damage(archive, "a.mid", how)
    assert reason in check_refused(archive, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_member_over_the_size_limit_is_skipped(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"a.{kind}", {"large.mid": bytes(MEMBER_LIMIT + 1), "a.mid": b"a"})
    assert tree(unpack(archive, tmp_path / "cache")) == {"a.mid": b"a"}


def test_a_member_larger_than_its_declared_size_is_skipped(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a.mid": bytes(MEMBER_LIMIT + 1), "b.mid": b"b"})
    data = bytearray(archive.read_bytes())
    for at in (22, data.index(b"PK\1\2") + 24):
        data[at : at + 4] = (1000).to_bytes(4, "little")
    archive.write_bytes(data)
    assert tree(unpack(archive, tmp_path / "cache")) == {"b.mid": b"b"}


def test_concurrent_unpacking_gives_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "a.zip", MUSIC)
    extract = unpacking._extract

    def slowly(archive: Path, folder: Path, limit: int) -> int:
        monkeypatch.setattr(unpacking, "_extract", extract)
        unpack(archive, tmp_path / "cache")  # another process is faster
        return extract(archive, folder, limit)

    monkeypatch.setattr(unpacking, "_extract", slowly)
    folder = unpack(archive, tmp_path / "cache")
    assert tree(folder) == MUSIC
    assert names(tmp_path / "cache") == [folder.name]
