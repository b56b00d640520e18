"""Pure Data as pianist, recorder and OSC controller. Needs Pd (Debian: puredata-core) and python-rtmidi built with JACK.

Debian's Pd supports OSS and ALSA MIDI, but not JACK MIDI. Pd plays by its own clock and timestamps received messages. This
process only forwards the messages, unchanged and one at a time, between Pd's socket and two JACK ports.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from perceivers_live.midi.ports import BEFORE_CLOSE, with_retries
from tests.live.jack_server import end
from tests.live.recording import CHANNEL_PRESSURE, PROGRAM_CHANGE, Message, OscMessage
from tests.live.waiting import TIMEOUT

if TYPE_CHECKING:
    import rtmidi

PATCH = Path(__file__).with_name("rig.pd")
FUDI_END, FUDI_ATOM = re.compile(rb"(?<!\\);\n?"), re.compile(r"(?:[^\s\\]|\\.)+", re.DOTALL)


class PureData:
    """Pd with a JACK MIDI output (player) and input (recorder); `with` starts and ends it.

    All times are seconds on Pd's clock since its start. JACK_DEFAULT_SERVER names the JACK server.
    """

    def __init__(self, name: str = "puredata") -> None:
        self.output_port, self.input_port = f"{name}-player:out", f"{name}-recorder:in"
        self.playing = False  # whether a phrase is under way
        self._name = name
        self._closing = threading.Event()
        self._sending = threading.Lock()
        self._changed = threading.Condition(threading.RLock())
        self._played: list[Message] = []
        self._received: list[Message] = []
        self._received_bytes: list[bytes] = []
        self._osc: list[OscMessage] = []
        self._osc_address, self._osc_types = "", ""
        self._pongs: list[float] = []

    def __enter__(self) -> PureData:
        with ExitStack() as stack:
            self._connection = self._start_pd(stack)
            self._player, self._recorder = self._open_ports(stack)
            for job in (self._read_reports, self._forward_recorded):
                thread = threading.Thread(target=job, name=f"pure-data-{job.__name__}")
                thread.start()
                stack.callback(thread.join)
            stack.callback(self._closing.set)
            stack.callback(_shut_down, self._connection)
            self.now()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, messages: Iterable[Message], start_delay: float = 0.05) -> None:
        """Lets Pd play messages at their times (seconds from the start of the phrase), in order; returns immediately."""
        if self.playing:
            raise RuntimeError("a phrase is still under way: wait until it is not `playing`, or `stop` it")
        lines, last = [], -start_delay
        for message in sorted(messages, key=lambda message: message.time):
            lines.append(f"phrase add {1000 * (message.time - last):.3f} rig-play {_numbers(_encode(message))}")
            last = message.time
        self.playing = True
        self._command("phrase clear", *lines, "phrase rewind", "phrase bang")

    def stop(self) -> None:
        """Stops the phrase; pressed keys stay pressed."""
        self._command("phrase rewind")
        self.playing = False

    def send(self, data: bytes) -> None:
        """Lets Pd send one MIDI message now, such as a SysEx."""
        self._command(f"play {_numbers(data)}")

    def played(self) -> list[Message]:
        """The messages that Pd has sent, with their send times."""
        with self._changed:
            return list(self._played)

    def received(self) -> list[Message]:
        """The messages that Pd has received, with arrival times; only the first three bytes of longer ones (SysEx)."""
        with self._changed:
            return list(self._received)

    def received_bytes(self) -> list[bytes]:
        """The received messages with all bytes."""
        with self._changed:
            return list(self._received_bytes)

    def osc_to(self, port: int) -> None:
        """Chooses the UDP port on loopback that OSC is sent to."""
        self._command(f"osc-to connect 127.0.0.1 {port}")

    def osc_listen(self) -> int:
        """Opens another UDP port for OSC than the one that Pd sends from, and returns its number."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._command(f"osc-listen listen {port} 127.0.0.1")
        self.now()
        return port

    def send_osc(self, address: str, *args: float | str) -> None:
        """Sends an OSC message; ints are sent as `i`, floats as `f`, strings as `s`."""
        types = "".join("s" if isinstance(arg, str) else "i" if isinstance(arg, int) else "f" for arg in args)
        values = " ".join(_escape(arg) if isinstance(arg, str) else f"{arg:.9g}" for arg in args)
        parts = " ".join(map(_escape, address.strip("/").split("/")))
        self._command(f"osc-format set {parts}", f"osc-format format {types}", f"osc {values}")

    def osc_received(self) -> list[OscMessage]:
        """The OSC messages received on the port that Pd sends from and on the one of `osc_listen`."""
        with self._changed:
            return list(self._osc)

    def now(self) -> float:
        """Pd's time. When this returns, Pd has also processed all earlier commands."""
        count = len(self._pongs)
        self._command("ping")
        self.wait_for(lambda: len(self._pongs) > count)
        return self._pongs[-1]

    def wait_for(self, predicate: Callable[[], bool], timeout: float = TIMEOUT) -> None:
        """Waits until the predicate is true; it is called after each report from Pd."""
        with self._changed:
            if not self._changed.wait_for(predicate, timeout):
                raise TimeoutError(f"not within {timeout} s; last received {self._received[-20:]}, OSC {self._osc[-5:]}")

    def _start_pd(self, stack: ExitStack) -> socket.socket:
        """Pd connects to our socket, so that no free port has to be guessed, and quits when it is closed."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(10)
            call = f"rig-connect connect 127.0.0.1 {server.getsockname()[1]}"
            flags = ["-nogui", "-noprefs", "-nrt", "-noaudio", "-nomidi", "-sleepgrain", "1"]
            process = subprocess.Popen(["pd", *flags, "-open", str(PATCH), "-send", call], start_new_session=True)
            stack.callback(end, process)
            connection, _ = server.accept()
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _open_ports(self, stack: ExitStack) -> tuple[rtmidi.MidiOut, rtmidi.MidiIn]:
        import rtmidi  # here: it cannot be loaded without JACK, and the tests must be skipped then

        jack = rtmidi.API_UNIX_JACK
        player = with_retries(lambda: rtmidi.MidiOut(jack, f"{self._name}-player"))
        stack.callback(player.delete)
        stack.callback(time.sleep, BEFORE_CLOSE)
        recorder = with_retries(lambda: rtmidi.MidiIn(jack, f"{self._name}-recorder", queue_size_limit=1 << 16))
        stack.callback(recorder.delete)
        stack.callback(time.sleep, BEFORE_CLOSE)
        recorder.ignore_types(sysex=False, timing=False, active_sense=False)
        return player.open_virtual_port("out"), recorder.open_virtual_port("in")

    def _forward_recorded(self) -> None:
        """Polls, because closing an input with a callback deadlocks if a message arrives at that moment."""
        with suppress(OSError):
            while not self._closing.is_set():
                time.sleep(0.001)
                while event := self._recorder.get_message():
                    self._command(f"midi {_numbers(event[0])}")

    def _command(self, *messages: str) -> None:
        with self._sending:
            self._connection.sendall("".join(f"{message};\n" for message in messages).encode())

    def _read_reports(self) -> None:
        pending = b""
        with self._connection, suppress(OSError):
            while chunk := self._connection.recv(65536):
                *complete, pending = FUDI_END.split(pending + chunk)
                for message in complete:
                    self._take_report(*FUDI_ATOM.findall(message.decode(errors="replace")))

    def _take_report(self, seconds: str, milliseconds: str, kind: str, *values: str) -> None:
        when = float(seconds) + float(milliseconds) / 1000
        with self._changed:
            if kind == "played":
                self._player.send_message(list(map(int, values)))
                self._played.append(_decode(when, bytes(map(int, values))))
            elif kind == "received":
                self._received_bytes.append(bytes(map(int, values)))
                self._received.append(_decode(when, self._received_bytes[-1]))
            elif kind == "osc-bytes":  # precedes the parsed message, which lacks the end of the address and the types
                self._osc_address, self._osc_types = _osc_head(bytes(map(int, values)))
            elif kind == "osc":
                texts = [re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for value in values[self._osc_address.count("/") :]]
                args = (text if tag == "s" else float(text) for text, tag in zip(texts, self._osc_types, strict=True))
                self._osc.append(OscMessage(when, self._osc_address, tuple(args)))
            elif kind == "pong":
                self._pongs.append(when)
            elif kind == "finished":
                self.playing = False
            self._changed.notify_all()


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _encode(message: Message) -> bytes:
    size = 2 if message.status & 0xF0 in (PROGRAM_CHANGE, CHANNEL_PRESSURE) else 1 if message.status >= 0xF8 else 3
    return bytes((message.status, message.data1, message.data2)[:size])


def _decode(when: float, data: bytes) -> Message:
    return Message(when, *data[:3])


def _numbers(data: Iterable[int]) -> str:
    return " ".join(map(str, data))


def _escape(text: str) -> str:
    """Escapes a text as a Pd symbol; a leading backslash prevents digits from being parsed as a number."""
    if not text:
        raise ValueError("Pd has no empty symbol")
    return "\\" + re.sub(r"(?<!^)([\\\s;,$])", r"\\\1", text)


def _osc_head(packet: bytes) -> tuple[str, str]:
    """The address of an OSC message and its type tags f, i and s. Pd omits arguments of other types."""
    address, _, rest = packet.partition(b"\0")
    tags = rest.partition(b",")[2].partition(b"\0")[0]
    return address.decode(), "".join(tag for tag in tags.decode() if tag in "fis")
