"""The remote engine is lost during a turn: the plan sounds, the music continues, and no note hangs."""

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
from engine.remote.address import this_computer
from engine.remote.runtime import RemoteRuntime
from engine.remote.standby import StandbyRuntime
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import OscSettings
from perceivers_live.performer.performer import State
from perceivers_live.session.observers import Observer
from perceivers_live.session.session import STANDBY_BEGINS, STANDBY_ENDS, Session
from tests.free_port import free_port
from tests.perceivers_live.receiver import Synthesizer, unbalanced
from tests.perceivers_live.sessions import PATIENCE, SETTINGS, notes_only

HERE = this_computer("onnx", bundled(), 1)


class SoloSession:
    """A session in solo mode, with the bundled model in a child process and another process as standby."""

    def __init__(self) -> None:
        def reach() -> RemoteRuntime:
            return RemoteRuntime(HERE, timeout=3.0, restart=False)

        self.runtime = StandbyRuntime(reach(), RemoteRuntime(HERE, timeout=PATIENCE), reach)
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
            assert time.monotonic() < end, "timeout"
            time.sleep(0.005)

    def wait_for_notes(self, count: int) -> None:
        """Waits for ``count`` more notes."""
        before = len(self.port.note_ons)
        self.until(lambda: len(self.port.note_ons) >= before + count)


@pytest.fixture
def solo(monkeypatch: pytest.MonkeyPatch) -> Iterator[SoloSession]:
    monkeypatch.setattr(standby, "MIN_DELAY", 0.05)
    solo = SoloSession()
    solo.thread.start()
    yield solo
    solo.session.stop()
    solo.thread.join(PATIENCE)
    solo.runtime.close()
    assert not solo.thread.is_alive()
    assert solo.port.silent
    assert unbalanced(notes_only(solo.port.messages)) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_solo_continues_on_the_standby_and_returns_to_the_engine(solo: SoloSession, number: signal.Signals) -> None:
    solo.wait_for_notes(15)
    planned = solo.session.player.planned()
    before = solo.session.player.played
    os.kill(solo.runtime._first._server.pid, number)
    solo.until(lambda: solo.runtime.standby)
    solo.wait_for_notes(15)
    assert solo.session.player.played > before + planned
    assert solo.states == [State.PLAYING], "the turn did not continue"
    assert solo.session.stats()["faults"] == 0
    solo.until(lambda: not solo.runtime.standby)
    solo.wait_for_notes(10)
    assert solo.session.stats()["standby"] == 0


def test_a_key_press_while_the_engine_hangs_silences_at_once(solo: SoloSession) -> None:
    solo.wait_for_notes(10)
    solo.controls.set("mode", "respond")
    solo.session.commands()["takeover"]()
    solo.until(lambda: bool(solo.session.player.ledger.notes))
    os.kill(solo.runtime._first._server.pid, signal.SIGSTOP)
    solo.session.receive(time.perf_counter(), (0x90, 40, 80))
    assert not solo.session.player.ledger.notes, "not silent before the loss is detected"
    solo.session.receive(time.perf_counter(), (0x80, 40, 0))
    solo.until(lambda: solo.runtime.standby)
    solo.wait_for_notes(3)  # its reply
    assert solo.session.stats()["faults"] == 0


def test_subscribers_receive_the_standby_state(solo: SoloSession) -> None:
    solo.wait_for_notes(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as subscriber:
        subscriber.settimeout(3 * PATIENCE)
        assert solo.session._osc is not None
        subscriber.sendto(build_msg("/perceivers/subscribe").dgram, ("127.0.0.1", solo.session._osc.port))

        def wait_for_message(address: str, *parts: object) -> None:
            """Waits for a message with this address and these parts."""
            while True:
                message = OscMessage(subscriber.recv(65536))
                if message.address == address and set(parts) <= set(zip(["", *message.params], message.params, strict=False)):
                    return

        wait_for_message("/perceivers/stats", ("standby", 0.0))
        os.kill(solo.runtime._first._server.pid, signal.SIGKILL)
        wait_for_message("/perceivers/message", ("", STANDBY_BEGINS))
        wait_for_message("/perceivers/stats", ("standby", 1.0))
        wait_for_message("/perceivers/message", ("", STANDBY_ENDS))
