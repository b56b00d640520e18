"""The test equipment itself: Pure Data, JACK and their ports, without a daemon."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_server import BlockingOSCUDPServer
from pythonosc.udp_client import SimpleUDPClient

from perceivers_live.midi.ports import with_retries
from tests.live.jack_server import JackServer, end
from tests.live.pure_data import PureData
from tests.live.recording import CONTROL_CHANGE, NOTE_ON, SUSTAIN, Message, hanging_notes, note, notes_on, pedal, pedal_down
from tests.live.waiting import until

PHRASE = [
    *note(0.0, 0.3, 60, 100),
    *note(0.0, 0.3, 64, 1),
    pedal(0.1, 127),
    *note(0.3, 0.1, 60, 127),  # note-on at the time of the previous note-off
    pedal(0.45, 0),
]
SETTLE = 0.2  # seconds for the last message to pass JACK: two periods, and delays on a busy machine


def without_times(messages: list[Message]) -> list[tuple[int, ...]]:
    return [message[1:] for message in messages]


def sorted_by_time(messages: list[Message]) -> list[Message]:
    return sorted(messages, key=lambda message: message.time)


@pytest.fixture
def osc_server() -> Iterator[tuple[int, list[tuple[object, ...]]]]:
    """A python-osc server on loopback that sends each message back: its port, and the received messages."""
    received: list[tuple[object, ...]] = []

    def answer(address: str, *args: object) -> tuple[object, ...]:
        received.append((address, *args))
        return (f"{address}/reply", *args)

    dispatcher = Dispatcher()
    dispatcher.set_default_handler(answer)
    with BlockingOSCUDPServer(("127.0.0.1", 0), dispatcher) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_address[1], received
        server.shutdown()
        thread.join()


def test_pure_data_plays_a_phrase_in_order_and_in_time(jack: JackServer, pure_data: PureData) -> None:
    rtmidi = pytest.importorskip("rtmidi")
    listener = with_retries(lambda: rtmidi.MidiIn(rtapi=rtmidi.API_UNIX_JACK, name="listener"))
    try:
        listener.open_virtual_port("in")
        jack.connect(pure_data.output_port, "listener:in")
        pure_data.play(PHRASE)
        pure_data.wait_for(lambda: not pure_data.playing)
        arrived: list[tuple[int, ...]] = []

        def all_arrived() -> bool:
            arrived.extend(tuple(event[0]) for event in iter(listener.get_message, None))
            return len(arrived) >= len(PHRASE)

        until(all_arrived)
    finally:
        listener.delete()
    assert arrived == without_times(sorted_by_time(PHRASE))
    played = pure_data.played()
    assert played[-1].time - played[0].time == pytest.approx(0.45, abs=0.4)


def test_pure_data_records_all_bytes(jack: JackServer, pure_data: PureData) -> None:
    rtmidi = pytest.importorskip("rtmidi")
    sender = with_retries(lambda: rtmidi.MidiOut(rtapi=rtmidi.API_UNIX_JACK, name="sender"))
    messages = [(NOTE_ON, 60, velocity) for velocity in range(128)] + [(CONTROL_CHANGE, SUSTAIN, 127), (0xF8,), (0xC3, 5)]
    try:
        sender.open_virtual_port("out")
        jack.connect("sender:out", pure_data.input_port)
        for message in [*messages, (0xF0, 1, 2, 3, 4, 0xF7)]:
            sender.send_message(message)
        pure_data.wait_for(lambda: len(pure_data.received()) > len(messages))
    finally:
        sender.delete()
    assert [tuple(data) for data in pure_data.received_bytes()] == [*messages, (0xF0, 1, 2, 3, 4, 0xF7)]
    assert sorted_by_time(pure_data.received()) == pure_data.received()
    assert pedal_down(pure_data.received())
    assert len(notes_on(pure_data.received())) == 127


def test_pure_data_exchanges_midi_with_jacks_own_programs(jack: JackServer, pure_data: PureData) -> None:
    """`jack_midi_dump` receives what Pd plays; Pd receives what `jack_midiseq` plays."""
    dump = subprocess.Popen(["jack_midi_dump", "-a"], env=jack.env, stdout=subprocess.PIPE)
    pianist = subprocess.Popen(["jack_midiseq", "pianist", "9600", "0", "62", "4800"], env=jack.env)
    try:
        jack.connect(jack.wait_for_port("pianist"), pure_data.input_port)
        jack.connect(pure_data.output_port, jack.wait_for_port("midi-monitor"))
        pure_data.play(PHRASE)
        pure_data.wait_for(lambda: not pure_data.playing and len(pure_data.received()) >= 4)
        time.sleep(SETTLE)
    finally:
        end(pianist)
        dump.send_signal(signal.SIGINT)  # on SIGTERM it would die without leaving the JACK graph
        dump.wait(5)
    assert dump.stdout is not None
    with dump.stdout as output:
        lines = re.findall(r"(?m)^ *\d+: ((?:[0-9a-f]{2} )+)", output.read().decode())
    dumped = [tuple(bytes.fromhex(line)) for line in lines]
    assert dumped == without_times(sorted_by_time(PHRASE))
    on, off = pure_data.received()[:2]
    assert {on[1:], off[1:]} == {(0x90, 62, 64), (0x80, 62, 64)}


def test_pure_data_sends_osc_and_reads_the_replies(pure_data: PureData, osc_server: tuple[int, list[tuple[object, ...]]]) -> None:
    port, received = osc_server
    pure_data.osc_to(port)
    pure_data.send_osc("/perceivers/temperature", 0.75)
    pure_data.send_osc("/perceivers/seed", 7, "two words; and 1", "12")
    pure_data.send_osc("/perceivers/panic")
    pure_data.wait_for(lambda: len(pure_data.osc_received()) == 3)
    expected = [("/perceivers/temperature", 0.75), ("/perceivers/seed", 7, "two words; and 1", "12"), ("/perceivers/panic",)]
    assert received == expected
    assert [type(value) for value in received[1][1:]] == [int, str, str]
    first, second, third = pure_data.osc_received()
    assert first[1:] == ("/perceivers/temperature/reply", (0.75,))
    assert second[1:3] == ("/perceivers/seed/reply", (7.0, "two words; and 1", "12"))
    assert third[1:] == ("/perceivers/panic/reply", ())


def test_pure_data_receives_osc_on_a_separate_port(pure_data: PureData) -> None:
    client = SimpleUDPClient("127.0.0.1", pure_data.osc_listen())
    with client:
        client.send_message("/perceivers/state", ["listening", 0.5])
    pure_data.wait_for(lambda: bool(pure_data.osc_received()))
    assert pure_data.osc_received()[0][1:] == ("/perceivers/state", ("listening", 0.5))


def test_phrase_can_be_stopped(pure_data: PureData) -> None:
    pure_data.play(note(0.0, 30.0, 72))
    pure_data.wait_for(lambda: bool(pure_data.played()))
    with pytest.raises(RuntimeError, match="under way"):
        pure_data.play(note(0.0, 0.1, 60))
    pure_data.stop()
    assert hanging_notes(pure_data.played()) == {72}
    pure_data.play(note(0.0, 0.01, 60))
    pure_data.wait_for(lambda: not pure_data.playing)
    assert [message.data1 for message in pure_data.played()] == [72, 60, 60]


@pytest.mark.parametrize(
    ("messages", "hanging"),
    [
        (note(0, 1, 60), set()),
        ([Message(0, 0x90, 60, 1), Message(1, 0x90, 60, 0)], set()),
        ([Message(0, 0x90, 60, 1), Message(1, 0x81, 60, 0)], {60}),
        ([Message(0, 0x90, 60, 1), Message(1, 0x90, 60, 1), Message(2, 0x80, 60, 0)], {60}),
        ([Message(0, 0x80, 60, 0), Message(1, 0x90, 60, 1)], {60}),
    ],
)
def test_hanging_notes(messages: list[Message], hanging: set[int]) -> None:
    assert hanging_notes(messages) == hanging


def test_jack_server_leaves_no_process_and_no_shared_memory() -> None:
    with JackServer(period=32) as server:
        assert server.ports() == []
        assert server.process is not None
        pid = server.process.pid
    assert not Path(f"/proc/{pid}").exists()
    assert not list(Path("/dev/shm").glob(f"*{server.name}*"))


def test_timeout_errors_contain_details(pure_data: PureData, jack: JackServer) -> None:
    with pytest.raises(TimeoutError, match="puredata-player:out"):
        jack.wait_for_port("nobody", timeout=0.1)
    with pytest.raises(TimeoutError, match=r"not within 0\.1 s"):
        pure_data.wait_for(lambda: False, timeout=0.1)
