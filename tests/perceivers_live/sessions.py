"""A whole session with its real threads and an output port in memory. Only failures reach the timeouts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import dropwhile

from engine.engine import Engine
from engine.events import Timed
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import OscSettings, PhraseSettings, Settings
from perceivers_live.performer.performer import State
from perceivers_live.session.observers import Observer
from perceivers_live.session.saved_states import StateStore
from perceivers_live.session.session import Session
from tests.perceivers_live.receiver import Message, Synthesizer
from tests.perceivers_live.toys import Musician, ToyRuntime, improviser

PATIENCE = 20.0  # seconds
QUICK = PhraseSettings(min_silence_ms=60, max_silence_ms=120)
SETTINGS = Settings(osc=OscSettings(enabled=False), phrase=QUICK)


class SessionHarness:
    """A session in its own thread, its simulated input and output, and a record of its reports."""

    def __init__(
        self,
        musician: Musician = improviser,
        settings: Settings = SETTINGS,
        observers: Sequence[Observer] = (),
        states: StateStore | None = None,
        **controls: object,
    ) -> None:
        self.runtime = ToyRuntime(musician)
        self.engine = Engine(self.runtime)
        self.port = Synthesizer()
        self.controls = Controls(controls)
        self.states: list[State] = []
        self.human: list[Timed] = []
        self.machine: list[Timed] = []
        self.listening = threading.Event()
        self.session = Session(
            self.engine,
            settings,
            self.controls,
            self.port.send,
            states=states,
            observers=[
                Observer(
                    human=self.human.append,
                    machine=self.machine.append,
                    state=self.states.append,
                    started=self.listening.set,
                ),
                *observers,
            ],
        )
        self.thread = threading.Thread(target=self.session.run)

    @property
    def replying(self) -> bool:
        return self.session.performer.state is State.PLAYING

    def receive(self, *messages: Message) -> None:
        for message in messages:
            self.session.receive(time.perf_counter(), message)

    def play(self, *pitches: int) -> None:
        """Plays a fast, detached phrase. The performer receives it as a whole, so that no delay of this thread splits it."""
        whole = threading.Event()
        self.session.loop.inbox.put(lambda: whole.wait(PATIENCE))
        now = time.perf_counter()
        for i, pitch in enumerate(pitches or (60, 64, 67)):
            self.session.receive(now + 0.005 * i, (0x90, pitch, 80))
            self.session.receive(now + 0.005 * (i + 1), (0x80, pitch, 64))
        whole.set()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "timeout"
            assert self.thread.is_alive(), "the session has ended"
            time.sleep(0.002)

    def until_playing(self) -> None:
        """Waits until notes of the machine sound."""
        self.until(lambda: self.replying and bool(self.session.player.ledger.notes) and bool(self.machine))

    def until_absorbed(self) -> None:
        """Waits until the performer has processed all input and commands so far."""
        done = threading.Event()
        self.session.loop.inbox.put(done.set)
        self.until(done.is_set)


@contextmanager
def running(
    musician: Musician = improviser,
    settings: Settings = SETTINGS,
    observers: Sequence[Observer] = (),
    states: StateStore | None = None,
    **controls: object,
) -> Iterator[SessionHarness]:
    harness = SessionHarness(musician, settings, observers, states, **controls)
    harness.thread.start()
    try:
        harness.until(harness.listening.is_set)  # the initial messages, which silence the receiver, have been sent
        yield harness
    finally:
        harness.session.stop()
        harness.thread.join(PATIENCE)
    assert not harness.thread.is_alive()


def notes_only(messages: list[Message]) -> list[Message]:
    """Note-ons and note-offs, without the initial note-offs that reset the receiver."""
    return list(dropwhile(lambda message: message[0] & 0xF0 == 0x80, [m for m in messages if m[0] < 0xB0]))
