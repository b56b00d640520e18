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
from tests.perceivers_live.sessions import SETTINGS, Stage, notes_only, running
from tests.perceivers_live.toys import Musician, steady
from tests.perceivers_live.virtual_stage import absolute, fresh

# --- call and response ---------------------------------------------------------------------------------------------


def test_a_phrase_is_answered() -> None:
    with running() as stage:
        stage.play()
        stage.until_playing()
        assert [one.action for one in stage.human[::2]] == [NOTE_ON + 60, NOTE_ON + 64, NOTE_ON + 67]
        assert min(one.time for one in stage.machine) > stage.human[-1].time
    assert stage.states[0] is State.PLAYING
    assert unbalanced(notes_only(stage.port.messages)) == []


def test_a_reply_ends_and_the_next_phrase_is_answered() -> None:
    with running(steady(5, (72, 74)), response_length=0.1) as stage:
        for turn in (1, 2):
            stage.play()
            stage.until(lambda turn=turn: len(stage.states) >= 2 * turn)
            assert stage.port.silent
    assert stage.states == [State.PLAYING, State.LISTENING] * 2


def test_a_key_press_silences_at_once() -> None:
    with running(
        steady(40), dataclasses.replace(SETTINGS, phrase=PhraseSettings(min_silence_ms=5000, max_silence_ms=5000))
    ) as stage:
        stage.play()
        stage.session.commands()["takeover"]()
        stage.until_playing()
        stage.hear((0x90, 30, 80))
        assert stage.port.silent
        count = len(stage.port.messages)
        stage.until_absorbed()
        time.sleep(0.03)
        assert len(stage.port.messages) == count
        assert not stage.replying


def test_a_release_does_not_silence() -> None:
    with running(steady(40)) as stage:
        stage.hear((0x90, 30, 80))
        stage.until_playing()
        stage.hear((0x80, 30, 0))
        stage.until_absorbed()
        assert stage.replying


def check_memory(stage: Stage) -> None:
    """What the engine remembers is what sounded: the human's actions, the machine's, and nothing that was only planned. It plays
    nothing meanwhile.
    """
    stage.controls.set("hold", True)
    stage.until(lambda: not stage.replying)
    stage.until_absorbed()
    offs, sounding = list[int](), set[int]()
    for status, pitch, _ in notes_only(stage.port.messages):
        if status == 0x90:
            sounding.add(pitch)
        elif pitch in sounding:  # a panic also releases what does not sound
            sounding.remove(pitch)
            offs.append(NOTE_OFF + pitch)
    ons = [one.action for one in stage.machine if one.action < NOTE_OFF]
    history = [action for _, action, _ in absolute(stage.engine._history)]
    assert sorted(a for a in history if a < 256) == sorted([*offs, *ons, *(one.action for one in stage.human)])
    again = fresh(stage.engine._history)
    assert np.array_equal(again.hidden(), stage.engine.hidden())
    stage.controls.set("hold", False)


def test_the_memory_is_what_sounded_after_an_interruption() -> None:
    with running() as stage:
        for pitch in (30, 31, 32):
            stage.play()
            stage.until_playing()
            stage.hear((0x90, pitch, 80), (0x80, pitch, 0))
            check_memory(stage)


def test_the_memory_is_what_sounded_after_a_panic() -> None:
    with running(steady(10, (60, 64, 67, 71), chord=3)) as stage:
        stage.play()
        stage.until_playing()
        stage.session.commands()["panic"]()
        assert stage.port.silent
        check_memory(stage)
        assert not stage.replying
        assert stage.engine.sounding.held().tolist() == []


@pytest.mark.parametrize("command", ["panic", "yield"])
def test_a_solo_that_was_silenced_stays_silent_until_it_is_asked(command: str) -> None:
    with running(steady(5), mode="solo") as stage:
        stage.until_playing()
        stage.session.commands()[command]()
        stage.until_absorbed()
        time.sleep(0.1)
        assert not stage.replying
        assert stage.port.silent
        stage.session.commands()["takeover"]()
        stage.until_playing()


def test_a_duet_is_played_around_the_human() -> None:
    settings = dataclasses.replace(SETTINGS, phrase=PhraseSettings())
    with running(steady(3, (72, 74, 76)), settings, mode="duet") as stage:
        stage.play(40, 42, 44)
        for _ in range(4):
            count = len(stage.port.note_ons)
            stage.play()
            stage.until(lambda count=count: len(stage.port.note_ons) > count)
        assert stage.states == [State.PLAYING]
        stage.session.commands()["yield"]()
        check_memory(stage)
        assert stage.port.silent
        assert unbalanced(notes_only(stage.port.messages)) == []


def test_it_does_not_answer_while_it_is_to_hold() -> None:
    with running(hold=True) as stage:
        stage.play()
        time.sleep(0.3)
        stage.until_absorbed()
        assert stage.states == []
        stage.controls.set("hold", False)
        stage.play()  # what was played before is no call
        stage.until_playing()


def test_commands_take_over_give_way_and_forget() -> None:
    with running(steady(40)) as stage:
        commands = stage.session.commands()
        commands["takeover"]()
        stage.until_playing()
        commands["yield"]()
        stage.until(lambda: not stage.replying)
        assert stage.port.silent
        stage.play()
        stage.until_playing()
        commands["forget"]()
        stage.until_absorbed()
        assert stage.port.silent
        assert stage.engine.position == 0


# --- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("musician", [steady(40), steady(10, (60, 64, 67), chord=3), steady(10, pedal=True)])
def test_stopping_in_the_middle_leaves_nothing_sounding(musician: Musician) -> None:
    with running(musician) as stage:
        stage.play()
        stage.until_playing()
    assert stage.port.silent
    assert unbalanced(notes_only(stage.port.messages)) == []
    assert stage.port.messages[-3:] == [(0xB0, 64, 0), (0xB0, 123, 0), (0xB0, 121, 0)]


def test_the_receiver_is_reset_before_anything_is_played() -> None:
    """Every key is released one by one: not every receiver knows how to release all notes at once."""
    with running() as stage:
        stage.until_absorbed()
        assert {(0xB0, 64, 0), (0xB0, 123, 0), (0xB0, 121, 0)} < set(stage.port.messages)
        assert {message[1] for message in stage.port.messages if message[0] == 0x80} == set(range(128))
        assert stage.port.note_ons == []


def test_a_session_can_be_stopped_before_it_runs() -> None:
    stage = Stage()
    stage.session.stop()
    stage.session.run()
    assert stage.port.silent


def test_an_osc_port_that_is_taken_is_said_and_nothing_is_left_running() -> None:
    before = threading.active_count()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        stage = Stage(settings=dataclasses.replace(SETTINGS, osc=OscSettings(port=taken.getsockname()[1])))
        with pytest.raises(ListenError):
            stage.session.run()
    assert threading.active_count() == before


def test_beyond_loopback_it_does_not_begin_before_somebody_is_allowed() -> None:
    before = threading.active_count()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    opened = OscSettings(host="0.0.0.0", port=port)
    with pytest.raises(ListenError, match="beyond loopback"):
        Stage(settings=dataclasses.replace(SETTINGS, osc=opened)).session.run()
    assert threading.active_count() == before
    allowed = dataclasses.replace(SETTINGS, osc=dataclasses.replace(opened, allow="192.0.2.7"))
    with running(settings=allowed) as stage, SimpleUDPClient("127.0.0.1", port) as client:
        stage.until(stage.listening.is_set)
        client.send_message("/perceivers/temperature", 0.5)
        stage.until(lambda: stage.controls.get("temperature") == 0.5)


def test_osc_steers_a_session() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = dataclasses.replace(SETTINGS, osc=OscSettings(port=port))
    with running(steady(40), settings) as stage, SimpleUDPClient("127.0.0.1", port) as client:
        stage.until(stage.listening.is_set)
        client.send_message("/perceivers/temperature", 0.5)
        stage.until(lambda: stage.controls.get("temperature") == 0.5)
        client.send_message("/perceivers/takeover", [])
        stage.until_playing()
        client.send_message("/perceivers/panic", [])
        stage.until(lambda: not stage.replying)
        assert stage.port.silent


class SlowDisk(StateStore):
    def __init__(self) -> None:
        self.saved: list[str] = []

    def check(self, name: object) -> None: ...

    def save(self, name: str, saved_state: SavedState) -> None:
        time.sleep(0.3)
        self.saved.append(name)


def test_a_state_on_its_way_to_the_disk_gets_there_before_the_end() -> None:
    disk = SlowDisk()
    with running(states=disk) as stage:
        stage.session.commands()["save"]("evening")
        stage.until_absorbed()
    assert disk.saved == ["evening"]


# --- another output while it plays -----------------------------------------------------------------------------------


def test_another_output_takes_over_and_nothing_hangs_on_the_old_one() -> None:
    old, new = Synthesizer(), Synthesizer()
    out = [old]
    with running(steady(40), mode="solo") as stage:
        stage.session.output._send = lambda message: out[0].send(message)
        stage.until(lambda: len(old.note_ons) > 5 and bool(old.sounding))
        turns = len(stage.states)
        stage.session.change_output(lambda: out.__setitem__(0, new))
        assert old.silent
        struck = len(old.messages)
        stage.until(lambda: len(new.note_ons) > 5)
        assert len(old.messages) == struck
        assert len(stage.states) == turns  # it is the same turn
    assert new.silent
    assert not unbalanced([m for m in notes_only(new.messages) if len(m) == 3])


def test_an_output_that_comes_back_leaves_no_key_down_in_the_history() -> None:
    with running(steady(40), mode="solo") as stage:
        stage.until_playing()
        stage.session.output_restored()
        count = len(stage.port.note_ons)
        stage.until(lambda: len(stage.port.note_ons) > count + 2)  # the turn goes on
        stage.session.commands()["yield"]()
        stage.until_absorbed()
        assert stage.engine.sounding.held().tolist() == []


def test_another_output_while_the_old_one_fails_begins_with_a_clean_account() -> None:
    new = Synthesizer()
    with running(steady(40), mode="solo") as stage:
        stage.until_playing()

        def broken(message: object) -> None:
            raise OSError("gone")

        stage.session.output._send = broken
        stage.session.change_output(lambda: vars(stage.session.output).__setitem__("_send", new.send))
        stage.until(lambda: len(new.note_ons) > 5)
    assert new.silent


# --- what whoever watches is told ------------------------------------------------------------------------------------


def test_the_countdown_tells_when_the_answer_begins_and_every_note_puts_it_off() -> None:
    told: list[float | None] = []
    patient = dataclasses.replace(SETTINGS, phrase=PhraseSettings(min_silence_ms=3000, max_silence_ms=3000))
    with running(settings=patient, observers=[Observer(countdown=told.append)]) as stage:
        stage.play(60, 64, 67)
        stage.until(lambda: any(one is not None for one in told))
        first = next(one for one in told if one is not None)
        assert first > stage.human[-1].time
        time.sleep(0.1)  # ``play`` plays ahead of time
        stage.play(60)
        stage.until_playing()
        assert max(one for one in told if one is not None) > first
