"""Connections that another program makes and cuts while all the ports stay; a server that refuses clients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import rtmidi

from perceivers_live.midi import ports
from tests.live.jack_server import JackServer
from tests.live.stage import Stage
from tests.live.waiting import TIMEOUT

Start = Callable[..., Stage]


def test_what_is_held_when_the_input_is_disconnected_is_let_go_and_said(stage: Start, jack: JackServer) -> None:
    one = stage("--mode", "listen", "--thru")
    ours = jack.wait_for_port("perceivers-live-in")
    one.peer.send(0x90, 60, 80)
    one.peer.send(0x90, 64, 80)
    one.peer.send(0xB0, 64, 127)
    one.peer.until(lambda: one.peer.sounding == {60, 64, -1})
    jack.disconnect(one.peer.keys, ours)
    one.daemon.wait_for_line("input was disconnected from", TIMEOUT)
    one.peer.until(lambda: not one.peer.sounding)
    lines = len(one.daemon.lines)
    jack.connect(one.peer.keys, ours)
    one.daemon.wait_for_line("input is connected again", TIMEOUT, start=lines)
    one.peer.send(0x90, 60, 80)
    one.peer.until(lambda: one.peer.sounding == {60})
    one.peer.send(0x80, 60, 64)
    one.peer.until(lambda: not one.peer.sounding)


def test_a_keyboard_that_is_disconnected_from_a_virtual_port_is_lost_as_well(stage: Start, jack: JackServer) -> None:
    one = stage("--mode", "listen", "--thru", "--in", "")
    ours = jack.wait_for_port("perceivers-live-in")
    jack.connect(one.peer.keys, ours)
    one.peer.send(0x90, 60, 80)
    one.peer.until(lambda: one.peer.sounding == {60})
    jack.disconnect(one.peer.keys, ours)
    one.peer.until(lambda: not one.peer.sounding)
    one.daemon.wait_for_line("input was disconnected from", TIMEOUT)


def test_what_hangs_on_an_output_that_was_disconnected_ends_when_it_is_connected_again(stage: Start, jack: JackServer) -> None:
    one = stage("--mode", "solo")
    ours = jack.wait_for_port("perceivers-live-out")
    one.wait_for_notes(4)
    one.peer.until(lambda: one.peer.sounding)
    jack.disconnect(ours, one.peer.synth)
    one.daemon.wait_for_line("output was disconnected from", TIMEOUT)
    one.remote.send("yield")
    one.wait_for_state("listening")
    jack.connect(ours, one.peer.synth)
    one.daemon.wait_for_line("output is connected again", TIMEOUT)
    one.peer.until(lambda: not one.peer.sounding)


@pytest.mark.usefixtures("jack")
@pytest.mark.parametrize("kind", ["MidiIn", "MidiOut"])
def test_a_client_that_a_busy_server_refuses_is_asked_for_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, refused = getattr(rtmidi, kind), []

    def busy(api: int, name: str) -> object:
        if name.endswith("-look") and len(refused) < refusals:
            refused.append(name)
            raise rtmidi.SystemError("JACK server not running?")
        return client(api, name)

    monkeypatch.setattr(rtmidi, kind, busy)
    refusals = ports.ATTEMPTS - 1
    ports.list_ports()
    assert len(refused) == refusals
    refusals = 2 * ports.ATTEMPTS
    with pytest.raises(ports.PortError, match=r"refuses a client.*not running"):
        ports.list_ports()
