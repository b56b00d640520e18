"""Unplugged devices, a killed JACK server, a killed daemon: no note hangs, and the daemon recovers by itself."""

from __future__ import annotations

import ctypes
import ctypes.util
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from perceivers_live.midi.connections import INTERVAL
from tests.free_port import free_port
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.waiting import TIMEOUT

REGISTRATION = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)
DAEMON = ("--in", "stage-keys", "--out", "stage-synth", "--seed", "3")


@pytest.fixture
def server() -> Iterator[JackServer]:
    """A server for one test, which may kill it."""
    with JackServer() as server:
        yield server


@pytest.fixture
def start_peer(server: JackServer) -> Iterator[Callable[[], Peer]]:
    with ExitStack() as closing:

        def begin() -> Peer:
            peer = Peer(server)
            closing.callback(peer.close)
            return peer

        yield begin


@pytest.fixture
def start(server: JackServer, home: Home) -> Iterator[Callable[[], Any]]:
    with ExitStack() as closing:

        def begin(*arguments: str) -> Any:
            daemon = Daemon((*DAEMON, *arguments, "--osc-port", str(free_port())), server.env, home)
            closing.callback(daemon.end)
            daemon.wait_for_line("listening;", TIMEOUT)
            return daemon

        yield begin


def test_daemon_waits_for_missing_ports(start_peer: Callable[[], Peer], start: Callable[[], Any]) -> None:
    daemon = start()
    daemon.wait_for_line("waiting for it", TIMEOUT)
    peer = start_peer()
    daemon.wait_for_line("in: stage-keys", TIMEOUT)
    peer.play_until_answered()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    peer.until(lambda: not peer.sounding)


def test_daemon_opens_no_jack_clients_while_it_waits_for_ports(
    server: JackServer, start: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JACK server rearranges its graph for each client that comes or goes; under load it may then hang."""
    for name in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER"):
        monkeypatch.setenv(name, server.env[name])
    seen: list[str] = []
    with recording_clients(seen):
        start()
        assert [name for name in seen if name.startswith("perceivers-live")]
        seen.clear()
        time.sleep(4 * INTERVAL)
        assert seen == []


@contextmanager
def recording_clients(seen: list[str]) -> Iterator[None]:
    """Records the names of all JACK clients that come or go."""
    library = ctypes.CDLL(ctypes.util.find_library("jack") or "libjack.so.0")
    library.jack_client_open.restype = ctypes.c_void_p
    client = ctypes.c_void_p(library.jack_client_open(b"watcher", 1, None))
    callback = REGISTRATION(lambda name, *_: seen.append(name.decode()))
    library.jack_set_client_registration_callback(client, callback, None)
    library.jack_activate(client)
    try:
        yield
    finally:
        library.jack_client_close(client)


def test_unplugged_keyboard_is_reconnected(start_peer: Callable[[], Peer], start: Callable[[], Any]) -> None:
    peer, daemon = start_peer(), start()
    peer.play_until_answered()
    peer.send(0x90, 40, 90)  # held while the cable is pulled
    peer.close()
    daemon.wait_for_line("input stage-keys.* has disappeared", TIMEOUT)
    lines = len(daemon.lines)
    new_peer = start_peer()
    daemon.wait_for_line("in: stage-keys", TIMEOUT, start=lines)
    new_peer.play_until_answered()  # a key that still counted as held would delay the answer
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    new_peer.until(lambda: not new_peer.sounding)


def test_keyboard_that_disappears_briefly_is_reconnected(start_peer: Callable[[], Peer], start: Callable[[], Any]) -> None:
    """Usually for less time than the interval between two checks of the ports."""
    peer, daemon = start_peer(), start()
    for _ in range(4):
        lines = len(daemon.lines)
        peer.send(0x90, 40, 90)
        peer.close()
        peer = start_peer()
        daemon.wait_for_line("in: stage-keys", TIMEOUT, start=lines)
        daemon.wait_for_line("out: stage-synth", TIMEOUT, start=lines)
        peer.play_until_answered()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    peer.until(lambda: not peer.sounding)


def test_daemon_reconnects_after_a_restart_of_the_jack_server(
    server: JackServer, start_peer: Callable[[], Peer], start: Callable[[], Any]
) -> None:
    peer, daemon = start_peer(), start()
    peer.play_until_answered()
    lines = len(daemon.lines)
    server.restart()
    daemon.wait_for_line("MIDI system is back", TIMEOUT)
    new_peer = start_peer()
    daemon.wait_for_line("in: stage-keys", TIMEOUT, start=lines)
    new_peer.play_until_answered()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    new_peer.until(lambda: not new_peer.sounding)


def test_daemon_waits_for_a_midi_system(home: Home) -> None:
    server = JackServer()
    daemon = Daemon((*DAEMON, "--osc-port", str(free_port())), server.env, home)
    try:
        daemon.wait_for_line("no MIDI system.*trying again", TIMEOUT)
        with server:
            peer = Peer(server)
            daemon.wait_for_line("in: stage-keys", TIMEOUT)
            peer.play_until_answered()
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
            peer.until(lambda: not peer.sounding)
            peer.close()
    finally:
        daemon.end()


def test_killed_daemon_leaves_no_sounding_note_on_another_channel(
    start_peer: Callable[[], Peer], start: Callable[..., Any]
) -> None:
    peer, daemon = start_peer(), start("--thru", "--mode", "listen")
    peer.send(0x94, 50, 90)
    peer.until(lambda: 50 in peer.sounding)
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    peer.until(lambda: not peer.sounding)
    peer.send(0x84, 50, 0)


def test_killed_daemon_leaves_no_sounding_notes(start_peer: Callable[[], Peer], start: Callable[[], Any]) -> None:
    peer, daemon = start_peer(), start()
    for _ in range(3):
        peer.play_until_answered()
        peer.until(lambda: peer.sounding)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        peer.until(lambda: not peer.sounding)
        daemon = start()
