"""What is around the music: controllers, files, cables, and who else is on the machine."""

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
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.recording import Message
from tests.live.remote import free_port
from tests.live.stage import Stage
from tests.live.waiting import TIMEOUT

Start = Callable[..., Stage]
KNOB = 20
FLOOD = """
import sys, time
from perceivers_live.midi.ports import InputPort
heard = []
for _ in range(40):
    port = InputPort(sys.argv[1], lambda now, message: heard.append(message))
    time.sleep(0.02)
    port.close()
print(len(heard))
"""


def test_a_controller_is_learnt_kept_in_the_users_file_and_steers(stage: Start, home: Home) -> None:
    one = stage("--mode", "listen")
    one.remote.send("learn", "temperature")
    assert one.remote.ask("temperature") == 1.0  # it has taken note
    for value in (0, 20, 40):
        one.peer.send(0xB0, KNOB, value)
    one.peer.until(lambda: f"learnt temperature: CC {KNOB} on channel 1 steers temperature" in one.remote.messages)
    assert read(home.midi_map) == [Binding("temperature", KNOB, 1)]
    one.peer.send(0xB0, KNOB, 127)
    one.peer.until(lambda: [told.values for told in one.remote.received("temperature")[1:]][-1:] == [(1.5,)])
    one.close()

    again = stage("--mode", "listen")
    again.peer.send(0xB0, KNOB, 127)
    again.peer.until(lambda: again.remote.received("temperature"))
    assert again.remote.received("temperature")[0].values == (1.5,)


def test_a_state_is_saved_and_recalled_by_name(stage: Start, home: Home) -> None:
    one = stage("--mode", "listen")
    one.peer.play()
    one.remote.send("save", "evening")
    one.peer.until(lambda: list((home.data / "states").glob("evening*")))
    one.remote.send("recall", "morning")
    one.peer.until(lambda: one.remote.errors)
    assert "morning" in str(one.remote.errors[0])
    one.remote.send("forget")
    one.remote.send("recall", "evening")
    one.remote.send("mode", "respond")
    one.remote.send("takeover")
    one.wait_for_notes()
    one.remote.send("recall", "evening")  # while it plays, too
    one.wait_for_state("listening")
    one.wait_for_silence()
    assert len(one.remote.errors) == 1


def test_a_session_is_recorded_with_what_each_of_them_played(stage: Start, home: Home) -> None:
    one = stage()
    human = one.peer.play(60, 64, 67, 72, 67)
    one.wait_for_state("playing")
    one.wait_for_notes()
    one.close()
    (file,) = home.sessions
    tracks = {track.name: track for track in mido.MidiFile(file).tracks}
    assert struck(tracks["human"]) == [(note.data1, note.data2) for note in human]
    assert struck(tracks["machine"]) == [(note.data1, note.data2) for note in one.peer.notes]
    for track in tracks.values():
        ons = sum(message.type == "note_on" and message.velocity > 0 for message in track)
        assert ons == sum(message.type == "note_off" or (message.type == "note_on" and not message.velocity) for message in track)


def struck(track: mido.MidiTrack) -> list[tuple[int, int]]:
    """Pitch and velocity of its note-ons."""
    return [(message.note, message.velocity) for message in track if message.type == "note_on" and message.velocity]


def test_a_daemon_that_hears_itself_plays_on_and_says_so_once(stage: Start, jack: JackServer, home: Home) -> None:
    one = stage("--mode", "solo")
    jack.connect(jack.wait_for_port("perceivers-live-out", TIMEOUT), jack.wait_for_port("perceivers-live-in", TIMEOUT))
    one.daemon.wait_for_line("comes back on the input", TIMEOUT)
    one.wait_for_notes(12)
    assert "listening" not in one.remote.states, "its own notes silence it"
    one.remote.send("yield")
    one.wait_for_state("listening")
    one.wait_for_silence()
    assert sum("its echoes are ignored" in line for line in one.daemon.lines) == 1
    one.close()
    (file,) = home.sessions
    tracks = {track.name: track for track in mido.MidiFile(file).tracks}
    echoes = len(struck(tracks["human"]))
    assert 0 < echoes <= len(struck(tracks["machine"])) - 10, "what came back after the proof was heard as well"


def test_thru_passes_on_what_is_played(stage: Start) -> None:
    one = stage("--mode", "listen", "--thru")
    one.peer.send(0x90, 60, 81)
    one.peer.send(0xB0, 64, 127)
    one.peer.send(0xE3, 0, 80)  # a pitch bend, on another channel
    one.peer.until(lambda: {60, -1} == one.peer.sounding and passed(one.peer, 0xE3, 0, 80))
    assert passed(one.peer, 0x90, 60, 81)
    one.remote.send("thru", 0)
    assert one.remote.ask("thru") == 0
    one.peer.send(0x90, 62, 81)
    one.peer.send(0x80, 60, 64)  # what was passed on is ended
    one.peer.send(0xB0, 64, 0)
    one.peer.until(lambda: not one.peer.sounding)
    assert not passed(one.peer, 0x90, 62, 81)
    one.peer.send(0x80, 62, 64)


def passed(peer: Peer, *message: int) -> list[Message]:
    return [one for one in peer.received if one[1:] == message]


def test_system_messages_between_the_notes_change_nothing(stage: Start) -> None:
    one = stage("--mode", "listen", "--thru")
    for velocity, message in enumerate(((0xF0, *range(100), 0xF7), (0xFE,), (0xF8,), (0xF1, 5), (0xF2, 1, 2), (0xFF,)), 80):
        one.peer.send(*message)
        one.peer.send(0x90, 60, velocity)
        one.peer.send(*message)
        one.peer.send(0x80, 60, 64)
        time.sleep(2 * WINDOW)  # the same message sooner would look like an echo of what was passed on
    one.peer.until(lambda: one.peer.struck == 6 and not one.peer.sounding)
    assert {message.status for message in one.peer.received} <= {0x90, 0x80, 0xB0}


def test_a_demo_can_be_heard_at_a_port(jack: JackServer, home: Home) -> None:
    peer = Peer(jack, "audience")
    try:
        demo = Daemon(("demo", "--out", peer.synth, "--seed", "2", "--response-length", "0.3"), jack.env, home)
        assert demo.wait(60) == 0
        tracks = {track.name: track for track in mido.MidiFile(home.working / "demo.mid").tracks}
        written = struck(tracks["you"]) + struck(tracks["machine"])
        peer.until(lambda: peer.struck == len(written))
        peer.until(lambda: not peer.sounding)
    finally:
        peer.close()


def test_two_daemons_play_side_by_side(stage: Start, home: Home) -> None:
    left, right = stage("--mode", "solo"), stage()
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


def test_oscquery_tells_on_loopback_what_there_is(stage: Start) -> None:
    one = stage("--mode", "listen")
    address = one.daemon.wait_for_line(r"the page is at (http://127\.0\.0\.1:\d+)")[1]
    one.remote.send("temperature", 0.5)
    assert one.remote.ask("temperature") == 0.5
    assert fetched(f"{address}/perceivers/temperature?VALUE") == {"VALUE": [0.5]}
    port = one.daemon.wait_for_line(r"OSC on 127\.0\.0\.1:(\d+)")[1]
    info = fetched(f"{address}/?HOST_INFO")
    assert (info["OSC_IP"], info["OSC_PORT"]) == ("127.0.0.1", int(port))
    assert {"temperature", "takeover", "learn", "save"} <= fetched(f"{address}/perceivers")["CONTENTS"].keys()


def fetched(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=10) as response:
        found: dict[str, object] = json.load(response)
        return found


def test_an_input_can_be_closed_under_a_flood_of_messages(jack: JackServer) -> None:
    peer, ending = Peer(jack, "flood"), threading.Event()

    def pour() -> None:
        while not ending.wait(0.001):
            for value in range(4):
                peer.send(0xB0, 1, value)

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        done = subprocess.run([sys.executable, "-c", FLOOD, peer.keys], env=jack.env, capture_output=True, text=True, timeout=60)
    finally:
        ending.set()
        thread.join()
        peer.close()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_the_period_of_jack_is_known(jack: JackServer) -> None:
    program = "from perceivers_live.midi.ports import Probe; print(Probe().resolution)"
    done = subprocess.run([sys.executable, "-c", program], env=jack.env, capture_output=True, text=True, timeout=TIMEOUT)
    assert float(done.stdout) == pytest.approx(jack.period / 48000), done.stderr


def test_doctor_finds_what_is_there_and_measures_a_loop(jack: JackServer, home: Home) -> None:
    report = home.working / "report.json"
    home.configure(f"[osc]\nport = {free_port()}\n")
    daemon = Daemon(("doctor", "--loopback", "--json", str(report)), jack.env, home)
    jack.connect(jack.wait_for_port("perceivers-live-out", TIMEOUT), jack.wait_for_port("perceivers-live-in", TIMEOUT))
    daemon.wait(60)
    rows = {row["name"]: row for row in json.loads(report.read_text(encoding="utf-8"))["rows"]}
    for name in ("settings", "MIDI inputs", "MIDI outputs", "OSC", "checkpoint", "loopback"):
        assert rows[name]["good"], rows[name]
    assert "round trip" in rows["loopback"]["text"]


def test_doctor_says_what_to_do_about_a_port_that_is_not_there(jack: JackServer, home: Home) -> None:
    report = home.working / "report.json"
    daemon = Daemon(("doctor", "--in", "Bösendorfer", "--json", str(report)), jack.env, home)
    assert daemon.wait(60) == 1
    rows = {row["name"]: row for row in json.loads(report.read_text(encoding="utf-8"))["rows"]}
    assert not rows["input port"]["good"]
    assert "connect it" in rows["input port"]["advice"]


def test_doctor_accepts_the_page_as_both_ports(jack: JackServer, home: Home) -> None:
    report = home.working / "report.json"
    Daemon(("doctor", "--in", "page", "--out", "page", "--json", str(report)), jack.env, home).wait(60)
    rows = {row["name"]: row for row in json.loads(report.read_text(encoding="utf-8"))["rows"]}
    assert rows["input port"]["good"]
    assert rows["output port"]["good"]
    assert "loop" not in rows
