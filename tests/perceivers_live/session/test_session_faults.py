"""Faults of the engine, the output or a thread do not end a session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from perceivers_live.controls.registry import COMMANDS
from tests.perceivers_live.sessions import running
from tests.perceivers_live.toys import improviser, steady


@pytest.mark.usefixtures("quiet_log")
@pytest.mark.parametrize("failures", [1, 2, 4])
def test_temporary_engine_failure_silences_and_the_machine_plays_again(failures: int) -> None:
    with running(steady(10)) as harness:
        harness.play()
        harness.until_playing()
        harness.runtime.failures = failures
        harness.until(lambda: not harness.replying)
        assert harness.port.silent
        harness.until(lambda: harness.runtime.failures == 0)  # it tries again by itself
        harness.until_absorbed()
        harness.play()
        harness.until_playing()
    assert harness.port.silent


@pytest.mark.usefixtures("quiet_log")
def test_non_finite_state_is_discarded() -> None:
    with running(steady(10)) as harness:
        harness.play()
        harness.until_playing()
        harness.runtime.broken = True
        harness.until(lambda: not harness.replying)
        assert harness.port.silent
        harness.runtime.broken = False
        harness.play()
        harness.until_playing()


@pytest.mark.usefixtures("quiet_log")
def test_session_survives_an_error_in_the_players_thread() -> None:
    with running(steady()) as harness:
        harness.play()
        harness.until_playing()
        player, play_due = harness.session.player, harness.session.player.play_due
        faults, over = 2, threading.Event()

        def fail(now: float) -> float | None:
            nonlocal faults
            if faults:
                faults -= 1
                raise RuntimeError("nobody has thought of this")
            over.set()
            return play_due(now)

        player.play_due = fail  # type: ignore[method-assign]
        harness.until(over.is_set)
        harness.until_absorbed()
        assert harness.port.silent
        assert not harness.replying
        harness.session.commands()["takeover"]()
        harness.until_playing()
    assert harness.port.silent


@pytest.mark.usefixtures("quiet_log")
def test_a_port_that_fails_does_not_end_a_session() -> None:
    with running(steady(5, (60, 64, 67), chord=2)) as harness:
        harness.port.fails = lambda _: True
        harness.play()
        harness.until(lambda: harness.replying)
        time.sleep(0.1)
        harness.receive((0x90, 30, 80), (0x80, 30, 0))
        harness.session.commands()["panic"]()
        harness.port.fails = lambda _: False
        harness.until_absorbed()
        harness.play()
        harness.until_playing()
    assert harness.port.silent


@pytest.mark.usefixtures("quiet_log")
def test_permanently_broken_model_is_retried_with_pauses() -> None:
    with running(mode="solo") as harness:
        harness.until_playing()
        harness.runtime.broken = True
        harness.until(lambda: harness.session.stats()["faults"] >= 2)
        before = harness.session.stats()["faults"]
        time.sleep(1.0)
        assert harness.session.stats()["faults"] - before < 20
        assert harness.port.silent


@pytest.mark.usefixtures("quiet_log")
def test_a_storm_of_commands_notes_and_faults_never_ends_a_session() -> None:
    chance = np.random.default_rng(5)
    with running(improviser, lookahead_ms=50) as harness, ExitStack() as storm:
        commands = [harness.session.commands()[name] for name in COMMANDS]
        over = threading.Event()

        def often(action: Callable[[np.random.Generator], object], seed: int) -> None:
            own = np.random.default_rng(seed)

            def run() -> None:
                while not over.wait(0.001):
                    action(own)

            thread = threading.Thread(target=run)
            thread.start()
            storm.callback(thread.join)

        def command(own: np.random.Generator) -> None:
            commands[own.integers(len(commands))]()

        def control(own: np.random.Generator) -> None:
            name, values = [("temperature", (0.5, 1.5)), ("hold", (0, 1)), ("mode", (0, 1)), ("thru", (0, 1))][own.integers(4)]
            harness.controls.set(name, values[own.integers(2)])

        def key(own: np.random.Generator) -> None:
            harness.receive((0x90, int(own.integers(40, 60)), int(own.integers(0, 2)) * 80))

        def fault(own: np.random.Generator) -> None:
            harness.runtime.failures = int(own.random() < 0.05)
            fails = bool(own.random() < 0.1)
            harness.port.fails = lambda _: fails

        for seed, action in enumerate((command, control, key, fault)):
            often(action, seed)
        time.sleep(1.5)
        over.set()
        storm.close()
        harness.runtime.failures, harness.port.fails = 0, lambda _: False
        for name, value in (("hold", False), ("mode", "respond"), ("thru", False)):
            harness.controls.set(name, value)
        harness.receive(*((0x80, pitch, 0) for pitch in range(40, 60)))
        harness.until_absorbed()
        harness.play(*chance.integers(60, 80, 3).tolist())
        harness.until_playing()
    assert harness.port.sounding == harness.port.pedals == set()


@given(st.lists(st.tuples(st.sampled_from(range(50, 56)), st.booleans()), max_size=25))
@hypothesis_settings(max_examples=8, deadline=None)
def test_nothing_sounds_after_the_end_whatever_is_played(keys: list[tuple[int, bool]]) -> None:
    with running(steady(3), thru=True) as harness:
        harness.session.commands()["takeover"]()
        for pitch, down in keys:
            harness.receive((0x90, pitch, 80 if down else 0))
            time.sleep(0.002)
    assert harness.port.silent
