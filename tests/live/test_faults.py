"""What a gig does to a daemon: cables pulled, a server killed, the daemon killed. Nothing hangs, and it goes on by itself."""

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
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.remote import free_port
from tests.live.waiting import TIMEOUT

REGISTRATION = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)
DAEMON = ("--in", "stage-keys", "--out", "stage-synth", "--seed", "3")


@pytest.fixture
def server() -> Iterator[JackServer]:
    """A server of the test's own: it will not survive."""
    with JackServer() as server:
        yield server


@pytest.fixture
def stage(server: JackServer) -> Iterator[Callable[[], Peer]]:
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


def test_ports_that_are_not_there_yet_are_waited_for(stage: Callable[[], Peer], start: Callable[[], Any]) -> None:
    daemon = start()
    daemon.wait_for_line("waiting for it", TIMEOUT)
    peer = stage()
    daemon.wait_for_line("in: stage-keys", TIMEOUT)
    peer.play_until_answered()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    peer.until(lambda: not peer.sounding)


def test_a_server_is_left_alone_while_ports_are_waited_for(
    server: JackServer, start: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client that comes or goes has a JACK server rearrange its graph, at which one under load may choke for good."""
    for name in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER"):
        monkeypatch.setenv(name, server.env[name])
    seen: list[str] = []
    with watching(seen):
        start()
        assert [name for name in seen if name.startswith("perceivers-live")]
        seen.clear()
        time.sleep(4 * INTERVAL)
        assert seen == []


@contextmanager
def watching(seen: list[str]) -> Iterator[None]:
    """A client that notes the names of all that come or go."""
    library = ctypes.CDLL(ctypes.util.find_library("jack") or "libjack.so.0")
    library.jack_client_open.restype = ctypes.c_void_p
    watcher = ctypes.c_void_p(library.jack_client_open(b"watcher", 1, None))
    told = REGISTRATION(lambda name, *_: seen.append(name.decode()))
    library.jack_set_client_registration_callback(watcher, told, None)
    library.jack_activate(watcher)
    try:
        yield
    finally:
        library.jack_client_close(watcher)


def test_a_keyboard_that_is_unplugged_and_plugged_in_again(stage: Callable[[], Peer], start: Callable[[], Any]) -> None:
    peer, daemon = stage(), start()
    peer.play_until_answered()
    peer.send(0x90, 40, 90)  # held while the cable is pulled
    peer.close()
    daemon.wait_for_line("input stage-keys.* has disappeared", TIMEOUT)
    lines = len(daemon.lines)
    again = stage()
    daemon.wait_for_line("in: stage-keys", TIMEOUT, start=lines)
    again.play_until_answered()  # a key that were still held would put the answer off
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    again.until(lambda: not again.sounding)


def test_a_keyboard_that_is_away_for_a_moment_only(stage: Callable[[], Peer], start: Callable[[], Any]) -> None:
    """For less time than passes between two looks at the ports, most times."""
    peer, daemon = stage(), start()
    for _ in range(4):
        lines = len(daemon.lines)
        peer.send(0x90, 40, 90)
        peer.close()
        peer = stage()
        daemon.wait_for_line("in: stage-keys", TIMEOUT, start=lines)
        daemon.wait_for_line("out: stage-synth", TIMEOUT, start=lines)
        peer.play_until_answered()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    peer.until(lambda: not peer.sounding)


def test_a_server_that_is_killed_and_started_again(
    server: JackServer, stage: Callable[[], Peer], start: Callable[[], Any]
) -> None:
    peer, daemon = stage(), start()
    peer.play_until_answered()
    lines = len(daemon.lines)
    server.restart()
    daemon.wait_for_line("MIDI system is back", TIMEOUT)
    again = stage()
    daemon.wait_for_line("in: stage-keys", TIMEOUT, start=lines)
    again.play_until_answered()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    again.until(lambda: not again.sounding)


def test_a_midi_system_that_is_not_there_yet_is_waited_for(home: Home) -> None:
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


def test_a_killed_daemon_leaves_no_note_on_another_channel(stage: Callable[[], Peer], start: Callable[..., Any]) -> None:
    peer, daemon = stage(), start("--thru", "--mode", "listen")
    peer.send(0x94, 50, 90)
    peer.until(lambda: 50 in peer.sounding)
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    peer.until(lambda: not peer.sounding)
    peer.send(0x84, 50, 0)


def test_a_killed_daemon_leaves_nothing_sounding(stage: Callable[[], Peer], start: Callable[[], Any]) -> None:
    peer, daemon = stage(), start()
    for _ in range(3):
        peer.play_until_answered()
        peer.until(lambda: peer.sounding)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        peer.until(lambda: not peer.sounding)
        daemon = start()
