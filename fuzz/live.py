"""Targets in a running daemon: raw MIDI messages, OSC datagrams, frames of the process that runs the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from pythonosc.osc_message_builder import build_msg

from engine.engine import Engine
from engine.remote.protocol import SMALL, Kind, ServerInfo, call_limit, parse_arrays, parse_event, parse_ready, ready_values
from engine.remote.wire import FrameReader, WireError, encode
from fuzz.contract import Maker, Target, one_line_errors, require
from fuzz.toy import SHORT, Toy
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import ControlError
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import ClockSettings, OscSettings, PhraseSettings, Settings
from perceivers_live.osc.recipients import MAX_SUBSCRIBERS
from perceivers_live.osc.server import OscServer
from perceivers_live.session import commands as session_commands
from perceivers_live.session import loop, output
from perceivers_live.session.saved_states import StateStore
from perceivers_live.session.session import Session
from tests.perceivers_live.receiver import Synthesizer

SENDER = ("127.0.0.1", 9)
MODEL = "0123456789abcdef" * 4
MAX_ROUNDS = 1000  # of the performer in one call of ``perform``
TRIGGERS = ("forget", "panic", "takeover", "yield")
CLOCKED = (loop, output, session_commands)  # the modules that read the clock
LEARNABLE = ("temperature", "takeover", "mode")  # names for the commands learn and unlearn


class FuzzSession:
    """A session without threads, with a simulated clock, that plays the music of a toy runtime."""

    def __init__(self, scratch: Path) -> None:
        self.now = 1000.0
        self.port, self.fails, self.failed = Synthesizer(), False, False
        self.forgot = False  # after "forget" the model does not have the keys that were held then
        self.engine = Engine(Toy())
        self.controls = Controls()
        for module in CLOCKED:
            vars(module)["time"] = SimpleNamespace(perf_counter=lambda: self.now)
        self.session = Session(
            self.engine,
            Settings(osc=OscSettings(enabled=False), phrase=PhraseSettings(50, 100), clock=ClockSettings("midi")),
            self.controls,
            self._send,
            states=StateStore(scratch / "states", SHORT, MODEL),
        )
        self.commands = self.session.commands()

    def _send(self, message: Sequence[int]) -> None:
        if self.fails:
            self.failed = True
            raise OSError("the port is gone")
        self.port.send(message)

    def receive(self, *message: int) -> None:
        self.session.receive(self.now, message)

    def command(self, name: str) -> None:
        self.forgot = self.forgot or name == "forget"
        self.commands[name]()

    def perform(self, seconds: float = 0.0) -> None:
        """Runs the performer and the player for the next seconds."""
        until = self.now + seconds
        for _ in range(MAX_ROUNDS):
            due = self.session.performer.work(self.now)
            self.session.loop.handle_next(0)
            times = [time for time in (self.session.player.play_due(self.now), due) if time is not None]
            if not self.session.loop.inbox.qsize() and (not times or min(times) >= until):
                break
            self.now = max(self.now, min(times, default=self.now))
        else:
            require(False, "the performer does not finish")
        self.now = max(self.now, until)

    def close(self) -> None:
        """Checks that the model has the held keys after the command ``yield``, and that nothing sounds after the session."""
        self.commands["yield"]()
        self.perform()
        known, held = set(self.engine.sounding.held().tolist()), self.session.keys.held
        agreed = known == held or (self.forgot and known < held)
        require(self.failed or agreed, f"the human holds {sorted(held)}, the model has {sorted(known)}")
        self.fails = False
        self.session.silence()
        require(self.port.silent, f"still sounding: {self.port.sounding}, {self.port.pedals}")


Action = Callable[[FuzzSession], object]


def midi(scratch: Path) -> Target:
    """Valid and malformed MIDI messages at any time, with commands, control changes and port failures in between."""

    def feed(data: bytes) -> None:
        fuzzed = FuzzSession(scratch)
        for action in actions_of(data):
            action(fuzzed)
            fuzzed.perform()
        fuzzed.perform(0.5)
        fuzzed.close()

    phrase = bytes([0x90, 60, 80, 5, 0x80, 60, 0, 0x90, 64, 80, 5, 0x90, 64, 0, 0xB0, 64, 127, 0x3F, 0x3F, 0xB0, 64, 0])
    clock = bytes([0xFA, *[0xF8, 1] * 30, 0x90, 60, 1, 0x3F, 0xFC, 0xFB, 0xF8, 0x3F])
    odd = bytes([0x43, 0x90, 0x01, 60, 0, 0xFF, 0xFF, 0x55, 0xF0, 1, 0xF8, 2, 0xF7, 0x50, 0x51, 0x90, 0x52, 0x90, 60])
    commands = bytes([0x60, 0x3F, 0x61, 0x90, 60, 80, 0x62, 0x63, 0x64, 0x66, 0xB0, 20, 1, 0xB0, 20, 9, 0xB0, 20, 99, 0x69])
    changes = bytes([0x70, 9, 2, 0x90, 60, 80, 0x90, 62, 80, 0x90, 64, 80, 0x3F, 0x70, 9, 0, 0x71, 1, 0x3F, 0x71, 0, 0x3F])
    lost = bytes([0x90, 60, 80, 0xB0, 64, 127, 0x72, 0x3F, 0x71, 1, 0x60, 0x3F, 0x71, 0])
    return Target(feed, [phrase, clock, odd, commands, changes, lost, phrase + clock + commands + changes], 512)


def actions_of(data: bytes) -> Iterator[Action]:
    """Converts bytes to actions in a session. A status byte begins a message; 0x00..0x3F: n * 20 ms pass; 0x40..0x4F: a message
    of n 16-bit numbers; 0x50..0x5F: a message of n bytes; other values: commands, control changes and failures.
    """
    rest = iter(data)
    for first in rest:
        if first >= 0x80:
            yield midi_message(first, *islice(rest, 0 if first > 0xF3 else 1 if first & 0xF0 in (0xC0, 0xD0) else 2))
        elif first < 0x40:
            yield time_passes(first / 50)
        elif first < 0x50:
            pairs = bytes(islice(rest, 2 * (first - 0x40)))
            yield midi_message(*(int.from_bytes(pairs[i : i + 2], "little", signed=True) for i in range(0, len(pairs), 2)))
        elif first < 0x60:
            yield midi_message(*islice(rest, first - 0x50))
        elif first < 0x70:
            yield command(first - 0x60)
        elif first == 0x70:
            yield control_change(next(rest, 0), next(rest, 0))
        elif first == 0x71:
            yield port_failure(next(rest, 0) % 2 == 1)
        else:
            yield lambda fuzzed: fuzzed.session.input_lost(fuzzed.now)


def midi_message(*values: int) -> Action:
    return lambda fuzzed: fuzzed.receive(*values)


def time_passes(seconds: float) -> Action:
    return lambda fuzzed: fuzzed.perform(seconds)


def port_failure(fails: bool) -> Action:
    return lambda fuzzed: setattr(fuzzed, "fails", fails)


def command(number: int) -> Action:
    if number < len(TRIGGERS):
        return lambda fuzzed: fuzzed.command(TRIGGERS[number])
    name = "learn" if number < 9 else "unlearn"
    return lambda fuzzed: fuzzed.commands[name](LEARNABLE[number % len(LEARNABLE)])


def control_change(number: int, value: int) -> Action:
    """Sets a control to an index or to a fraction of its range."""
    control = list(CONTROLS.values())[number % len(CONTROLS)]
    wanted = value if value < 32 else control.low + (control.high - control.low) * value / 255

    def turn(fuzzed: FuzzSession) -> None:
        with contextlib.suppress(ControlError):
            fuzzed.controls.set(control.name, wanted)

    return turn


def osc(scratch: Path) -> Target:
    """OSC datagrams. The server has been closed, so it handles them but sends nothing."""
    fuzzed = FuzzSession(scratch)
    server = OscServer(fuzzed.controls, fuzzed.commands, port=0, queries=fuzzed.session.queries())
    server.close()

    def feed(data: bytes) -> None:
        server._handle(data, SENDER)
        server._send_changes()
        fuzzed.perform()
        require(len(server._recipients.subscribers()) <= MAX_SUBSCRIBERS, "too many subscribers")

    messages: list[tuple[str, str | float | list[str]]] = [
        ("temperature", 0.5),
        ("mode", "duet"),
        ("mode", 1),
        ("save", "a"),
        ("recall", "a"),
        ("recall", "../a"),
    ]
    messages += [("takeover", 1), ("panic", []), ("subscribe", 5), ("unsubscribe", []), ("list", []), ("seed", float("nan"))]
    asked: list[tuple[str, str | list[str]]] = [("delete", "a"), ("states", []), ("state", []), ("stats", [])]
    made = [
        build_msg(f"/perceivers/{name}", value).dgram
        for name, value in [*messages, ("learn", "mode"), ("unlearn", "mode"), *asked]
    ]
    made += [build_msg("/a", [1, 0.5, "s", b"b", [True, [False]]]).dgram, bundle(bundle(made[0]), made[1], made[3])]
    return Target(feed, made, 4200)


def bundle(*elements: bytes) -> bytes:
    """An OSC bundle for immediate execution."""
    return b"#bundle\0" + bytes(7) + b"\1" + b"".join(len(one).to_bytes(4, "big") + one for one in elements)


def wire(_: Path) -> Target:
    """Frames between the daemon and the process that runs the model, in both directions."""

    def feed(data: bytes) -> None:
        reader, taken = FrameReader(), 0
        for begin in range(0, len(data), 7):
            reader.feed(data[begin : begin + 7])
            with one_line_errors(WireError):
                while (frame := reader.next(lambda kind: call_limit(kind, SHORT) if kind >= Kind.PING else SMALL)) is not None:
                    taken += len(encode(frame.kind, *frame.values))
                    with one_line_errors(WireError):
                        parse_ready(frame.values)
                    with one_line_errors(WireError):
                        parse_event(frame.values)
                    with one_line_errors(WireError):
                        parse_arrays(frame.values, [(SHORT.width,)])
                continue
            return
        require(taken <= len(data), "more bytes were decoded than received")

    info = ServerInfo("onnx", SHORT, 1 << 20, None, "1.0")
    row = np.zeros((1, 3), np.int64), np.zeros((1, 129), np.int16), np.zeros(1, np.int64)
    biases = [np.zeros(size, np.float32) for size in (101, 261, 32)]
    calls = [
        encode(Kind.READY, *ready_values(info)),
        encode(Kind.STEP, *row, 7),
        encode(Kind.DECIDE, 7, *biases, 1.0, 0.02, np.zeros(394, np.float32)),
        encode(Kind.ANSWER, 3, 60, 16) + encode(Kind.ANSWER, np.zeros(SHORT.width, np.float32)),
        encode(Kind.FAULT, "RuntimeError", "the device is gone"),
    ]
    return Target(feed, [*calls, b"".join(calls)])


TARGETS: dict[str, Maker] = {maker.__name__: maker for maker in (midi, osc, wire)}
