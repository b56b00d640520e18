"""A session from its first phrase to its end."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time

import numpy as np
import pytest
from pythonosc.udp_client import SimpleUDPClient

from engine.events import NOTE_OFF, NOTE_ON
from perceivers_live.controls.settings import OscSettings, PhraseSettings
from perceivers_live.network import ListenError
from perceivers_live.performer.performer import SavedState, State
from perceivers_live.session.observers import Observer
from perceivers_live.session.saved_states import StateStore
from tests.perceivers_live.receiver import Synthesizer, unbalanced
from tests.perceivers_live.sessions import PATIENCE, SETTINGS, SessionHarness, notes_only, running
from tests.perceivers_live.toys import Musician, steady
from tests.perceivers_live.virtual_session import absolute, fresh

# --- call and response ---------------------------------------------------------------------------------------------


def test_a_phrase_is_answered() -> None:
    with running() as harness:
        harness.play()
        harness.until_playing()
        assert [one.action for one in harness.human[::2]] == [NOTE_ON + 60, NOTE_ON + 64, NOTE_ON + 67]
        assert min(one.time for one in harness.machine) > harness.human[-1].time
    assert harness.states[0] is State.PLAYING
    assert unbalanced(notes_only(harness.port.messages)) == []


def test_a_reply_ends_and_the_next_phrase_is_answered() -> None:
    with running(steady(5, (72, 74)), response_length=0.1) as harness:
        for turn in (1, 2):
            harness.play()
            harness.until(lambda turn=turn: len(harness.states) >= 2 * turn)
            assert harness.port.silent
    assert harness.states == [State.PLAYING, State.LISTENING] * 2


def test_a_key_press_silences_at_once() -> None:
    with running(
        steady(40), dataclasses.replace(SETTINGS, phrase=PhraseSettings(min_silence_ms=5000, max_silence_ms=5000))
    ) as harness:
        harness.play()
        harness.session.commands()["takeover"]()
        harness.until_playing()
        harness.receive((0x90, 30, 80))
        assert harness.port.silent
        count = len(harness.port.messages)
        harness.until_absorbed()
        time.sleep(0.03)
        assert len(harness.port.messages) == count
        assert not harness.replying


def test_a_release_does_not_silence() -> None:
    with running(steady(40)) as harness:
        harness.receive((0x90, 30, 80))
        harness.until_playing()
        harness.receive((0x80, 30, 0))
        harness.until_absorbed()
        assert harness.replying


def check_history(harness: SessionHarness) -> None:
    """Checks that the history is what sounded: the human's and the machine's actions, without those only planned. The machine is
    on hold meanwhile.
    """
    harness.controls.set("hold", True)
    harness.until(lambda: not harness.replying)
    harness.until_absorbed()
    offs, sounding = list[int](), set[int]()
    for status, pitch, _ in notes_only(harness.port.messages):
        if status == 0x90:
            sounding.add(pitch)
        elif pitch in sounding:  # a panic also releases notes that do not sound
            sounding.remove(pitch)
            offs.append(NOTE_OFF + pitch)
    ons = [one.action for one in harness.machine if one.action < NOTE_OFF]
    history = [action for _, action, _ in absolute(harness.engine._history)]
    assert sorted(a for a in history if a < 256) == sorted([*offs, *ons, *(one.action for one in harness.human)])
    again = fresh(harness.engine._history)
    assert np.array_equal(again.hidden(), harness.engine.hidden())
    harness.controls.set("hold", False)


def test_history_is_what_sounded_after_an_interruption() -> None:
    with running() as harness:
        for pitch in (30, 31, 32):
            harness.play()
            harness.until_playing()
            harness.receive((0x90, pitch, 80), (0x80, pitch, 0))
            check_history(harness)


def test_history_is_what_sounded_after_a_panic() -> None:
    with running(steady(10, (60, 64, 67, 71), chord=3)) as harness:
        harness.play()
        harness.until_playing()
        harness.session.commands()["panic"]()
        assert harness.port.silent
        check_history(harness)
        assert not harness.replying
        assert harness.engine.sounding.held().tolist() == []


@pytest.mark.parametrize("command", ["panic", "yield"])
def test_silenced_solo_stays_silent_until_takeover(command: str) -> None:
    with running(steady(5), mode="solo") as harness:
        harness.until_playing()
        harness.session.commands()[command]()
        harness.until_absorbed()
        time.sleep(0.1)
        assert not harness.replying
        assert harness.port.silent
        harness.session.commands()["takeover"]()
        harness.until_playing()


def test_duet_plays_with_the_human_until_yield() -> None:
    settings = dataclasses.replace(SETTINGS, phrase=PhraseSettings())
    with running(steady(3, (72, 74, 76)), settings, mode="duet") as harness:
        harness.play(40, 42, 44)
        for _ in range(4):
            count = len(harness.port.note_ons)
            harness.play()
            harness.until(lambda count=count: len(harness.port.note_ons) > count)
        assert harness.states == [State.PLAYING]
        harness.session.commands()["yield"]()
        check_history(harness)
        assert harness.port.silent
        assert unbalanced(notes_only(harness.port.messages)) == []


def test_phrase_is_not_answered_on_hold() -> None:
    with running(hold=True) as harness:
        harness.play()
        time.sleep(0.3)
        harness.until_absorbed()
        assert harness.states == []
        harness.controls.set("hold", False)
        harness.play()  # the earlier phrase is not a call
        harness.until_playing()


def test_takeover_yield_and_forget_commands() -> None:
    with running(steady(40)) as harness:
        commands = harness.session.commands()
        commands["takeover"]()
        harness.until_playing()
        commands["yield"]()
        harness.until(lambda: not harness.replying)
        assert harness.port.silent
        harness.play()
        harness.until_playing()
        commands["forget"]()
        harness.until_absorbed()
        assert harness.port.silent
        assert harness.engine.position == 0


# --- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("musician", [steady(40), steady(10, (60, 64, 67), chord=3), steady(10, pedal=True)])
def test_stopping_during_a_reply_leaves_no_sounding_notes(musician: Musician) -> None:
    with running(musician) as harness:
        harness.play()
        harness.until_playing()
    assert harness.port.silent
    assert unbalanced(notes_only(harness.port.messages)) == []
    assert harness.port.messages[-3:] == [(0xB0, 64, 0), (0xB0, 123, 0), (0xB0, 121, 0)]


def test_the_receiver_is_reset_before_anything_is_played() -> None:
    """Each key is released separately, because not every receiver can release all notes at once."""
    with running() as harness:
        harness.until_absorbed()
        assert {(0xB0, 64, 0), (0xB0, 123, 0), (0xB0, 121, 0)} < set(harness.port.messages)
        assert {message[1] for message in harness.port.messages if message[0] == 0x80} == set(range(128))
        assert harness.port.note_ons == []


def test_a_session_can_be_stopped_before_it_runs() -> None:
    harness = SessionHarness()
    harness.session.stop()
    harness.session.run()
    assert harness.port.silent


def test_occupied_osc_port_raises_and_leaves_no_thread_running() -> None:
    before = threading.active_count()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        harness = SessionHarness(settings=dataclasses.replace(SETTINGS, osc=OscSettings(port=taken.getsockname()[1])))
        with pytest.raises(ListenError):
            harness.session.run()
    assert threading.active_count() == before


def test_session_beyond_loopback_requires_allowed_senders() -> None:
    before = threading.active_count()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    opened = OscSettings(host="0.0.0.0", port=port)
    with pytest.raises(ListenError, match="beyond loopback"):
        SessionHarness(settings=dataclasses.replace(SETTINGS, osc=opened)).session.run()
    assert threading.active_count() == before
    allowed = dataclasses.replace(SETTINGS, osc=dataclasses.replace(opened, allow="192.0.2.7"))
    with running(settings=allowed) as harness, SimpleUDPClient("127.0.0.1", port) as client:
        client.send_message("/perceivers/temperature", 0.5)
        harness.until(lambda: harness.controls.get("temperature") == 0.5)


def test_osc_controls_a_session() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = dataclasses.replace(SETTINGS, osc=OscSettings(port=port))
    with running(steady(40), settings) as harness, SimpleUDPClient("127.0.0.1", port) as client:
        client.send_message("/perceivers/temperature", 0.5)
        harness.until(lambda: harness.controls.get("temperature") == 0.5)
        client.send_message("/perceivers/takeover", [])
        harness.until_playing()
        client.send_message("/perceivers/panic", [])
        harness.until(lambda: not harness.replying)
        assert harness.port.silent


class SlowDisk(StateStore):
    def __init__(self) -> None:
        self.saved: list[str] = []

    def check(self, name: object) -> None: ...

    def save(self, name: str, saved_state: SavedState) -> None:
        time.sleep(0.3)
        self.saved.append(name)


def test_pending_save_completes_before_the_session_ends() -> None:
    disk = SlowDisk()
    with running(states=disk) as harness:
        harness.session.commands()["save"]("evening")
        harness.until_absorbed()
    assert disk.saved == ["evening"]


class MemoryDisk(StateStore):
    """It writes only after ``written`` is set."""

    def __init__(self) -> None:
        self.kept: dict[str, SavedState] = {}
        self.order: list[int] = []
        self.written = threading.Event()

    def check(self, name: object) -> None: ...

    def save(self, name: str, saved_state: SavedState) -> None:
        assert self.written.wait(PATIENCE)
        self.order.append(saved_state.snapshot.position)
        time.sleep(0.2 if len(self.order) == 1 else 0.0)
        self.kept[name] = saved_state

    def load(self, name: str) -> SavedState:
        return self.kept[name]


def test_a_state_is_recalled_as_it_was_just_saved_although_it_is_not_written_yet() -> None:
    disk = MemoryDisk()
    with running(states=disk, mode="listen") as harness:
        command = harness.session.commands()
        disk.written.set()
        command["save"]("a")
        harness.until(lambda: "a" in disk.kept)
        disk.written.clear()
        harness.play(60, 62)
        harness.until_absorbed()
        position = harness.engine.position
        command["save"]("a")
        command["recall"]("a")
        harness.play(64, 65)
        harness.until_absorbed()
        assert harness.engine.position > position
        command["recall"]("a")
        harness.until_absorbed()
        assert harness.engine.position == position
        disk.written.set()


def test_the_last_of_two_saves_of_a_name_is_kept() -> None:
    disk = MemoryDisk()
    with running(states=disk, mode="listen") as harness:
        for pitch in (60, 62):
            harness.play(pitch)
            harness.session.commands()["save"]("a")
            harness.until_absorbed()
        position = harness.engine.position
        disk.written.set()
    assert disk.order == sorted(disk.order)
    assert disk.kept["a"].snapshot.position == position


# --- another output while it plays -----------------------------------------------------------------------------------


def test_output_change_leaves_no_hanging_note_on_the_old_output() -> None:
    old, new = Synthesizer(), Synthesizer()
    out = [old]
    with running(steady(40), mode="solo") as harness:
        harness.session.output._send = lambda message: out[0].send(message)
        harness.until(lambda: len(old.note_ons) > 5 and bool(old.sounding))
        turns = len(harness.states)
        harness.session.change_output(lambda: out.__setitem__(0, new))
        assert old.silent
        message_count = len(old.messages)
        harness.until(lambda: len(new.note_ons) > 5)
        assert len(old.messages) == message_count
        assert len(harness.states) == turns  # it is the same turn
    assert new.silent
    assert not unbalanced([m for m in notes_only(new.messages) if len(m) == 3])


def test_restored_output_leaves_no_held_key_in_the_history() -> None:
    with running(steady(40), mode="solo") as harness:
        harness.until_playing()
        harness.session.output_restored()
        count = len(harness.port.note_ons)
        harness.until(lambda: len(harness.port.note_ons) > count + 2)  # the turn continues
        harness.session.commands()["yield"]()
        harness.until_absorbed()
        assert harness.engine.sounding.held().tolist() == []


def test_output_change_works_while_the_old_output_fails() -> None:
    new = Synthesizer()
    with running(steady(40), mode="solo") as harness:
        harness.until_playing()

        def broken(message: object) -> None:
            raise OSError("gone")

        harness.session.output._send = broken
        harness.session.change_output(lambda: vars(harness.session.output).__setitem__("_send", new.send))
        harness.until(lambda: len(new.note_ons) > 5)
    assert new.silent


# --- what observers receive ------------------------------------------------------------------------------------------


def test_countdown_reports_the_time_of_the_answer_and_each_note_delays_it() -> None:
    reported: list[float | None] = []
    patient = dataclasses.replace(SETTINGS, phrase=PhraseSettings(min_silence_ms=3000, max_silence_ms=3000))
    with running(settings=patient, observers=[Observer(countdown=reported.append)]) as harness:

        def settled() -> float:
            """The countdown after all that was played; while keys are down it is longer."""
            harness.until_absorbed()
            harness.until_absorbed()  # between the two it is reported
            assert reported[-1] is not None
            return reported[-1]

        harness.play(60, 64, 67)
        first = settled()
        assert first > harness.human[-1].time
        time.sleep(0.1)  # ``play`` plays ahead of time
        harness.play(60)
        assert settled() > first
        harness.until_playing()
