"""Connections made and removed by another program while all ports stay; a server that refuses clients."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import rtmidi

from perceivers_live.controls.settings import MidiSettings
from perceivers_live.midi import ports
from perceivers_live.midi.connections import Callbacks, Connections
from tests.live.jack_server import JackServer
from tests.live.live_session import LiveSession
from tests.live.waiting import TIMEOUT
from tests.waiting import until

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


def test_choosing_the_connected_port_by_its_full_name_keeps_the_connection(
    jack: JackServer, caplog: pytest.LogCaptureFixture
) -> None:
    piano, lost = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, "piano"), list[float]()
    piano.open_virtual_port("port")
    caplog.set_level("INFO")
    try:
        callbacks = Callbacks(input_lost=lambda: lost.append(time.monotonic()))
        with Connections(MidiSettings(input_port="piano"), callbacks) as connections:
            assert until(lambda: connections.names[0], TIMEOUT)
            ours, full = jack.wait_for_port("perceivers-live-in"), connections.names[0]
            for wanted in (full, "piano", "PIANO"):
                connections.choose("input", wanted)
                assert until(lambda wanted=wanted: connections.state.input.wanted == wanted, TIMEOUT)
            jack.disconnect(full, ours)
            assert until(lambda: lost, TIMEOUT)
        assert len(lost) == 1
        assert len([record for record in caplog.records if "disconnected" in record.getMessage()]) == 1
    finally:
        piano.delete()


def test_one_of_two_sources_of_the_input_is_cut_before_the_other(jack: JackServer) -> None:
    """Such as the DAW that sends the clock, beside the keyboard."""
    sources = [rtmidi.MidiOut(rtmidi.API_UNIX_JACK, name) for name in ("piano", "daw")]
    for source in sources:
        source.open_virtual_port("port")
    lost: list[str] = []
    try:
        callbacks = Callbacks(input_lost=lambda: lost.append("input"), source_lost=lambda: lost.append("source"))
        with Connections(MidiSettings(input_port="piano"), callbacks) as connections:
            assert until(lambda: connections.names[0], TIMEOUT)
            ours, daw = jack.wait_for_port("perceivers-live-in"), jack.wait_for_port("daw")
            jack.connect(daw, ours)
            jack.disconnect(daw, ours)
            assert until(lambda: lost == ["source"], TIMEOUT)
            jack.disconnect(connections.names[0], ours)
            assert until(lambda: lost == ["source", "input"], TIMEOUT)
    finally:
        for source in sources:
            source.delete()


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
