"""The human of `live.py`: a keyboard and a synthesizer on JACK, and how quickly the machine reacts to it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable

import click

from engine.realtime import DRIVER, set_realtime
from tests.live.jack_server import JackServer
from tests.live.recording import CONTROL_CHANGE, NOTE_OFF, NOTE_ON, SUSTAIN, Message
from tests.live.remote import Remote

HUMAN_KEY = 20  # a key below the machine's register
LOST = 1.0  # seconds after which a message counts as lost; its latency is then this time
LOST_TRIPS = 5  # lost round trips at the beginning that end the benchmark
ECHO = """
import sys, rtmidi
out, back = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, "echo-out"), rtmidi.MidiIn(rtmidi.API_UNIX_JACK, "echo-in")
out.open_virtual_port("port")
back.set_callback(lambda event, _: out.send_message(event[0]))
back.open_virtual_port("port")
sys.stdin.read()
back.delete()
"""


class Human:
    """The human: MIDI ports of this process that send a keyboard's messages and record the received ones with their times."""

    def __init__(self) -> None:
        import rtmidi

        set_realtime(DRIVER)  # as audio programs do; for all threads of this process, which share the interpreter lock
        self._out, self._in = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, "human-keys"), rtmidi.MidiIn(rtmidi.API_UNIX_JACK, "human-ear")
        self.clear()
        self._out.open_virtual_port("port")
        self._in.set_callback(self._arrived)
        self._in.open_virtual_port("port")

    def clear(self) -> None:
        """Clears the received messages, note-ons and sounding pitches."""
        self.heard: list[Message] = []
        self.note_ons: list[Message] = []
        self.sounding: set[int] = set()  # pitches; -1: the pedal

    def _arrived(self, event: tuple[list[int], float], _: object) -> None:
        message = Message(time.perf_counter(), *event[0][:3])
        kind = message.status & 0xF0
        if kind == NOTE_ON and message.data2:
            self.note_ons.append(message)
            self.sounding.add(message.data1)
        elif kind in (NOTE_OFF, NOTE_ON):
            self.sounding.discard(message.data1)
        elif (kind, message.data1) == (CONTROL_CHANGE, SUSTAIN):
            (self.sounding.add if message.data2 >= 64 else self.sounding.discard)(-1)
        self.heard.append(message)

    def send(self, *message: int) -> float:
        """Sends a message and returns its time."""
        now = time.perf_counter()
        self._out.send_message(message)
        return now

    def play(self, seconds: float, rng: random.Random) -> None:
        """Plays random notes of 0.1 to 0.25 s for ``seconds``."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pitch = rng.randint(48, 84)
            self.send(NOTE_ON, pitch, rng.randint(40, 100))
            time.sleep(rng.uniform(0.1, 0.25))
            self.send(NOTE_OFF, pitch, 64)
            time.sleep(rng.uniform(0.0, 0.2))

    def close(self) -> None:
        """Closes the ports. Nothing may be sent at the same time."""
        self._in.cancel_callback()
        time.sleep(0.1)  # for a running callback to end
        self._out.delete()
        self._in.delete()


def takeover(human: Human, remote: Remote) -> float | None:
    """Sends a takeover and waits for the first note. Returns the time of the takeover; None if no note arrives within 2 s."""
    before, asked = len(human.note_ons), time.perf_counter()
    remote.send("takeover")
    return asked if wait_for(lambda: len(human.note_ons) > before, 2.0) else None


def interruption(human: Human) -> float | None:
    """Presses a key while the machine sounds. Returns the seconds to its last note-off, ``LOST`` if a note
    remains; None if it does not sound.
    """
    if not wait_for(lambda: human.sounding, 1.0):
        return None
    before = len(human.heard)
    pressed = human.send(NOTE_ON, HUMAN_KEY, 70)
    silent = wait_for(lambda: not human.sounding, LOST)
    time.sleep(0.1)
    human.send(NOTE_OFF, HUMAN_KEY, 64)
    time.sleep(0.05)  # or else the next takeover, by OSC, could arrive before it
    received = human.heard[before:]
    if not silent:
        human.sounding.clear()
        return LOST
    return received[-1].time - pressed if received else None


def wait_for(condition: Callable[[], object], timeout: float) -> bool:
    """Waits for a condition; False after ``timeout`` seconds."""
    deadline = time.perf_counter() + timeout
    while not condition():
        if time.perf_counter() > deadline:
            return False
        time.sleep(0.002)
    return True


def round_trips(jack: JackServer, human: Human, count: int) -> list[float]:
    """The times of ``count`` messages through a process that sends them back, in seconds."""
    with subprocess.Popen([sys.executable, "-c", ECHO], env=jack.env, stdin=subprocess.PIPE) as echo:
        jack.connect("human-keys:port", jack.wait_for_port("echo-in"))
        jack.connect(jack.wait_for_port("echo-out"), "human-ear:port")
        taken = []
        for i in range(count):
            before, value = len(human.heard), i % 128
            sent = human.send(CONTROL_CHANGE, 1, value)

            def returned(before: int = before, value: int = value) -> list[float]:
                return [message.time for message in human.heard[before:] if message.data2 == value]

            wait_for(returned, LOST)
            taken.append(returned()[0] - sent if returned() else LOST)
            if taken == [LOST] * LOST_TRIPS:
                state = "runs" if echo.poll() is None else f"has ended with status {echo.returncode}"
                echo.kill()
                raise click.ClickException(f"no message came back from the echoing process, which {state}")
            time.sleep(random.uniform(0.005, 0.01))
        assert echo.stdin is not None
        echo.stdin.close()
    return taken
