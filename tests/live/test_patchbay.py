"""Connections made and removed by another program while all ports stay; a server that refuses clients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import rtmidi

from perceivers_live.midi import ports
from tests.live.jack_server import JackServer
from tests.live.live_session import LiveSession
from tests.live.waiting import TIMEOUT

Start = Callable[..., LiveSession]


def test_input_disconnection_releases_held_notes_and_is_logged(start_session: Start, jack: JackServer) -> None:
    session = start_session("--mode", "listen", "--thru")
    ours = jack.wait_for_port("perceivers-live-in")
    session.peer.send(0x90, 60, 80)
    session.peer.send(0x90, 64, 80)
    session.peer.send(0xB0, 64, 127)
    session.peer.until(lambda: session.peer.sounding == {60, 64, -1})
    jack.disconnect(session.peer.keys, ours)
    session.daemon.wait_for_line("input was disconnected from", TIMEOUT)
    session.peer.until(lambda: not session.peer.sounding)
    lines = len(session.daemon.lines)
    jack.connect(session.peer.keys, ours)
    session.daemon.wait_for_line("input is connected again", TIMEOUT, start=lines)
    session.peer.send(0x90, 60, 80)
    session.peer.until(lambda: session.peer.sounding == {60})
    session.peer.send(0x80, 60, 64)
    session.peer.until(lambda: not session.peer.sounding)


def test_disconnection_from_a_virtual_input_releases_held_notes(start_session: Start, jack: JackServer) -> None:
    session = start_session("--mode", "listen", "--thru", "--in", "")
    ours = jack.wait_for_port("perceivers-live-in")
    jack.connect(session.peer.keys, ours)
    session.peer.send(0x90, 60, 80)
    session.peer.until(lambda: session.peer.sounding == {60})
    jack.disconnect(session.peer.keys, ours)
    session.peer.until(lambda: not session.peer.sounding)
    session.daemon.wait_for_line("input was disconnected from", TIMEOUT)


def test_hanging_notes_end_when_the_output_is_reconnected(start_session: Start, jack: JackServer) -> None:
    session = start_session("--mode", "solo")
    ours = jack.wait_for_port("perceivers-live-out")
    session.wait_for_notes(4)
    session.peer.until(lambda: session.peer.sounding)
    jack.disconnect(ours, session.peer.synth)
    session.daemon.wait_for_line("output was disconnected from", TIMEOUT)
    session.remote.send("yield")
    session.wait_for_state("listening")
    jack.connect(ours, session.peer.synth)
    session.daemon.wait_for_line("output is connected again", TIMEOUT)
    session.peer.until(lambda: not session.peer.sounding)


@pytest.mark.usefixtures("jack")
@pytest.mark.parametrize("kind", ["MidiIn", "MidiOut"])
def test_refused_jack_client_is_requested_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, refused = getattr(rtmidi, kind), []

    def open_client(api: int, name: str) -> object:
        if name.endswith("-look") and len(refused) < refusals:
            refused.append(name)
            raise rtmidi.SystemError("JACK server not running?")
        return client(api, name)

    monkeypatch.setattr(rtmidi, kind, open_client)
    refusals = ports.ATTEMPTS - 1
    ports.list_ports()
    assert len(refused) == refusals
    refusals = 2 * ports.ATTEMPTS
    with pytest.raises(ports.PortError, match=r"refuses a client.*not running"):
        ports.list_ports()
