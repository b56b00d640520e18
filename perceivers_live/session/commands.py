"""The commands of a session. OSC, the page and bound controllers call them, from any thread. The first line of a command's
docstring is its description for OSCQuery.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
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
SAVE_TIMEOUT = 10.0  # seconds that ``close`` waits for each state that is being written
MAX_PENDING_SAVES = 2  # states being written at the same time; each one takes much memory
Triggers = dict[str, Callable[[], None]]


def triggers(performer: Performer, loop: PerformerLoop, reaction: Reaction, output: Output) -> Triggers:
    """The commands without arguments."""

    def takeover() -> None:
        """The machine begins to play now."""
        loop.submit(performer.takeover)

    def yield_turn() -> None:
        """The machine stops and listens."""
        loop.submit(performer.yield_turn)

    def panic() -> None:
        """Silences everything; the machine stops and listens."""
        reaction.release_all(time.perf_counter())
        loop.silence()
        loop.submit(performer.yield_turn)  # otherwise mode solo would start again immediately
        output.reset_channel()

    def forget() -> None:
        """Clears the memory of what was played."""
        reaction.release_all(time.perf_counter())
        loop.submit(performer.forget)

    return {"takeover": takeover, "yield": yield_turn, "forget": forget, "panic": panic}


def map_commands(midi_map: MidiMap, report: Callable[[str], None]) -> dict[str, Callable[..., None]]:
    """The commands that bind controllers. ``report`` sends the user a message."""

    def learn(target: str) -> None:
        """Binds the next MIDI controller that moves to a control or command."""
        midi_map.learn(target, time.perf_counter())
        report(f"learning {target}: move a controller within {LEARN_TIMEOUT:.0f} s")

    def unlearn(target: str) -> None:
        """Removes the MIDI bindings of a control or command."""
        count = midi_map.unlearn(target)
        report(f"unlearnt {target}: {count} controller{'s' * (count != 1)} unbound")

    return {"learn": learn, "unlearn": unlearn}


class StateCommands:
    """The commands that save, recall and delete musical states. Each save has its own thread, because disks are slow, and waits
    for the save before it. A state that is not written yet is recalled from memory. ``report`` sends the user a message.
    """

    def __init__(
        self,
        states: StateStore,
        performer: Performer,
        loop: PerformerLoop,
        observers: Observers,
        report: Callable[[str], None],
    ) -> None:
        self._states, self._performer, self._loop = states, performer, loop
        self._observers, self._report = observers, report
        self.writers: list[threading.Thread] = []
        self._lock = threading.Lock()  # of the two below
        self._requested: Counter[str] = Counter()  # saves that the performer has not made yet, by name
        self._unwritten: dict[str, SavedState] = {}  # the newest state of a name that is being written
        # The newest request, because states are large; None: of a state that was not written when it was requested.
        self._pending_recall: deque[tuple[str, SavedState | None]] = deque(maxlen=1)

    def commands(self) -> dict[str, Callable[..., None]]:
        return {"save": self._save, "recall": self._recall, "delete": self._delete}

    def close(self) -> None:
        """Waits until pending states are written."""
        for thread in self.writers:
            thread.join(SAVE_TIMEOUT)

    def _save(self, name: str) -> None:
        """Saves the musical state under a name."""
        self._states.check(name)
        with self._lock:
            self._requested[name] += 1

        def save(now: float) -> None:
            with self._lock:
                self._requested[name] -= 1
            self.writers = [thread for thread in self.writers if thread.is_alive()]
            if len(self.writers) >= MAX_PENDING_SAVES:
                self._report_fault(StateError(f"{name}: not saved, because others are still being written"))
                return
            try:
                saved_state = self._performer.saved_state(now)
            except StateError as error:  # a standby has only a part of the state
                self._report_fault(error)
                return
            with self._lock:
                self._unwritten[name] = saved_state
            before = self.writers[-1] if self.writers else None
            thread = threading.Thread(target=self._write, args=(name, saved_state, before), daemon=True)
            thread.start()
            self.writers.append(thread)

        self._loop.submit(save)

    def _write(self, name: str, saved_state: SavedState, before: threading.Thread | None) -> None:
        """``before``: the thread that writes the state saved before this one."""
        if before is not None:
            before.join()
        try:
            self._states.save(name, saved_state)
            self._report(f"saved {name}")
        except Exception as error:
            self._report_fault(error)
        with self._lock:
            if self._unwritten.get(name) is saved_state:
                del self._unwritten[name]

    def _report_fault(self, error: Exception) -> None:
        log.warning("%s", error)
        self._observers.fault("state", error)

    def _recall(self, name: str) -> None:
        """Continues from a saved state."""
        with self._lock:
            is_written = not self._requested[name] and name not in self._unwritten
        self._pending_recall.append((name, self._states.load(name) if is_written else None))
        self._loop.submit(self._apply_recall)

    def _apply_recall(self, now: float) -> None:
        if self._pending_recall:  # empty if an earlier call has already applied a newer request
            name, saved_state = self._pending_recall.pop()
            if saved_state is None:
                with self._lock:
                    saved_state = self._unwritten.get(name)
            try:
                saved_state = saved_state or self._states.load(name)  # it was written meanwhile, or the save has failed
            except StateError as error:
                self._report_fault(error)
                return
            self._performer.recall(saved_state, now)
            self._report(f"recalled {name}")

    def _delete(self, name: str) -> None:
        """Deletes a saved state."""
        self._states.delete(name)
        self._report(f"deleted {name}")
