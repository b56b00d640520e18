"""Data gets onto the disk whole or not at all: downloads go on where they broke off, from a real server that breaks them off."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("httpx")
pytest.importorskip("tqdm")

from tests.trainer.archives import MUSIC, names, pack, sha256, tree
from trainer import fetch
from trainer.data import DataError, find_files
from trainer.fetch import download, maestro, resolve

CONTENT = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)


# --- a server --------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """What ``server.script`` says for the next request, else the content, as a good server gives it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        (self.server.script.pop(0) if self.server.script else serve)(self)

    def answer(self, status: int, body: bytes = b"", *, cut: int | None = None, **headers: str) -> None:
        """``cut``: how much of the body is sent before the connection is closed."""
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.server.sent += len(body[:cut])  # before the client can have it
        self.wfile.write(body[:cut])
        self.close_connection = cut is not None

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, '"one"'
        self.script: list[Callable[[Handler], None]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may leave in the middle."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/music.zip"

    def asked(self, name: str) -> list[str | None]:
        return [headers.get(name) for _, headers in self.requests]


def serve(handler: Handler, *, cut: int | None = None, ranges: bool = True, if_range: bool = True) -> None:
    content, etag = handler.server.content, handler.server.etag
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    same = not if_range or handler.headers.get("If-Range", etag) == etag
    if not (ranges and asked and same):
        handler.answer(200, content, cut=cut, ETag=etag)
    elif (start := int(asked[1])) >= len(content):
        handler.answer(416, Content_Range=f"bytes */{len(content)}")
    else:
        covers = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.answer(206, content[start:], cut=cut, ETag=etag, Content_Range=covers)


def cut(count: int) -> Callable[[Handler], None]:
    return lambda handler: serve(handler, cut=count)


def status(code: int, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(code, **headers)


def without_ranges(handler: Handler) -> None:
    serve(handler, ranges=False)


def without_if_range(handler: Handler) -> None:
    serve(handler, if_range=False)


def without_length(handler: Handler) -> None:
    handler.answer(200, handler.server.content, cut=len(handler.server.content), Content_Length="")


def from_the_wrong_place(handler: Handler) -> None:
    handler.answer(206, handler.server.content, Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")


def stall(handler: Handler) -> None:
    serve(handler, cut=len(CONTENT) // 2)
    handler.server.over.wait(60)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def get(server: Server, target: Path, *, url: str = "", content: bytes = CONTENT, attempts: int = 3, **how: float) -> Path:
    how = {"backoff": 0.001, "timeout": 5.0} | how
    return download(url or server.url, target, sha256=sha256(content), attempts=attempts, **how)  # type: ignore[arg-type]


def refuse(server: Server, target: Path, **how: object) -> str:
    """The one line that the user is told."""
    with pytest.raises(DataError) as caught:
        get(server, target, **how)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- download --------------------------------------------------------------------------------------------------------


def test_a_whole_download_leaves_the_file_and_nothing_else(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "new" / "music.zip"
    assert get(server, target) == target
    assert target.read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["music.zip"]
    assert server.asked("range") == [None]
    assert server.asked("accept-encoding") == ["identity"], "ranges and the checksum are of the file as it is"


def test_a_dropped_download_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.script = [cut(60_000)]
    assert get(server, tmp_path / "music.zip").read_bytes() == CONTENT
    assert server.asked("range") == [None, "bytes=60000-"]
    assert server.asked("if-range") == [None, '"one"']
    assert server.sent == len(CONTENT), "nothing is sent twice"
    assert names(tmp_path) == ["music.zip"]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.script = [cut(60_000)]
    message = refuse(server, tmp_path / "music.zip", attempts=1)
    assert "60,000 bytes are kept" in message
    assert not (tmp_path / "music.zip").exists()
    assert (tmp_path / "music.zip.part").read_bytes() == CONTENT[:60_000]
    inode = (tmp_path / "music.zip.part").stat().st_ino
    assert get(server, tmp_path / "music.zip", attempts=1).read_bytes() == CONTENT
    assert server.asked("if-range") == [None, '"one"']
    assert server.sent == len(CONTENT)
    assert (tmp_path / "music.zip").stat().st_ino == inode, "renamed, not copied: there is never half a file of that name"


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    server.script = [cut(60_000), without_ranges]
    assert get(server, tmp_path / "music.zip").read_bytes() == CONTENT
    assert server.asked("range") == [None, "bytes=60000-"]


def test_a_server_that_names_no_version_is_resumed_all_the_same(server: Server, tmp_path: Path) -> None:
    server.etag = ""
    server.script = [cut(60_000)]
    assert get(server, tmp_path / "music.zip").read_bytes() == CONTENT
    assert server.asked("if-range") == [None, None]
    assert server.sent == len(CONTENT)


def test_a_weak_version_is_not_named_in_if_range(server: Server, tmp_path: Path) -> None:
    server.etag = 'W/"one"'
    server.script = [cut(60_000)]
    assert get(server, tmp_path / "music.zip").read_bytes() == CONTENT
    assert server.asked("if-range") == [None, None]
    assert server.sent == len(CONTENT)


def test_a_body_that_is_always_too_short_is_no_file(server: Server, tmp_path: Path) -> None:
    server.script = [lambda handler: serve(handler, ranges=False, cut=1000)] * 9
    message = refuse(server, tmp_path / "music.zip", attempts=3)
    assert "1,000 bytes are kept" in message
    assert names(tmp_path) == ["music.zip.part", "music.zip.part.etag"]
    assert len(server.requests) == 3


def test_every_new_byte_counts_as_progress(server: Server, tmp_path: Path) -> None:
    server.script = [cut(20_000)] * 6
    assert get(server, tmp_path / "music.zip", attempts=2).read_bytes() == CONTENT
    assert server.asked("range")[1:] == [f"bytes={20_000 * i}-" for i in range(1, 7)]
    assert server.sent == len(CONTENT)


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    message = refuse(server, tmp_path / "music.zip", content=OTHER)
    assert sha256(CONTENT) in message
    assert sha256(OTHER) in message
    assert names(tmp_path) == []
    assert len(server.requests) == 1, "what came in one piece is what the server has"


def test_a_missing_file_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "music.zip.part").write_bytes(CONTENT[:500])
    server.script = [status(404)]
    assert "HTTP 404" in refuse(server, tmp_path / "music.zip")
    assert len(server.requests) == 1
    assert names(tmp_path) == ["music.zip.part"]


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, code: int) -> None:
    server.script = [status(code), status(code)]
    assert get(server, tmp_path / "music.zip", attempts=3).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.script = [status(503)] * 9
    assert "HTTP 503" in refuse(server, tmp_path / "music.zip", attempts=4)
    assert len(server.requests) == 4
    assert names(tmp_path) == []


def test_waits_grow_up_to_a_bound(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    server.script = [status(503)] * 6
    get(server, tmp_path / "music.zip", attempts=7, backoff=2.0)
    assert waits == [2, 4, 8, 16, 30, 30]


def test_a_silent_server_is_left_and_asked_for_the_rest(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.script = [stall]
    assert get(server, tmp_path / "music.zip", timeout=2.0, attempts=9).read_bytes() == CONTENT
    assert "ReadTimeout" in caplog.text, "it was left, it did not end by itself"
    assert server.asked("range")[:2] == [None, f"bytes={len(CONTENT) // 2}-"]


@pytest.mark.parametrize("then", [serve, without_if_range, without_ranges])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, tmp_path: Path, then: Callable[[Handler], None]) -> None:
    server.script = [cut(60_000)]
    refuse(server, tmp_path / "music.zip", content=OTHER, attempts=1)
    server.content, server.etag, server.script = OTHER, '"two"', [then]
    assert get(server, tmp_path / "music.zip", content=OTHER, attempts=1).read_bytes() == OTHER
    assert server.asked("if-range")[1] == '"one"'
    assert names(tmp_path) == ["music.zip"]


def test_a_file_that_changed_without_a_word_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.etag = ""
    server.script = [cut(60_000)]
    refuse(server, tmp_path / "music.zip", content=OTHER, attempts=1)
    server.content = OTHER
    assert get(server, tmp_path / "music.zip", content=OTHER).read_bytes() == OTHER
    assert server.asked("range") == [None, "bytes=60000-", None]


@pytest.mark.parametrize("extra", [0, 7])
def test_a_part_that_is_no_beginning_of_the_file_is_thrown_away(server: Server, tmp_path: Path, extra: int) -> None:
    (tmp_path / "music.zip.part").write_bytes(OTHER + bytes(extra))
    assert get(server, tmp_path / "music.zip", attempts=1).read_bytes() == CONTENT
    assert server.asked("range") == [f"bytes={len(OTHER) + extra}-", None]


def test_a_server_that_sends_another_range_is_asked_for_everything(server: Server, tmp_path: Path) -> None:
    (tmp_path / "music.zip.part").write_bytes(CONTENT[:500])
    server.script = [from_the_wrong_place]
    assert get(server, tmp_path / "music.zip", attempts=1).read_bytes() == CONTENT
    assert server.asked("range") == ["bytes=500-", None]


@pytest.mark.parametrize("answer", [from_the_wrong_place, status(416), status(204), status(304)])
def test_an_answer_to_another_question_is_an_error(server: Server, tmp_path: Path, answer: Callable[[Handler], None]) -> None:
    server.script = [answer] * 9
    assert "the server answers" in refuse(server, tmp_path / "music.zip")
    assert len(server.requests) == 1


def test_a_damaged_note_of_the_version_does_no_harm(server: Server, tmp_path: Path) -> None:
    (tmp_path / "music.zip.part").write_bytes(CONTENT[:500])
    (tmp_path / "music.zip.part.etag").write_bytes(b"\0\xff\r\n\0")
    assert get(server, tmp_path / "music.zip").read_bytes() == CONTENT
    assert server.asked("range") == ["bytes=500-"]
    assert server.asked("if-range") == [None]


def test_redirects_are_followed_also_when_resuming(server: Server, tmp_path: Path) -> None:
    server.script = [status(302, Location="/elsewhere"), cut(60_000), status(307, Location="/elsewhere")]
    assert get(server, tmp_path / "music.zip").read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/music.zip", "/elsewhere"] * 2
    assert server.asked("range") == [None, None, "bytes=60000-", "bytes=60000-"]
    assert server.sent == len(CONTENT)


def test_redirects_in_a_circle_are_left(server: Server, tmp_path: Path) -> None:
    server.script = [status(302, Location="/music.zip")] * 99
    assert "redirects" in refuse(server, tmp_path / "music.zip")
    assert names(tmp_path) == []


def test_a_refused_connection_is_one_line(server: Server, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    message = refuse(server, tmp_path / "music.zip", url=f"http://127.0.0.1:{port}/music.zip")
    assert f"127.0.0.1:{port}" in message
    assert "ConnectError" in message
    assert names(tmp_path) == []


@pytest.mark.parametrize("url", ["music.zip", "ftp://127.0.0.1/music.zip", "http://127.0.0.1:port/music.zip", "http://"])
def test_an_address_that_is_none_is_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(fetch.time, "sleep", lambda _: pytest.fail("it will not get better by waiting"))
    assert "check the address" in refuse(server, tmp_path / "music.zip", url=url)


def test_what_is_there_and_right_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path / "music.zip")
    server.requests.clear()
    get(server, tmp_path / "music.zip")
    assert server.requests == []


def test_a_part_that_is_whole_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "music.zip.part").write_bytes(CONTENT)  # as if it had been killed just before the renaming
    assert get(server, tmp_path / "music.zip").read_bytes() == CONTENT
    assert server.requests == []
    assert names(tmp_path) == ["music.zip"]


def test_a_file_that_was_damaged_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "music.zip").write_bytes(CONTENT[:-1])
    assert get(server, tmp_path / "music.zip").read_bytes() == CONTENT
    assert server.asked("range") == [None]


@pytest.mark.parametrize("how", [serve, without_length])
def test_a_download_is_bounded(server: Server, tmp_path: Path, how: Callable[[Handler], None]) -> None:
    server.script = [how]
    message = refuse(server, tmp_path / "music.zip", limit=len(CONTENT) - 1)
    assert f"{len(CONTENT) - 1:,}" in message
    assert names(tmp_path) == []
    server.script = [how]
    assert get(server, tmp_path / "music.zip", limit=len(CONTENT)).read_bytes() == CONTENT


def test_a_download_that_announces_too_much_is_not_begun(server: Server, tmp_path: Path) -> None:
    server.script = [lambda handler: handler.answer(200, b"x", cut=1, Content_Length=str(1 << 40))]
    refuse(server, tmp_path / "music.zip")
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_the_bound_holds_for_the_whole_of_a_resumed_download(server: Server, tmp_path: Path) -> None:
    server.script = [cut(60_000), cut(1)]
    refuse(server, tmp_path / "music.zip", attempts=1)
    assert "150,000" in refuse(server, tmp_path / "music.zip", limit=150_000)  # the rest alone is less
    assert len(server.requests) == 2, "the announcement is enough"
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written_is_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in refuse(server, tmp_path / "file" / "music.zip")
    (tmp_path / "folder").mkdir()
    assert "cannot be written" in refuse(server, tmp_path / "folder")


# --- resolve ---------------------------------------------------------------------------------------------------------

TABLE = b"split,midi_filename\ntrain,2004/a.midi\ntest,2004/b.midi\n"
DATASET = {
    "maestro-v3.0.0/2004/a.midi": b"a",
    "maestro-v3.0.0/2004/b.midi": b"b",
    "maestro-v3.0.0/maestro-v3.0.0.csv": TABLE,
}


@pytest.fixture
def publisher(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    server.content = pack(tmp_path / "published.zip", DATASET).read_bytes()
    monkeypatch.setattr(fetch, "MAESTRO_URL", server.url)
    monkeypatch.setattr(fetch, "MAESTRO_SHA256", sha256(server.content))
    return server


def test_maestro_comes_from_its_publisher_with_its_splits(publisher: Server, tmp_path: Path) -> None:
    folder = maestro(tmp_path / "cache")
    assert tree(folder) == DATASET
    assert [(path.name, split) for path, split in find_files(folder)] == [("a.midi", "train"), ("b.midi", "test")]
    (tmp_path / "cache" / "music.zip").unlink()  # to save room
    assert maestro(tmp_path / "cache") == folder
    assert len(publisher.requests) == 1


def test_the_word_maestro_is_the_dataset_and_a_path_is_the_folder(
    publisher: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "maestro").mkdir()
    monkeypatch.chdir(tmp_path)
    assert tree(resolve("maestro", tmp_path / "cache")) == DATASET
    assert resolve("./maestro", tmp_path / "cache") == Path("maestro")
    assert len(publisher.requests) == 1


def test_a_folder_is_read_where_it_is_and_an_archive_from_the_cache(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", MUSIC)
    assert resolve(str(tmp_path), tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()
    folder = resolve(str(archive), tmp_path / "cache")
    assert folder.parent == tmp_path / "cache"
    assert tree(folder) == MUSIC


@pytest.mark.parametrize("data", ["", "nowhere", "https://example.org/a.zip", "x" * 5000, "nul\0"])
def test_anything_else_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        resolve(data, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_single_file_of_music_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(b"MThd" + bytes(600))
    with pytest.raises(DataError, match="folder") as caught:
        resolve(str(tmp_path / "a.mid"), tmp_path / "cache")
    assert "lzma" not in str(caught.value), "what each decompressor said is not for the user"
