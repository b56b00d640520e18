"""A keyboard and a synthesizer in another process, and the handle to it: python -m tests.live.peer NAME

The process reads raw MIDI messages from standard input, one a line as hex bytes, and sends them on the JACK port NAME-keys; it
prints every message that arrives on the port NAME-synth likewise, after the monotonic time in seconds. It ends with its standard
input.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.live.jack_server import JackServer
from tests.live.patience import PATIENCE, until
from tests.live.recording import CONTROL_CHANGE, NOTE_OFF, NOTE_ON, SUSTAIN, Message, hanging_notes, notes_on, pedal_down

ROOT = Path(__file__).parents[2]


class Peer:
    """A keyboard and a synthesizer, and what has arrived there. Times are those of ``time.perf_counter``."""

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
        self.struck = 0  # note-ons that have arrived
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
        """A phrase, detached; returns its note-ons, at the times they were asked for."""
        struck = []
        for pitch in pitches or (60, 64, 67, 72):
            struck.append(Message(time.perf_counter(), NOTE_ON, pitch, 80))
            self.send(NOTE_ON, pitch, 80)
            time.sleep(0.12)
            self.send(NOTE_OFF, pitch, 64)
        return struck

    def send(self, *message: int) -> None:
        assert self._process.stdin is not None
        with self._sending:
            self._process.stdin.write(bytes(message).hex(" ") + "\n")
            self._process.stdin.flush()

    @property
    def received(self) -> list[Message]:
        """What has arrived, at the times it did; of longer messages the first three bytes."""
        return self._messages.copy()

    @property
    def notes(self) -> list[Message]:
        """The note-ons that have arrived."""
        return notes_on(self.received)

    @property
    def sounding(self) -> set[int]:
        """Pitches without a note-off; the pedal as -1."""
        received = self.received
        return hanging_notes(received) | ({-1} if pedal_down(received) else set())

    @property
    def controllers(self) -> list[tuple[int, int]]:
        """The controllers that have arrived, but for the pedal: number and value."""
        changes = [message for message in self.received if message.status & 0xF0 == CONTROL_CHANGE]
        return [(message.data1, message.data2) for message in changes if message.data1 != SUSTAIN]

    def until(self, condition: Callable[[], object]) -> None:
        until(condition, lambda: f"the last that arrived: {self.received[-20:]}")

    def answered(self) -> None:
        """Plays, and waits until the machine has begun to answer."""
        before = self.struck
        self.play()
        self.until(lambda: self.struck > before + 1)

    def close(self) -> None:
        """Ends it in good order: a JACK server suffers from clients that just die."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(PATIENCE)
        self._process.stdout.close()


def main() -> None:
    import rtmidi  # here, since it does not load where JACK is missing, and the tests are to be skipped there

    name = sys.argv[1]
    keys, synth = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, f"{name}-keys"), rtmidi.MidiIn(rtmidi.API_UNIX_JACK, f"{name}-synth")
    keys.open_virtual_port("port")

    ending, quiet = threading.Event(), threading.Event()

    def arrived(event: tuple[list[int], float], _: object) -> None:
        if ending.is_set():  # here, since python-rtmidi frees a callback even under a message that is on its way to it
            synth.cancel_callback()
            quiet.set()
        else:
            print(f"{time.perf_counter():.6f} {bytes(event[0]).hex(' ')}", flush=True)

    synth.set_callback(arrived)
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
