"""A MIDI keyboard and a synthesizer in another process, and a class that controls it: python -m tests.live.peer NAME

The process reads raw MIDI messages from standard input, one per line as hex bytes, and sends them from the JACK port NAME-keys.
It prints each message received on the port NAME-synth: the monotonic time in seconds, then hex bytes. It ends when its standard
input is closed.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.realtime import DRIVER, set_realtime
from perceivers_live.midi.ports import with_retries
from tests.live.jack_server import JackServer
from tests.live.recording import CONTROL_CHANGE, NOTE_OFF, NOTE_ON, SUSTAIN, Message, hanging_notes, notes_on, pedal_down
from tests.live.waiting import TIMEOUT, until

ROOT = Path(__file__).parents[2]


class Peer:
    """The keyboard, the synthesizer and its received messages. Times are those of ``time.perf_counter``."""

    def __init__(self, jack: JackServer, name: str = "stage") -> None:
        self.keys, self.synth = f"{name}-keys:port", f"{name}-synth:port"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.live.peer", name],
            cwd=ROOT,
            env=jack.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._messages: list[Message] = []
        self.struck = 0  # number of received note-ons
        self._sending = threading.Lock()
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            when, _, message = line.partition(" ")
            self._messages.append(Message(float(when), *bytes.fromhex(message)[:3]))
            self.struck += len(notes_on(self._messages[-1:]))

    def play(self, *pitches: int) -> list[Message]:
        """Plays a phrase of detached notes; returns its note-ons with the times at which they were requested."""
        played = []
        for pitch in pitches or (60, 64, 67, 72):
            played.append(Message(time.perf_counter(), NOTE_ON, pitch, 80))
            self.send(NOTE_ON, pitch, 80)
            time.sleep(0.12)
            self.send(NOTE_OFF, pitch, 64)
        return played

    def send(self, *message: int) -> None:
        assert self._process.stdin is not None
        with self._sending:
            self._process.stdin.write(bytes(message).hex(" ") + "\n")
            self._process.stdin.flush()

    @property
    def received(self) -> list[Message]:
        """The received messages with arrival times; only the first three bytes of longer messages."""
        return self._messages.copy()

    @property
    def notes(self) -> list[Message]:
        """The received note-ons."""
        return notes_on(self.received)

    @property
    def sounding(self) -> set[int]:
        """Pitches of sounding notes; -1 stands for the pedal."""
        received = self.received
        return hanging_notes(received) | ({-1} if pedal_down(received) else set())

    @property
    def controllers(self) -> list[tuple[int, int]]:
        """Number and value of the received control changes, except the sustain pedal."""
        changes = [message for message in self.received if message.status & 0xF0 == CONTROL_CHANGE]
        return [(message.data1, message.data2) for message in changes if message.data1 != SUSTAIN]

    def until(self, condition: Callable[[], object]) -> None:
        until(condition, lambda: f"last received: {self.received[-20:]}")

    def play_until_answered(self) -> None:
        """Plays a phrase and waits until the machine starts to answer."""
        before = self.struck
        self.play()
        self.until(lambda: self.struck > before)

    def close(self) -> None:
        """Ends the process cleanly: killed clients disturb a JACK server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(TIMEOUT)
        self._process.stdout.close()


def main() -> None:
    import rtmidi  # here: it cannot be loaded without JACK, and the tests must be skipped then

    # As an audio program: a thread that is preempted while it holds the interpreter lock makes JACK's thread miss periods.
    set_realtime(DRIVER)
    name = sys.argv[1]
    keys = with_retries(lambda: rtmidi.MidiOut(rtmidi.API_UNIX_JACK, f"{name}-keys"))
    synth = with_retries(lambda: rtmidi.MidiIn(rtmidi.API_UNIX_JACK, f"{name}-synth"))
    keys.open_virtual_port("port")

    ending, quiet = threading.Event(), threading.Event()

    def on_message(event: tuple[list[int], float], _: object) -> None:
        if ending.is_set():  # here: python-rtmidi frees a callback even while it delivers a message to it
            synth.cancel_callback()
            quiet.set()
        else:
            print(f"{time.perf_counter():.6f} {bytes(event[0]).hex(' ')}", flush=True)

    synth.set_callback(on_message)
    synth.open_virtual_port("port")
    print("ready", flush=True)
    for line in sys.stdin:
        keys.send_message(list(bytes.fromhex(line)))
    ending.set()
    quiet.wait(0.1)
    synth.delete()
    keys.delete()


if __name__ == "__main__":
    main()
