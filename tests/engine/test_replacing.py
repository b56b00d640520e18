"""Files that are never incomplete under their own name."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.replacing import replacing


def test_new_content_appears_only_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with replacing(path) as part:
        part.write_text("old")
        assert not path.exists()
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_block_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_left_by_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_text("a longer content than the next one")
    with replacing(tmp_path / "file") as part:
        part.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_two_threads_can_write_a_shared_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    written = threading.Barrier(2, timeout=60)

    def write(text: str) -> None:
        with replacing(path, shared=True) as part:
            part.write_text(text)
            written.wait()

    other = threading.Thread(target=write, args=("a" * 100,))
    other.start()
    write("b" * 100)
    other.join()
    assert path.read_text() in ("a" * 100, "b" * 100)
    assert list(tmp_path.iterdir()) == [path]
