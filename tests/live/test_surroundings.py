"""The daemon's surroundings: MIDI controllers, files, connections, and other programs on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

import mido
import pytest

from perceivers_live.controls.midi_map_file import Binding, read
from perceivers_live.midi.echo import WINDOW
from tests.free_port import free_port
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.live_session import LiveSession
from tests.live.peer import Peer
from tests.live.recording import Message
from tests.live.waiting import TIMEOUT

Start = Callable[..., LiveSession]
KNOB = 20
FLOOD = """
import sys, time
from perceivers_live.midi.ports import InputPort
received = []
for _ in range(40):
    port = InputPort(sys.argv[1], lambda now, message: received.append(message))
    time.sleep(0.02)
    port.close()
print(len(received))
"""


def test_learnt_controller_is_saved_and_changes_its_control(start_session: Start, home: Home) -> None:
    session = start_session("--mode", "listen")
    session.remote.send("learn", "temperature")
    assert session.remote.ask("temperature") == 1.0  # by now the learn request has been processed
    for value in (0, 20, 40):
        session.peer.send(0xB0, KNOB, value)
    session.peer.until(lambda: f"learnt temperature: CC {KNOB} on channel 1 is bound to temperature" in session.remote.messages)
    assert read(home.midi_map) == [Binding("temperature", KNOB, 1)]
    session.peer.send(0xB0, KNOB, 127)
    session.peer.until(lambda: [change.values for change in session.remote.received("temperature")[1:]][-1:] == [(1.5,)])
    session.close()

    again = start_session("--mode", "listen")
    again.peer.send(0xB0, KNOB, 127)
    again.peer.until(lambda: again.remote.received("temperature"))
    assert again.remote.received("temperature")[0].values == (1.5,)


def test_a_state_is_saved_and_recalled_by_name(start_session: Start, home: Home) -> None:
    session = start_session("--mode", "listen")
    session.peer.play()
    session.remote.send("save", "evening")
    session.peer.until(lambda: list((home.data / "states").glob("evening*")))
    session.remote.send("recall", "morning")
    session.peer.until(lambda: session.remote.errors)
    assert "morning" in str(session.remote.errors[0])
    session.remote.send("forget")
    session.remote.send("recall", "evening")
    session.remote.send("mode", "respond")
    session.remote.send("takeover")
    session.wait_for_notes()
    session.remote.send("recall", "evening")  # also while it plays
    session.wait_for_state("listening")
    session.wait_for_silence()
    assert len(session.remote.errors) == 1


def test_recording_has_the_notes_of_human_and_machine(start_session: Start, home: Home) -> None:
    session = start_session()
    human = session.peer.play(60, 64, 67, 72, 67)
    session.wait_for_state("playing")
    session.wait_for_notes()
    session.close()
    (file,) = home.sessions
    tracks = {track.name: track for track in mido.MidiFile(file).tracks}
    assert note_ons(tracks["human"]) == [(note.data1, note.data2) for note in human]
    assert note_ons(tracks["machine"]) == [(note.data1, note.data2) for note in session.peer.notes]
    for track in tracks.values():
        ons = sum(message.type == "note_on" and message.velocity > 0 for message in track)
        assert ons == sum(message.type == "note_off" or (message.type == "note_on" and not message.velocity) for message in track)


def note_ons(track: mido.MidiTrack) -> list[tuple[int, int]]:
    """Pitch and velocity of the track's note-ons."""
    return [(message.note, message.velocity) for message in track if message.type == "note_on" and message.velocity]


def test_echo_of_the_output_is_ignored_and_reported_once(start_session: Start, jack: JackServer, home: Home) -> None:
    session = start_session("--mode", "solo")
    jack.connect(jack.wait_for_port("perceivers-live-out", TIMEOUT), jack.wait_for_port("perceivers-live-in", TIMEOUT))
    session.daemon.wait_for_line("comes back on the input", TIMEOUT)
    session.wait_for_notes(12)
    assert "listening" not in session.remote.states, "its own notes silenced it"
    session.remote.send("yield")
    session.wait_for_state("listening")
    session.wait_for_silence()
    assert sum("its echoes are ignored" in line for line in session.daemon.lines) == 1
    session.close()
    (file,) = home.sessions
    tracks = {track.name: track for track in mido.MidiFile(file).tracks}
    echoes = len(note_ons(tracks["human"]))
    assert 0 < echoes <= len(note_ons(tracks["machine"])) - 10, "echoes were recorded after the proof as well"


def test_thru_forwards_the_input(start_session: Start) -> None:
    session = start_session("--mode", "listen", "--thru")
    session.peer.send(0x90, 60, 81)
    session.peer.send(0xB0, 64, 127)
    session.peer.send(0xE3, 0, 80)  # a pitch bend, on another channel
    session.peer.until(lambda: {60, -1} == session.peer.sounding and forwarded(session.peer, 0xE3, 0, 80))
    assert forwarded(session.peer, 0x90, 60, 81)
    session.remote.send("thru", 0)
    assert session.remote.ask("thru") == 0
    session.peer.send(0x90, 62, 81)
    session.peer.send(0x80, 60, 64)  # forwarded notes end
    session.peer.send(0xB0, 64, 0)
    session.peer.until(lambda: not session.peer.sounding)
    assert not forwarded(session.peer, 0x90, 62, 81)
    session.peer.send(0x80, 62, 64)


def forwarded(peer: Peer, *message: int) -> list[Message]:
    return [received for received in peer.received if received[1:] == message]


def test_system_messages_do_not_affect_the_notes(start_session: Start) -> None:
    session = start_session("--mode", "listen", "--thru")
    for velocity, message in enumerate(((0xF0, *range(100), 0xF7), (0xFE,), (0xF8,), (0xF1, 5), (0xF2, 1, 2), (0xFF,)), 80):
        session.peer.send(*message)
        session.peer.send(0x90, 60, velocity)
        session.peer.send(*message)
        session.peer.send(0x80, 60, 64)
        time.sleep(2 * WINDOW)  # the same message sooner would look like an echo of the forwarded one
    session.peer.until(lambda: session.peer.struck == 6 and not session.peer.sounding)
    assert {message.status for message in session.peer.received} <= {0x90, 0x80, 0xB0}


def test_demo_plays_on_an_output_port(jack: JackServer, home: Home) -> None:
    peer = Peer(jack, "audience")
    try:
        home.configure("[midi]\nchannel = 3\n[controls]\nthru = true\n")
        demo = Daemon(("demo", "--out", peer.synth, "--seed", "2", "--response-length", "0.3"), jack.env, home)
        assert demo.wait(TIMEOUT) == 0
        tracks = {track.name: track for track in mido.MidiFile(home.working / "demo.mid").tracks}
        written = note_ons(tracks["human"]) + note_ons(tracks["machine"])
        peer.until(lambda: peer.struck == len(written))
        assert {message.status & 0x0F for message in peer.notes} == {2}
        peer.until(lambda: not peer.sounding)
    finally:
        peer.close()


def test_two_daemons_run_independently(start_session: Start, home: Home) -> None:
    left, right = start_session("--mode", "solo"), start_session()
    left.remote.send("temperature", 0.5)
    assert left.remote.ask("temperature") == 0.5
    assert right.remote.ask("temperature") == 1.0
    left.wait_for_notes()
    assert right.peer.struck == 0
    right.peer.play()
    right.wait_for_notes()
    left.close()
    right.peer.play()
    right.wait_for_notes()
    right.close()
    assert len(home.sessions) == 2


def test_second_daemon_on_the_same_ports_leaves_the_first_ones_synthesizer_alone(
    start_session: Start, daemon: Callable[..., Daemon]
) -> None:
    first = start_session("--mode", "solo")
    first.wait_for_notes()
    before = first.peer.controllers
    second = daemon("--in", first.peer.keys, "--out", first.peer.synth, "--osc-port", str(first.osc_port))
    assert second.wait() == 1
    second.wait_for_line("OSC cannot listen on")
    first.wait_for_notes(3)
    assert first.peer.controllers == before  # a daemon that opens its output sends all notes off


def test_oscquery_describes_the_controls_on_loopback(start_session: Start) -> None:
    session = start_session("--mode", "listen")
    address = session.daemon.wait_for_line(r"the page is at (http://127\.0\.0\.1:\d+)")[1]
    session.remote.send("temperature", 0.5)
    assert session.remote.ask("temperature") == 0.5
    assert fetched(f"{address}/perceivers/temperature?VALUE") == {"VALUE": [0.5]}
    port = session.daemon.wait_for_line(r"OSC on 127\.0\.0\.1:(\d+)")[1]
    info = fetched(f"{address}/?HOST_INFO")
    assert (info["OSC_IP"], info["OSC_PORT"]) == ("127.0.0.1", int(port))
    assert {"temperature", "takeover", "learn", "save"} <= fetched(f"{address}/perceivers")["CONTENTS"].keys()


def fetched(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=10) as response:
        found: dict[str, object] = json.load(response)
        return found


def test_an_input_can_be_closed_under_a_flood_of_messages(jack: JackServer) -> None:
    peer, ending = Peer(jack, "flood"), threading.Event()

    def send_flood() -> None:
        while not ending.wait(0.001):
            for value in range(4):
                peer.send(0xB0, 1, value)

    thread = threading.Thread(target=send_flood)
    thread.start()
    try:
        done = subprocess.run([sys.executable, "-c", FLOOD, peer.keys], env=jack.env, capture_output=True, text=True, timeout=60)
    finally:
        ending.set()
        thread.join()
        peer.close()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_probe_reports_the_jack_period(jack: JackServer) -> None:
    program = "from perceivers_live.midi.ports import Probe; print(Probe().resolution)"
    done = subprocess.run([sys.executable, "-c", program], env=jack.env, capture_output=True, text=True, timeout=TIMEOUT)
    assert float(done.stdout) == pytest.approx(jack.period / 48000), done.stderr


def test_doctor_checks_all_parts_and_measures_the_loopback(jack: JackServer, home: Home, daemon: Callable[..., Daemon]) -> None:
    report = home.working / "report.json"
    home.configure(f"[osc]\nport = {free_port()}\n[page]\nport = 0\n")
    doctor = daemon("doctor", "--loopback", "--json", str(report))
    jack.connect(jack.wait_for_port("perceivers-live-out", TIMEOUT), jack.wait_for_port("perceivers-live-in", TIMEOUT))
    doctor.wait(TIMEOUT)
    rows = {row["name"]: row for row in json.loads(report.read_text(encoding="utf-8"))["rows"]}
    for name in ("settings", "MIDI inputs", "MIDI outputs", "OSC", "page", "checkpoint", "loopback"):
        assert rows[name]["good"], rows[name]
    assert "round trip" in rows["loopback"]["text"]


def test_doctor_gives_advice_about_a_missing_port(home: Home, daemon: Callable[..., Daemon]) -> None:
    report = home.working / "report.json"
    assert daemon("doctor", "--in", "Bösendorfer", "--json", str(report)).wait(TIMEOUT) == 1
    rows = {row["name"]: row for row in json.loads(report.read_text(encoding="utf-8"))["rows"]}
    assert not rows["input port"]["good"]
    assert "connect it" in rows["input port"]["advice"]


def test_doctor_accepts_the_page_as_both_ports(home: Home, daemon: Callable[..., Daemon]) -> None:
    report = home.working / "report.json"
    daemon("doctor", "--in", "page", "--out", "page", "--json", str(report)).wait(TIMEOUT)
    rows = {row["name"]: row for row in json.loads(report.read_text(encoding="utf-8"))["rows"]}
    assert rows["input port"]["good"]
    assert rows["output port"]["good"]
    assert "loop" not in rows
