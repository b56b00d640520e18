"""The machine that computes is lost amid a reply: what was planned sounds, the music goes on, and no note hangs."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import build_msg

from engine.checkpoint import bundled
from engine.engine import Engine
from engine.remote import standby
from engine.remote.address import this_machine
from engine.remote.runtime import RemoteRuntime
from engine.remote.standby import StandbyRuntime
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import OscSettings
from perceivers_live.performer.performer import State
from perceivers_live.session.observers import Observer
from perceivers_live.session.session import Session
from tests.engine.remote.ssh_server import free_port
from tests.perceivers_live.receiver import Synthesizer, unbalanced
from tests.perceivers_live.sessions import PATIENCE, SETTINGS, notes_only

HERE = this_machine("onnx", bundled(), 1)


class Solo:
    """A session that plays by itself, on the bundled model in a process that another one stands by for."""

    def __init__(self) -> None:
        def reach() -> RemoteRuntime:
            return RemoteRuntime(HERE, hang=1.0, revive=False)

        self.runtime = StandbyRuntime(reach(), RemoteRuntime(HERE), reach)
        self.port, self.states = Synthesizer(), list[State]()
        self.controls = controls = Controls({"mode": "solo", "seed": 3})
        settings = dataclasses.replace(SETTINGS, osc=OscSettings(port=free_port()))
        self.session = Session(
            Engine(self.runtime), settings, controls, self.port.send, observers=[Observer(state=self.states.append)]
        )
        self.thread = threading.Thread(target=self.session.run)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 3 * PATIENCE
        while not condition():
            assert time.monotonic() < end, "it never came"
            time.sleep(0.005)

    def plays(self, count: int) -> None:
        """Waits for so many more notes."""
        before = len(self.port.note_ons)
        self.until(lambda: len(self.port.note_ons) >= before + count)


@pytest.fixture
def solo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Solo]:
    monkeypatch.setattr(standby, "MIN_DELAY", 0.05)
    solo = Solo()
    solo.thread.start()
    yield solo
    solo.session.stop()
    solo.thread.join(PATIENCE)
    solo.runtime.close()
    assert not solo.thread.is_alive()
    assert solo.port.silent
    assert unbalanced(notes_only(solo.port.messages)) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_solo_goes_on_and_the_engine_is_taken_back(solo: Solo, number: signal.Signals) -> None:
    solo.plays(15)
    planned = solo.session.player.planned()
    before = solo.session.player.played
    os.kill(solo.runtime._first._server.pid, number)
    solo.until(lambda: solo.runtime.standby)
    solo.plays(15)
    assert solo.session.player.played > before + planned
    assert solo.states == [State.PLAYING], "the turn went on"
    assert solo.session.stats()["faults"] == 0
    solo.until(lambda: not solo.runtime.standby)
    solo.plays(10)
    assert solo.session.stats()["standby"] == 0


def test_a_key_press_while_the_engine_hangs_silences_at_once(solo: Solo) -> None:
    solo.plays(10)
    solo.controls.set("mode", "respond")
    solo.session.commands()["takeover"]()
    solo.until(lambda: bool(solo.session.player.ledger.notes))
    os.kill(solo.runtime._first._server.pid, signal.SIGSTOP)
    solo.session.receive(time.perf_counter(), (0x90, 40, 80))
    assert not solo.session.player.ledger.notes, "before anybody knows of the loss"
    solo.session.receive(time.perf_counter(), (0x80, 40, 0))
    solo.until(lambda: solo.runtime.standby)
    solo.plays(3)  # its reply
    assert solo.session.stats()["faults"] == 0


def test_subscribers_are_told(solo: Solo) -> None:
    solo.plays(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as subscriber:
        subscriber.settimeout(3 * PATIENCE)
        assert solo.session._osc is not None
        subscriber.sendto(build_msg("/perceivers/subscribe").dgram, ("127.0.0.1", solo.session._osc.port))

        def told(address: str, *parts: object) -> None:
            """Waits for such a message."""
            while True:
                message = OscMessage(subscriber.recv(65536))
                if message.address == address and set(parts) <= set(zip(["", *message.params], message.params, strict=False)):
                    return

        told("/perceivers/stats", ("standby", 0.0))
        os.kill(solo.runtime._first._server.pid, signal.SIGKILL)
        told("/perceivers/message", ("", "standby"))
        told("/perceivers/stats", ("standby", 1.0))
        told("/perceivers/message", ("", "standby over"))
