"""More than a session can follow: it goes on, and neither its memory nor its threads grow."""

from __future__ import annotations

import gc
import logging
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.engine import Engine
from engine.states import StateError
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import OscSettings, Settings
from perceivers_live.performer.performer import SavedState, State
from perceivers_live.session.commands import MAX_PENDING_SAVES
from perceivers_live.session.inbox import MAX_ACTIONS, MAX_COMMANDS
from perceivers_live.session.saved_states import MAX_STATES, StateStore
from perceivers_live.session.session import Session
from tests.perceivers_live.receiver import Synthesizer
from tests.perceivers_live.toys import SMALL, ToyRuntime


def session(states: StateStore | None) -> Session:
    """Without threads: the test's is the performer's."""
    port = Synthesizer()
    settings = Settings(osc=OscSettings(enabled=False))
    return Session(Engine(ToyRuntime()), settings, Controls(), port.send, states=states)


def drain(one: Session) -> None:
    """Deals with everything that waits."""
    while one.loop.inbox.qsize():
        one.loop.handle_next(0)


def test_ten_thousand_messages_that_nobody_takes_leave_their_outcome() -> None:
    """A second's flood while the model does nothing; broken and foreign messages are part of it."""
    stage, chance = session(None), random.Random(1)
    stage.receive(1.0, (0x90, 5, 64))
    drain(stage)
    for i in range(10_000):
        now, pitch = 2 + i / 10_000, chance.randrange(128)
        stage.receive(
            now, chance.choice(((0x90, pitch, 64), (0x80, pitch, 0), (0xB0, 64, pitch), (0x90, pitch), (0xF8,), (0x90, 300, -1)))
        )
        assert stage.loop.inbox.qsize() <= MAX_ACTIONS
    stage.receive(3.0, (0x80, 5, 0))
    drain(stage)
    assert set(stage.performer.timeline.engine.sounding.held().tolist()) == stage.keys.held
    assert stage.performer.timeline.engine.position < 2 * MAX_ACTIONS
    for pitch in range(128):
        stage.receive(4.0, (0x80, pitch, 0))
    stage.receive(4.0, (0xB0, 64, 0))
    drain(stage)
    assert stage.performer.timeline.engine.sounding.held().tolist() == []
    assert not stage.performer.timeline.engine.sounding.pedal


class FloodedRuntime(ToyRuntime):
    """While it computes, more is played."""

    more: Callable[[], object] = staticmethod(lambda: None)

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        super().step(events, ages, times, first)
        self.more()


def test_the_machine_goes_on_playing_in_a_flood() -> None:
    """The performer is given its turn however much there is to hear; else what the machine has struck would hang."""
    runtime, flood = FloodedRuntime(), 0
    stage = Session(Engine(runtime), Settings(osc=OscSettings(enabled=False)), Controls({"mode": "solo"}), Synthesizer().send)

    def more() -> None:
        nonlocal flood
        flood += 1
        if flood < 1000:
            stage.receive(time.perf_counter(), (0x90, flood % 128, 64))

    stage.loop.run_once()
    assert stage.performer.state is State.PLAYING
    runtime.more = more  # type: ignore[method-assign]
    stage.receive(time.perf_counter(), (0x90, 60, 64))
    decisions, turns = runtime.decisions, 20
    for _ in range(turns):
        stage.loop.run_once()
    assert flood < 1000
    assert runtime.decisions > decisions


def test_a_thousand_panics_while_the_machine_plays_are_one_silence() -> None:
    stage = session(None)
    stage.performer.takeover(time.perf_counter())
    assert stage.player.playing
    for _ in range(1000):
        stage.commands()["panic"]()
    for _ in range(1 + MAX_COMMANDS):
        stage.loop.handle_next(0)
    with pytest.raises(queue.Empty):
        stage.loop.inbox.get_nowait()


class StuckDisk(StateStore):
    """Writes nothing before it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, SMALL, "toy")
        self.answers = threading.Event()
        self.saved: queue.SimpleQueue[str] = queue.SimpleQueue()

    def save(self, name: str, saved_state: SavedState) -> None:
        self.answers.wait(20.0)
        self.saved.put(name)


def test_states_that_wait_for_the_disk_are_few(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    disk = StuckDisk(tmp_path)
    stage, before = session(disk), threading.active_count()
    for i in range(40):
        stage.commands()["save"](f"state {i}")
        drain(stage)
    assert threading.active_count() <= before + MAX_PENDING_SAVES
    assert sum("not saved" in record.getMessage() for record in caplog.records) == 40 - MAX_PENDING_SAVES
    disk.answers.set()
    assert {disk.saved.get(timeout=20) for _ in range(MAX_PENDING_SAVES)} == {"state 0", "state 1"}
    for thread in stage._saving.writers:
        thread.join()
    stage.commands()["save"]("later")
    drain(stage)
    assert disk.saved.get(timeout=20) == "later"


class Shelf(StateStore):
    """Makes what is asked for, and sees what becomes of it."""

    def __init__(self, folder: Path, make: Callable[[str], SavedState]) -> None:
        super().__init__(folder, SMALL, "toy")
        self._make = make
        self.loaded: list[weakref.ref[np.ndarray]] = []

    def load(self, name: str) -> SavedState:
        saved_state = self._make(name)
        self.loaded.append(weakref.ref(saved_state.snapshot.rings[0]))
        return saved_state


def test_of_states_that_are_recalled_faster_than_taken_up_only_the_last_is_kept(tmp_path: Path) -> None:
    model = session(StateStore(tmp_path, SMALL, "toy"))
    shelf = Shelf(tmp_path, lambda name: model.performer.saved_state(0.0)._replace(seed=int(name)))
    stage = session(shelf)
    for i in range(40):
        stage.commands()["recall"](str(i))
    gc.collect()
    assert sum(ring() is not None for ring in shelf.loaded) == 1
    drain(stage)
    assert stage.performer.saved_state(0.0).seed == 39
    stage.commands()["recall"]("5")
    drain(stage)
    assert stage.performer.saved_state(0.0).seed == 5


def test_no_more_states_are_kept_than_a_disk_has_room_for(tmp_path: Path) -> None:
    states = StateStore(tmp_path, SMALL, "toy")
    for i in range(MAX_STATES):
        (tmp_path / f"{i}.state").touch()
    states.check("0")  # takes the old one's place
    with pytest.raises(StateError, match="delete one"):
        states.check("another")
    saved_state = session(states).performer.saved_state(0.0)
    with pytest.raises(StateError, match="delete one"):
        states.save("another", saved_state)
    assert len(list(tmp_path.iterdir())) == MAX_STATES
