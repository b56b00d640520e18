"""What fails under a session ends no session: the engine, the output, a thread, the clock."""

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
def test_an_engine_that_fails_for_a_while_is_silent_and_then_plays_again(failures: int) -> None:
    with running(steady(10)) as stage:
        stage.play()
        stage.until_playing()
        stage.runtime.failures = failures
        stage.until(lambda: not stage.replying)
        assert stage.port.silent
        stage.until(lambda: stage.runtime.failures == 0)  # it tries again by itself
        stage.until_absorbed()
        stage.play()
        stage.until_playing()
    assert stage.port.silent


@pytest.mark.usefixtures("quiet_log")
def test_a_state_that_is_not_finite_is_forgotten() -> None:
    with running(steady(10)) as stage:
        stage.play()
        stage.until_playing()
        stage.runtime.broken = True
        stage.until(lambda: not stage.replying)
        assert stage.port.silent
        stage.runtime.broken = False
        stage.play()
        stage.until_playing()


@pytest.mark.usefixtures("quiet_log")
def test_a_fault_in_the_players_thread_is_survived() -> None:
    with running(steady()) as stage:
        stage.play()
        stage.until_playing()
        player, play_due = stage.session.player, stage.session.player.play_due
        faults, over = 2, threading.Event()

        def fail(now: float) -> float | None:
            nonlocal faults
            if faults:
                faults -= 1
                raise RuntimeError("nobody has thought of this")
            over.set()
            return play_due(now)

        player.play_due = fail  # type: ignore[method-assign]
        stage.until(over.is_set)
        stage.until_absorbed()
        assert stage.port.silent
        assert not stage.replying
        stage.session.commands()["takeover"]()
        stage.until_playing()
    assert stage.port.silent


@pytest.mark.usefixtures("quiet_log")
def test_a_port_that_fails_does_not_end_a_session() -> None:
    with running(steady(5, (60, 64, 67), chord=2)) as stage:
        stage.port.fails = lambda _: True
        stage.play()
        stage.until(lambda: stage.replying)
        time.sleep(0.1)
        stage.hear((0x90, 30, 80), (0x80, 30, 0))
        stage.session.commands()["panic"]()
        stage.port.fails = lambda _: False
        stage.until_absorbed()
        stage.play()
        stage.until_playing()
    assert stage.port.silent


@pytest.mark.usefixtures("quiet_log")
def test_a_model_that_is_broken_for_good_is_not_tried_without_a_pause() -> None:
    with running(mode="solo") as stage:
        stage.until_playing()
        stage.runtime.broken = True
        stage.until(lambda: stage.session.stats()["faults"] >= 2)
        before = stage.session.stats()["faults"]
        time.sleep(1.0)
        assert stage.session.stats()["faults"] - before < 20
        assert stage.port.silent


@pytest.mark.usefixtures("quiet_log")
def test_a_storm_of_commands_notes_and_faults_never_ends_a_session() -> None:
    chance = np.random.default_rng(5)
    with running(improviser, lookahead_ms=50) as stage, ExitStack() as storm:
        commands = [stage.session.commands()[name] for name in COMMANDS]
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
            stage.controls.set(name, values[own.integers(2)])

        def key(own: np.random.Generator) -> None:
            stage.hear((0x90, int(own.integers(40, 60)), int(own.integers(0, 2)) * 80))

        def fault(own: np.random.Generator) -> None:
            stage.runtime.failures = int(own.random() < 0.05)
            fails = bool(own.random() < 0.1)
            stage.port.fails = lambda _: fails

        for seed, action in enumerate((command, control, key, fault)):
            often(action, seed)
        time.sleep(1.5)
        over.set()
        storm.close()
        stage.runtime.failures, stage.port.fails = 0, lambda _: False
        for name, value in (("hold", False), ("mode", "respond"), ("thru", False)):
            stage.controls.set(name, value)
        stage.hear(*((0x80, pitch, 0) for pitch in range(40, 60)))
        stage.until_absorbed()
        stage.play(*chance.integers(60, 80, 3).tolist())
        stage.until_playing()
    assert stage.port.sounding == stage.port.pedals == set()


@given(st.lists(st.tuples(st.sampled_from(range(50, 56)), st.booleans()), max_size=25))
@hypothesis_settings(max_examples=8, deadline=None)
def test_whatever_is_played_nothing_sounds_afterwards(keys: list[tuple[int, bool]]) -> None:
    with running(steady(3), thru=True) as stage:
        stage.session.commands()["takeover"]()
        for pitch, down in keys:
            stage.hear((0x90, pitch, 80 if down else 0))
            time.sleep(0.002)
    assert stage.port.silent
