"""The daemon as a user starts it, on a real JACK server, with Pure Data as keyboard, recorder and OSC controller."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.free_port import free_port
from tests.live.jack_server import JackServer
from tests.live.pure_data import PureData
from tests.live.recording import Message, hanging_notes, note, notes_on, pedal, pedal_down
from tests.live.waiting import TIMEOUT


def phrase(start: float = 0.0) -> list[Message]:
    """A short phrase of two hands, with pedal."""
    melody = [(0.0, 72, 70), (0.4, 76, 78), (0.8, 79, 85), (1.2, 77, 74), (1.6, 76, 68), (2.0, 72, 60)]
    messages = [pedal(start, 127), pedal(start + 2.3, 0)]
    messages += [one for at, pitch, velocity in melody for one in note(start + at, 0.35, pitch, velocity)]
    messages += [one for at, pitch in ((0.0, 48), (0.0, 55), (0.8, 53), (1.6, 48)) for one in note(start + at, 0.7, pitch, 55)]
    return sorted(messages, key=lambda message: message.time)


@pytest.fixture
def osc_port() -> int:
    return free_port()


@pytest.fixture
def connected_daemon(jack: JackServer, pure_data: PureData, daemon: Callable[..., Any], osc_port: int) -> Any:
    """A daemon on virtual ports that are connected with Pd in both directions; Pd subscribes to OSC."""
    process = daemon("--osc-port", str(osc_port), "--seed", "3")
    process.wait_for_line("listening", TIMEOUT)
    jack.connect(pure_data.output_port, jack.wait_for_port("perceivers-live-in"))
    jack.connect(jack.wait_for_port("perceivers-live-out"), pure_data.input_port)
    pure_data.osc_to(osc_port)
    pure_data.send_osc("/perceivers/subscribe")
    return process


def states(pure_data: PureData) -> list[Any]:
    return [message.args[0] for message in pure_data.osc_received() if message.address == "/perceivers/state"]


def wait_for_notes(pure_data: PureData, count: int) -> None:
    pure_data.wait_for(lambda: len(notes_on(pure_data.received())) >= count, TIMEOUT)


def wait_for_silence(pure_data: PureData) -> None:
    """Waits until nothing sounds. The OSC state (UDP) may arrive before the last note-offs (JACK)."""
    pure_data.wait_for(lambda: not hanging_notes(pure_data.received()) and not pedal_down(pure_data.received()), TIMEOUT)


def test_reply_starts_after_the_phrase_with_varied_velocity_and_timing(connected_daemon: Any, pure_data: PureData) -> None:
    pure_data.play(phrase())
    pure_data.wait_for(lambda: "playing" in states(pure_data), TIMEOUT)
    pure_data.wait_for(lambda: states(pure_data)[-1:] == ["listening"], TIMEOUT)  # the reply has ended
    reply = pure_data.received()
    call_end = max(message.time for message in notes_on(pure_data.played()))
    assert min(message.time for message in notes_on(reply)) > call_end
    assert len({message.data2 for message in notes_on(reply)}) > 1, "every note has the same velocity"
    onsets = sorted(message.time for message in notes_on(reply))
    assert len({round(b - a, 2) for a, b in pairwise(onsets)}) > 1, "all intervals between notes are equal"
    wait_for_silence(pure_data)


def test_key_press_stops_the_reply(connected_daemon: Any, pure_data: PureData) -> None:
    pure_data.play(phrase())
    wait_for_notes(pure_data, 1)
    pure_data.play([*note(0.0, 0.1, 60), *note(0.2, 4.0, 64)], start_delay=0.0)  # a held key: no new reply in this test
    pure_data.wait_for(lambda: states(pure_data)[-1:] == ["listening"], TIMEOUT)
    pressed_at = next(message.time for message in notes_on(pure_data.played()) if message.data1 == 60)
    pure_data.wait_for(lambda: not hanging_notes(pure_data.received()), TIMEOUT)
    after = pure_data.now() + 1.0
    pure_data.wait_for(lambda: pure_data.now() > after, TIMEOUT)
    late = [
        message for message in notes_on(pure_data.received()) if message.time > pressed_at + 0.5
    ]  # Pure Data's clock and ours
    assert not late, f"still playing after the key press at {pressed_at}: {late}"
    wait_for_silence(pure_data)


def test_osc_controls_change_the_next_reply(connected_daemon: Any, pure_data: PureData, osc_port: int) -> None:
    def answer(**controls: float) -> list[tuple[int, int]]:
        pure_data.send_osc("/perceivers/forget")
        for name, value in controls.items():
            pure_data.send_osc(f"/perceivers/{name}", value)
        note_count, state_count = len(notes_on(pure_data.received())), len(states(pure_data))
        pure_data.play(phrase())
        pure_data.wait_for(lambda: "playing" in states(pure_data)[state_count:], TIMEOUT)
        pure_data.wait_for(lambda: states(pure_data)[-1] == "listening", TIMEOUT)
        return [(message.data1, message.data2) for message in notes_on(pure_data.received())[note_count:]]

    low = answer(register_low=21.0, register_high=59.0, temperature=0.9)
    high = answer(register_low=60.0, register_high=108.0, temperature=0.9)
    assert low
    assert high
    assert all(pitch <= 59 for pitch, _ in low)
    assert all(pitch >= 60 for pitch, _ in high)
    pure_data.send_osc("/perceivers/temperature", 5.0)
    pure_data.send_osc("/perceivers/temperature")
    pure_data.wait_for(lambda: any(m.address == "/perceivers/temperature" and m.args == (1.5,) for m in pure_data.osc_received()))
    wait_for_silence(pure_data)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_during_a_reply_leaves_no_sounding_notes(
    connected_daemon: Any, pure_data: PureData, number: signal.Signals
) -> None:
    pure_data.play(phrase())
    wait_for_notes(pure_data, 1)
    connected_daemon.signal(number)
    assert connected_daemon.wait(TIMEOUT) == 0
    pure_data.wait_for(lambda: pure_data.received()[-1][1:] == (0xB0, 121, 0))  # the last message
    assert not hanging_notes(pure_data.received())
    assert not pedal_down(pure_data.received())
    controllers = {message.data1 for message in pure_data.received() if message.status & 0xF0 == 0xB0}
    assert {64, 121, 123} <= controllers


def test_unknown_port_name_lists_the_available_ports(jack: JackServer, pure_data: PureData, daemon: Callable[..., Any]) -> None:
    process = daemon("--in", "no such keyboard")
    line = process.wait_for_line("no such keyboard", TIMEOUT).string
    assert "puredata" in line
    assert "waiting for it" in line
