"""Downloads are complete or fail, tested with a real server that breaks connections and sends damaged files."""

from __future__ import annotations

import gc
import random
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("pooch")
pytest.importorskip("tqdm")

from tests.trainer.archives import MUSIC, names, pack, sha256, tree
from trainer import fetch
from trainer.data import DataError, find_files
from trainer.fetch import download, maestro, resolve

CONTENT = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)


# --- a server --------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Calls the next entry of ``server.script`` to answer, or sends the content if there is none."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        (self.server.script.pop(0) if self.server.script else serve)(self)

    def answer(self, status: int, body: bytes = b"", *, cut: int | None = None) -> None:
        """``cut``: bytes of the body that are sent before the connection is closed."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.script: list[Callable[[Handler], None]] = []
        self.requests = 0
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignored, because clients may disconnect at any time."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/music.zip"


def serve(handler: Handler) -> None:
    handler.answer(200, handler.server.content)


def broken_off(handler: Handler) -> None:
    handler.answer(200, handler.server.content, cut=60_000)


def damaged(handler: Handler) -> None:
    handler.answer(200, OTHER)


def stalled(handler: Handler) -> None:
    broken_off(handler)
    handler.server.over.wait(60)


def status(code: int) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(code)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)  # between attempts
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    yield server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # pooch leaves the connection of a failed answer to the garbage collector
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def get(server: Server, target: Path, *, url: str = "", content: bytes = CONTENT, timeout: float = 5.0) -> Path:
    return download(url or server.url, target, sha256=sha256(content), attempts=3, timeout=timeout)


def check_download_error(server: Server, target: Path, *, url: str = "", content: bytes = CONTENT) -> str:
    """Checks that a download fails with a one-line error. Returns the error."""
    with pytest.raises(DataError) as caught:
        get(server, target, url=url, content=content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- download --------------------------------------------------------------------------------------------------------


def test_a_complete_download_leaves_only_the_file(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "new" / "music.zip"
    assert get(server, target) == target
    assert target.read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["music.zip"]
    assert server.requests == 1


@pytest.mark.parametrize("bad", [broken_off, damaged, stalled, status(429), status(503)])
def test_a_failed_download_is_retried(server: Server, tmp_path: Path, bad: Callable[[Handler], None]) -> None:
    server.script = [bad, bad]
    assert get(server, tmp_path / "music.zip", timeout=3.0 if bad is stalled else 20.0).read_bytes() == CONTENT
    assert server.requests == 3
    assert names(tmp_path) == ["music.zip"]


def test_a_wrong_checksum_is_reported_and_leaves_no_file(server: Server, tmp_path: Path) -> None:
    message = check_download_error(server, tmp_path / "music.zip", content=OTHER)
    assert sha256(CONTENT) in message
    assert sha256(OTHER) in message
    assert names(tmp_path) == []


def test_a_missing_file_is_reported_in_one_line(server: Server, tmp_path: Path) -> None:
    server.script = [status(404)] * 3
    assert "404" in check_download_error(server, tmp_path / "music.zip")
    assert names(tmp_path) == []


def test_a_refused_connection_is_reported_in_one_line(server: Server, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert str(port) in check_download_error(server, tmp_path / "music.zip", url=f"http://127.0.0.1:{port}/music.zip")
    assert names(tmp_path) == []


def test_an_existing_file_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path / "music.zip")
    get(server, tmp_path / "music.zip")
    assert server.requests == 1


def test_a_damaged_file_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "music.zip").write_bytes(CONTENT[:-1])
    assert get(server, tmp_path / "music.zip").read_bytes() == CONTENT


def test_an_unwritable_target_is_reported_in_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_download_error(server, tmp_path / "file" / "music.zip")
    (tmp_path / "folder").mkdir()
    check_download_error(server, tmp_path / "folder")


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


def test_maestro_is_downloaded_with_its_official_splits(publisher: Server, tmp_path: Path) -> None:
    folder = maestro(tmp_path / "cache")
    assert tree(folder) == DATASET
    assert [(path.name, split) for path, split in find_files(folder)] == [("a.midi", "train"), ("b.midi", "test")]
    (tmp_path / "cache" / "music.zip").unlink()  # to save room
    assert maestro(tmp_path / "cache") == folder
    assert publisher.requests == 1


def test_maestro_is_the_dataset_and_a_path_to_maestro_is_the_folder(
    publisher: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "maestro").mkdir()
    monkeypatch.chdir(tmp_path)
    assert tree(resolve("maestro", tmp_path / "cache")) == DATASET
    assert resolve("./maestro", tmp_path / "cache") == Path("maestro")
    assert publisher.requests == 1


def test_a_folder_is_used_in_place_and_an_archive_is_unpacked_into_the_cache(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", MUSIC)
    assert resolve(str(tmp_path), tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()
    folder = resolve(str(archive), tmp_path / "cache")
    assert folder.parent == tmp_path / "cache"
    assert tree(folder) == MUSIC


@pytest.mark.parametrize("data", ["", "nowhere", "https://example.org/a.zip", "x" * 5000, "nul\0"])
def test_other_data_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        resolve(data, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_single_midi_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(b"MThd" + bytes(600))
    with pytest.raises(DataError, match="folder") as caught:
        resolve(str(tmp_path / "a.mid"), tmp_path / "cache")
    assert "lzma" not in str(caught.value), "the message must not list errors of decompressors"
