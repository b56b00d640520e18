"""What can be commanded, from any thread: by OSC, the page, or a controller."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from engine.states import StateError
from perceivers_live.controls.midi_map import LEARN_TIMEOUT, MidiMap
from perceivers_live.performer.performer import Performer, SavedState
from perceivers_live.session.loop import PerformerLoop
from perceivers_live.session.observers import Observers
from perceivers_live.session.output import Output
from perceivers_live.session.reaction import Reaction
from perceivers_live.session.saved_states import StateStore

log = logging.getLogger(__name__)
SAVING = 10.0  # seconds that a state has to reach the disk at the end
MOST_SAVING = 2  # states, which are large, on their way to the disk
Triggers = dict[str, Callable[[], None]]


def triggers(performer: Performer, loop: PerformerLoop, reaction: Reaction, output: Output) -> Triggers:
    """The commands without arguments."""

    def panic() -> None:
        reaction.let_go(time.perf_counter())
        loop.hush()
        loop.later(performer.yield_turn)  # a solo would begin again at once
        output.sweep()

    def forget() -> None:
        reaction.let_go(time.perf_counter())
        loop.later(performer.forget)

    return {
        "takeover": lambda: loop.later(performer.takeover),
        "yield": lambda: loop.later(performer.yield_turn),
        "forget": forget,
        "panic": panic,
    }


def map_commands(midi_map: MidiMap, say: Callable[[str], None]) -> dict[str, Callable[..., None]]:
    """Those that bind controllers. ``say`` tells the user what was done."""

    def learn(target: str) -> None:
        midi_map.learn(target, time.perf_counter())
        say(f"learning {target}: move a controller within {LEARN_TIMEOUT:.0f} s")

    def unlearn(target: str) -> None:
        count = midi_map.unlearn(target)
        say(f"unlearnt {target}: {count} controller{'s' * (count != 1)} steered it")

    return {"learn": learn, "unlearn": unlearn}


class StateCommands:
    """Saving, recalling and deleting musical states. Threads of their own wait for the disk. ``say`` reports to the user."""

    def __init__(
        self,
        states: StateStore,
        performer: Performer,
        loop: PerformerLoop,
        observers: Observers,
        say: Callable[[str], None],
    ) -> None:
        self._states, self._performer, self._loop, self._observers, self._say = states, performer, loop, observers, say
        self.saving: list[threading.Thread] = []
        self._recalled: deque[tuple[str, SavedState]] = deque(maxlen=1)  # states are large: only the one asked for last waits

    def commands(self) -> dict[str, Callable[..., None]]:
        return {"save": self._save, "recall": self._recall, "delete": self._delete}

    def close(self) -> None:
        """Waits for states on their way to the disk."""
        for thread in self.saving:
            thread.join(SAVING)

    def _save(self, name: str) -> None:
        self._states.check(name)

        def save(now: float) -> None:
            self.saving = [thread for thread in self.saving if thread.is_alive()]
            if len(self.saving) >= MOST_SAVING:
                self._fault(StateError(f"{name}: not saved, others are still being written"))
                return
            try:
                saved_state = self._performer.saved_state(now)
            except StateError as error:  # a standby holds a part of the state only
                self._fault(error)
                return
            thread = threading.Thread(target=self._write, args=(name, saved_state), daemon=True)
            thread.start()
            self.saving.append(thread)

        self._loop.later(save)

    def _write(self, name: str, saved_state: SavedState) -> None:
        try:
            self._states.save(name, saved_state)
            self._say(f"saved {name}")
        except Exception as error:
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        log.warning("%s", error)
        self._observers.fault("state", error)

    def _recall(self, name: str) -> None:
        self._recalled.append((name, self._states.load(name)))
        self._loop.later(self._go_on_from)

    def _go_on_from(self, now: float) -> None:
        if self._recalled:  # else the performer was behind, and has gone on from a later one
            name, saved_state = self._recalled.pop()
            self._performer.recall(saved_state, now)
            self._say(f"recalled {name}")

    def _delete(self, name: str) -> None:
        self._states.delete(name)
        self._say(f"deleted {name}")
