"""The page's server over real sockets on loopback: what it serves, to whom, and how it handles hostile clients."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from perceivers_live.network import ListenError
from perceivers_live.page import listening_socket
from perceivers_live.page.listening_socket import BURST, MAX_PENDING, PENALTY, RETRY, ListeningSocket
from perceivers_live.page.protocol import MAX_FRAME
from perceivers_live.page.requests import MAX_MISTAKES
from perceivers_live.page.routes import STATIC
from perceivers_live.page.server import MAX_SOCKETS
from tests.perceivers_live.osc.client import beyond_loopback
from tests.perceivers_live.page.serving import Page, Site, page, raw, served
from tests.waiting import PATIENCE, until


def ask(site: Site, target: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)) as connection:
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        return response, response.read()


# What is served.


@pytest.mark.parametrize(
    "path", sorted(path.name for path in STATIC.glob("*") if path.suffix in (".html", ".css", ".js", ".svg"))
)
def test_every_file_of_the_page_is_served_with_its_type(site: Site, path: str) -> None:
    response, body = ask(site, f"/page/{path}")
    assert (response.status, body) == (200, (STATIC / path).read_bytes())
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}[path.rpartition(".")[2]]
    assert str(response.headers["Content-Type"]).startswith(kind)


def test_page_policy_forbids_foreign_resources_and_inline_code(site: Site) -> None:
    response, body = ask(site, "/page/")
    policy = dict(part.strip().split(" ", 1) for part in str(response.headers["Content-Security-Policy"]).split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    text = body.decode()
    assert "style=" not in text
    assert " onclick" not in text
    assert text.count("<script") == text.count('<script type="module" src=')


def test_root_redirects_browsers_to_the_page_and_serves_programs_the_tree(site: Site) -> None:
    response, _ = ask(site, "/", Accept="text/html,*/*")
    assert (response.status, response.headers["Location"]) == (302, "/page/")
    response, body = ask(site, "/", Accept="application/json")
    assert response.status == 200
    assert b"temperature" in body


@pytest.mark.parametrize(
    "target",
    [
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page/..%2fserver.py",
        "/page//etc/passwd",
        "/page/jsconfig.json",
        "/page/main.js/",
        "/page/%00",
        "/recordings/../x.mid",
        "/recordings/..%2fx.mid",
        "/recordings/x.txt",
        "/recordings/.mid",
    ],
)
def test_no_other_file_is_served(site: Site, target: str, tmp_path: Path) -> None:
    (tmp_path.parent / "x.mid").write_bytes(b"secret")
    (tmp_path / "x.txt").write_bytes(b"secret")
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    answer = raw(site.port, head)
    assert answer.split()[1] == b"404"
    assert b"secret" not in answer


def test_recordings_are_listed_newest_first_and_served(site: Site, tmp_path: Path) -> None:
    (tmp_path / "2026-01-01_10-00-00.mid").write_bytes(b"MThd one")
    (tmp_path / "2026-01-02_10-00-00.mid").write_bytes(b"MThd two")
    (tmp_path / "2026-01-02_10-00-00.journal").write_bytes(b"")
    listed, body = ask(site, "/recordings")
    assert body == b'[{"name": "2026-01-02_10-00-00", "bytes": 8}, {"name": "2026-01-01_10-00-00", "bytes": 8}]'
    response, body = ask(site, "/recordings/2026-01-01_10-00-00.mid")
    assert (listed.status, response.status, body) == (200, 200, b"MThd one")
    assert response.headers["Content-Type"] == "audio/midi"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(site: Site, method: str) -> None:
    response, _ = ask(site, "/page/", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


# Who is answered.


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "localhost:1234", "LOCALHOST", "[::1]:9", "127.1.2.3"])
def test_a_request_to_loopback_is_answered(site: Site, host: str) -> None:
    assert ask(site, "/page/", Host=host)[0].status == 200


@pytest.mark.parametrize("target", ["/page/", "/", "/recordings"])
@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "10.0.0.1", "127.0.0.1.evil.example", ""])
def test_foreign_host_header_is_refused(site: Site, host: str, target: str) -> None:
    assert ask(site, target, Host=host)[0].status == 421


@pytest.mark.parametrize("path", ["/page/socket", "/"])
def test_websocket_of_the_page_or_of_a_program_is_accepted(site: Site, path: str) -> None:
    for headers in ({}, {"Origin": f"http://127.0.0.1:{site.port}"}):
        with connect(f"ws://127.0.0.1:{site.port}{path}", additional_headers=headers) as connection:
            assert connection.response is not None
            assert connection.response.status_code == 101


@pytest.mark.parametrize("path", ["/page/socket", "/"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1",
        "https://127.0.0.1:{port}",
        "http://localhost:{port}",
        "http://127.0.0.1:1",
        "",
    ],
)
def test_a_websocket_of_another_origin_is_refused(site: Site, path: str, origin: str) -> None:
    headers = {"Origin": origin.format(port=site.port)}
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{site.port}{path}", additional_headers=headers):
        pass
    assert refused.value.response.status_code == 403


def test_a_websocket_to_another_host_is_refused(site: Site) -> None:
    head = b"GET /page/socket HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nUpgrade: websocket\r\n"
    answer = raw(
        site.port, head + b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b"A" * 22 + b"==\r\n\r\n"
    )
    assert answer.split()[1] == b"421"


def test_only_allowed_clients_are_answered_beyond_loopback() -> None:
    with pytest.raises(ListenError, match="beyond loopback"), served(host="0.0.0.0"):
        pass
    with served(host="0.0.0.0", allow="192.0.2.7") as site:
        assert ask(site, "/?HOST_INFO")[0].status == 200  # loopback always is
        with socket.create_connection((beyond_loopback(), site.port), PATIENCE) as connection:
            try:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(1) == b""
            except ConnectionError:
                pass


@pytest.mark.parametrize(("host", "port"), [("", 0), ("203.0.113.1", 0), ("no such host", 0), ("a" * 300, 0)])
def test_unusable_address_error_is_one_line(host: str, port: int) -> None:
    with pytest.raises(ListenError, match="cannot be served on") as refused, served(host=host, allow="192.0.2.7"):
        pass
    assert str(refused.value).isprintable()


# Hostile clients.


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", b"400"),
        (b"GET //[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
    ],
)
def test_a_malformed_request_is_refused(site: Site, request_text: bytes, status: bytes) -> None:
    assert raw(site.port, request_text).split()[1] == status


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\nGET /?HOST_INFO HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"hello\r\n\r\n",
    ],
)
def test_invalid_or_too_large_request_gets_no_content(site: Site, request_text: bytes) -> None:
    try:
        answer = raw(site.port, request_text)
    except ConnectionError:
        return
    assert answer.split()[1:2] in ([], [b"400"], [b"414"], [b"431"], [b"505"])
    assert b"HOST_INFO" not in answer
    assert b"temperature" not in answer


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(target=st.text(max_size=20).map(str.encode) | st.binary(max_size=20), line=st.binary(max_size=20))
def test_next_request_is_answered_after_any_bytes(site: Site, target: bytes, line: bytes) -> None:
    raw(site.port, b"GET /" + target + b" HTTP/1.1\r\nHost: localhost\r\n" + line + b"\r\n\r\n")
    assert ask(site, "/perceivers/seed?TYPE")[0].status == 200


def test_open_connections_are_limited_and_do_not_block_others(site: Site) -> None:
    with ExitStack() as stack, page(site) as ours:
        before = threading.active_count()
        held = []
        for _ in range(3 * MAX_PENDING):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", site.port), PATIENCE))
            connection.sendall(b"GET / HTTP/1.1\r\n")  # and never a second line
            held.append(connection)
        assert ask(site, "/perceivers/seed?TYPE")[0].status == 200
        assert held[0].recv(1) == b""  # the oldest was closed
        assert until(lambda: threading.active_count() <= before + 2 * MAX_PENDING + 2)
        assert ours.ping()["sent"] == 1.5  # a page that is connected stays


def test_excess_pages_are_refused_until_others_close(site: Site) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_SOCKETS):
            stack.enter_context(page(site))
        with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{site.port}/page/socket"):
            pass
        assert refused.value.response.status_code == 503

    def room() -> bool:
        try:
            with page(site):
                return True
        except InvalidStatus:
            return False

    assert until(room)


def test_too_large_frame_ends_only_its_connection(site: Site) -> None:
    with page(site) as other:
        with pytest.raises(ConnectionClosed) as closed, page(site) as ours:  # noqa: PT012
            ours.connection.send("x" * (1 << 20))
            ours.next("pong")
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
        assert other.ping()


def test_page_that_sends_too_many_messages_is_disconnected(site: Site) -> None:
    with page(site) as other:
        with pytest.raises(ConnectionClosed), page(site) as ours:  # noqa: PT012
            for _ in range(20_000):
                ours.send("ping", sent=1)
            ours.next("nothing")
        assert other.ping()


def mistakes(ours: Page) -> None:
    for _ in range(MAX_MISTAKES + 1):
        ours.connection.send("nonsense")
        ours.next("refused")


def too_large(ours: Page) -> None:
    ours.connection.send("x" * (MAX_FRAME + 1))
    ours.next("pong")


def too_much(ours: Page) -> None:
    for _ in range(20_000):
        ours.send("ping", sent=1)
    ours.next("nothing")


@pytest.mark.parametrize("misbehave", [mistakes, too_large, too_much])
def test_misbehaving_client_may_connect_less_often(misbehave: Callable[[Page], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_socket, "RATE", 0.0001)  # only the burst allowance remains: BURST connections for others
    count = 0
    with served() as site, contextlib.suppress(TimeoutError):
        while count < BURST:
            with connect(f"ws://127.0.0.1:{site.port}/page/socket", compression=None, open_timeout=3.0) as connection:
                count += 1
                with pytest.raises((ConnectionClosed, TimeoutError)):
                    misbehave(Page(connection))
    assert 1 <= count <= BURST / PENALTY


def test_closing_ends_the_connections_and_frees_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceivers_live.page.server.OPEN_TIMEOUT", 100 * PATIENCE)
    site = Site()
    with connect(f"ws://127.0.0.1:{site.port}/page/socket") as connection:
        Page(connection)
        with socket.create_connection(("127.0.0.1", site.port), PATIENCE) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\n")
            began = time.monotonic()
            site.close()
            assert time.monotonic() - began < 10 * PATIENCE, "it has waited for the rest of the request"
            with contextlib.suppress(ConnectionResetError):  # the kernel's answer where bytes were still unread
                assert slow.recv(1) == b""
        with pytest.raises(ConnectionClosed):  # noqa: PT012
            while True:
                connection.recv(PATIENCE)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", site.port))


def test_a_persistent_error_of_accept_is_not_retried_without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0

    def fail(listening: socket.socket) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 10:
            listening.close()
        raise OSError(errno.EMFILE, "no file descriptor free")

    monkeypatch.setattr(socket.socket, "accept", fail)
    began = time.monotonic()
    with pytest.raises(OSError, match="file descriptor"):
        ListeningSocket(socket.AF_INET, ("127.0.0.1", 0), lambda _: True).accept()
    assert time.monotonic() - began > 9 * 0.9 * RETRY


def test_connection_accepted_after_hang_up_all_is_closed_too() -> None:
    with (
        closing(ListeningSocket(socket.AF_INET, ("127.0.0.1", 0), lambda _: True)) as listening,
        socket.create_connection(listening.getsockname(), PATIENCE) as client,
    ):
        listening.hang_up_all()
        accepted, _ = listening.accept()
        with accepted:
            assert client.recv(1) == b""


def test_a_request_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceivers_live.page.server.OPEN_TIMEOUT", 0.2)
    with served() as site, socket.create_connection(("127.0.0.1", site.port), 10 * PATIENCE) as slow:
        slow.sendall(b"GET /page/ HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionResetError):
            while slow.recv(4096):
                pass


def test_a_page_that_does_not_answer_pings_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceivers_live.page.server.ALIVE", 0.2)
    handshake = "\r\n".join(
        [
            "GET /page/socket HTTP/1.1",
            "Host: 127.0.0.1",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
            "",
            "",
        ]
    )
    with served() as site, socket.create_connection(("127.0.0.1", site.port), 10 * PATIENCE) as silent:
        silent.sendall(handshake.encode())
        assert silent.recv(4096).startswith(b"HTTP/1.1 101")
        with contextlib.suppress(ConnectionResetError):
            while silent.recv(4096):  # reads, but sends no pong
                pass
