"""More input than a session can process: it continues, with bounded memory and threads."""

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


def make_session(states: StateStore | None) -> Session:
    """A session without threads; the test's thread acts as the performer's."""
    port = Synthesizer()
    settings = Settings(osc=OscSettings(enabled=False))
    return Session(Engine(ToyRuntime()), settings, Controls(), port.send, states=states)


def drain(one: Session) -> None:
    """Processes everything in the inbox."""
    while one.loop.inbox.qsize():
        one.loop.handle_next(0)


def test_unprocessed_messages_keep_their_net_effect() -> None:
    """A flood of one second while the model does nothing, with malformed and irrelevant messages."""
    session, chance = make_session(None), random.Random(1)
    session.receive(1.0, (0x90, 5, 64))
    drain(session)
    for i in range(10_000):
        now, pitch = 2 + i / 10_000, chance.randrange(128)
        session.receive(
            now, chance.choice(((0x90, pitch, 64), (0x80, pitch, 0), (0xB0, 64, pitch), (0x90, pitch), (0xF8,), (0x90, 300, -1)))
        )
        assert session.loop.inbox.qsize() <= MAX_ACTIONS
    session.receive(3.0, (0x80, 5, 0))
    drain(session)
    assert set(session.performer.timeline.engine.sounding.held().tolist()) == session.keys.held
    assert session.performer.timeline.engine.position < 2 * MAX_ACTIONS
    for pitch in range(128):
        session.receive(4.0, (0x80, pitch, 0))
    session.receive(4.0, (0xB0, 64, 0))
    drain(session)
    assert session.performer.timeline.engine.sounding.held().tolist() == []
    assert not session.performer.timeline.engine.sounding.pedal


class FloodedRuntime(ToyRuntime):
    """Calls ``more`` at each step, to receive input while it computes."""

    more: Callable[[], object] = staticmethod(lambda: None)

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        super().step(events, ages, times, first)
        self.more()


def test_machine_continues_to_play_during_a_flood() -> None:
    """The performer gets its turn however much input there is; otherwise the machine's notes would hang."""
    runtime, flood = FloodedRuntime(), 0
    session = Session(Engine(runtime), Settings(osc=OscSettings(enabled=False)), Controls({"mode": "solo"}), Synthesizer().send)

    def more() -> None:
        nonlocal flood
        flood += 1
        if flood < 1000:
            session.receive(time.perf_counter(), (0x90, flood % 128, 64))

    session.loop.run_once()
    assert session.performer.state is State.PLAYING
    runtime.more = more  # type: ignore[method-assign]
    session.receive(time.perf_counter(), (0x90, 60, 64))
    decisions, turns = runtime.decisions, 20
    for _ in range(turns):
        session.loop.run_once()
    assert flood < 1000
    assert runtime.decisions > decisions


def test_many_panic_commands_leave_little_work() -> None:
    session = make_session(None)
    session.performer.takeover(time.perf_counter())
    assert session.player.playing
    for _ in range(1000):
        session.commands()["panic"]()
    for _ in range(1 + MAX_COMMANDS):
        session.loop.handle_next(0)
    with pytest.raises(queue.Empty):
        session.loop.inbox.get_nowait()


class StuckDisk(StateStore):
    """Writes nothing until ``answers`` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, SMALL, "toy")
        self.answers = threading.Event()
        self.saved: queue.SimpleQueue[str] = queue.SimpleQueue()

    def save(self, name: str, saved_state: SavedState) -> None:
        self.answers.wait(20.0)
        self.saved.put(name)


def test_number_of_pending_saves_is_limited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    disk = StuckDisk(tmp_path)
    session, before = make_session(disk), threading.active_count()
    for i in range(40):
        session.commands()["save"](f"state {i}")
        drain(session)
    assert threading.active_count() <= before + MAX_PENDING_SAVES
    assert sum("not saved" in record.getMessage() for record in caplog.records) == 40 - MAX_PENDING_SAVES
    disk.answers.set()
    assert {disk.saved.get(timeout=20) for _ in range(MAX_PENDING_SAVES)} == {"state 0", "state 1"}
    for thread in session._saving.writers:
        thread.join()
    session.commands()["save"]("later")
    drain(session)
    assert disk.saved.get(timeout=20) == "later"


class Shelf(StateStore):
    """Creates states on request, and tracks whether they are still in memory."""

    def __init__(self, folder: Path, make: Callable[[str], SavedState]) -> None:
        super().__init__(folder, SMALL, "toy")
        self._make = make
        self.loaded: list[weakref.ref[np.ndarray]] = []

    def load(self, name: str) -> SavedState:
        saved_state = self._make(name)
        self.loaded.append(weakref.ref(saved_state.snapshot.rings[0]))
        return saved_state


def test_only_the_last_of_many_pending_recalls_is_kept(tmp_path: Path) -> None:
    model = make_session(StateStore(tmp_path, SMALL, "toy"))
    shelf = Shelf(tmp_path, lambda name: model.performer.saved_state(0.0)._replace(seed=int(name)))
    session = make_session(shelf)
    for i in range(40):
        session.commands()["recall"](str(i))
    gc.collect()
    assert sum(ring() is not None for ring in shelf.loaded) == 1
    drain(session)
    assert session.performer.saved_state(0.0).seed == 39
    session.commands()["recall"]("5")
    drain(session)
    assert session.performer.saved_state(0.0).seed == 5


def test_number_of_saved_states_is_limited(tmp_path: Path) -> None:
    states = StateStore(tmp_path, SMALL, "toy")
    for i in range(MAX_STATES):
        (tmp_path / f"{i}.state").touch()
    states.check("0")  # replaces the old one
    with pytest.raises(StateError, match="delete one"):
        states.check("another")
    saved_state = make_session(states).performer.saved_state(0.0)
    with pytest.raises(StateError, match="delete one"):
        states.save("another", saved_state)
    assert len(list(tmp_path.iterdir())) == MAX_STATES
