"""The queue of the performer's thread: the human's actions and commands, in order of arrival and of limited size.

A model that takes milliseconds per event falls behind if a sender floods it, or while it recovers from a fault. Up to
``MAX_ACTIONS`` of the human's actions are kept unchanged. Beyond that they are condensed to their net effect (``net_changes``):
the last release of each key that was down, the last press of each key that is down now, and the state of the pedal. Beyond
``MAX_COMMANDS`` the oldest commands are dropped. A newer command takes the queue position of an older one, so it may overtake
actions that were played before it. Releases that the player has already sent in response to the human are never dropped.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto

from engine.events import NOTE_OFF, SUSTAIN_DOWN, Timed, subject
from perceivers_live.performer.merge import Played

log = logging.getLogger(__name__)
MAX_ACTIONS = 1024  # ten seconds of the densest playing; the bundled model processes it in less than a second
MAX_COMMANDS = 64
Command = Callable[[], None]


class _Kind(Enum):
    MUSIC = auto()
    COMMAND = auto()
    WAKE = auto()
    END = auto()


class Inbox:
    """A queue with many producers and one consumer. ``put`` never blocks; only ``get`` does. A signal handler may put None, which
    ends the consumer. Actions with no command between them are returned together.
    """

    def __init__(self) -> None:
        self._order: queue.SimpleQueue[_Kind] = queue.SimpleQueue()  # kinds of the queued items; reentrant, for signal handlers
        self._lock = threading.Lock()  # guards the following attributes
        self._music: deque[list[Played]] = deque()  # one list for each MUSIC in ``_order``
        self._commands: deque[Command] = deque()  # one for each COMMAND in ``_order``
        self._can_append = False  # whether actions can be added to the newest list: no command has followed it
        self._actions = 0  # number of actions in ``_music``
        self._overloaded = self._wake_pending = False
        self.dropped = 0  # number of actions and commands dropped so far

    def put(self, item: Played | Command | None) -> None:
        """Queues what the human played, or a command for the performer's thread, or None to end that thread."""
        if item is None:
            self._order.put(_Kind.END)  # without the lock: the thread that the signal interrupts may hold it
            return
        with self._lock:
            if isinstance(item, Played):
                self._add(item)
            else:
                if len(self._commands) < MAX_COMMANDS:
                    self._order.put(_Kind.COMMAND)
                    self._can_append = False
                else:
                    self._commands.popleft()
                    self.dropped += 1
                self._commands.append(item)

    def wake(self) -> None:
        """Wakes the consumer, after a change that the performer should notice."""
        if not self._wake_pending:
            self._wake_pending = True
            self._order.put(_Kind.WAKE)

    def get(self, timeout: float | None = None) -> list[Played] | Command | None:
        """The next item. Waits at most ``timeout`` seconds; without limit if it is None. Raises ``queue.Empty``."""
        kind = self._next(timeout)
        if kind is _Kind.END:
            return None
        if kind is _Kind.WAKE:
            self._wake_pending = False
            return lambda: None
        with self._lock:
            if kind is _Kind.COMMAND:
                return self._commands.popleft()
            played = self._music.popleft()
            self._can_append = self._can_append and bool(self._music)
            self._actions -= sum(len(one.actions) for one in played)
            self._overloaded = self._overloaded and self._actions > 0
            return played

    def _next(self, timeout: float | None) -> _Kind:
        try:
            return self._order.get(block=False)
        except queue.Empty:  # on Python 3.10, a get with timeout 0 can block for ever if another get has just returned
            if timeout is not None and timeout <= 0:
                raise
        return self._order.get(timeout=timeout)

    def get_nowait(self) -> list[Played] | Command | None:
        """The next item, without waiting. Raises ``queue.Empty``."""
        return self.get(0)

    def qsize(self) -> int:
        """Number of queued actions and commands."""
        return self._actions + len(self._commands)

    def _add(self, item: Played) -> None:
        if not self._can_append:
            self._music.append([])
            self._order.put(_Kind.MUSIC)
            self._can_append = True
        self._music[-1].append(item)
        self._actions += len(item.actions)
        if self._actions > MAX_ACTIONS:
            self._condense()

    def _condense(self) -> None:
        """Replaces all queued actions by their net effect, at the position of the first."""
        everything = [one for batch in self._music for one in batch]
        remaining = deque(net_changes([one for played in everything for one in played.actions]))
        if not self._overloaded:
            log.warning("input overload: %d actions condensed to %d", self._actions, len(remaining))
        self._overloaded = True
        self.dropped += self._actions - len(remaining)
        self._actions = len(remaining)
        condensed = []
        for played in everything:
            kept = []
            for one in played.actions:
                if remaining and one is remaining[0]:
                    kept.append(remaining.popleft())
            if kept or played.released or played.silenced:
                condensed.append(played._replace(actions=kept))
        self._music = deque([condensed, *([] for _ in range(len(self._music) - 1))])


def net_changes(actions: Sequence[Timed]) -> list[Timed]:
    """The smallest subset of the actions with the same final keys and pedal. Of each kind the latest is kept, in order."""
    was_down: dict[int, bool] = {}  # key or pedal -> whether it was down before
    last: dict[tuple[int, bool], int] = {}  # (key or pedal, down) -> index of its last press or release
    for index, one in enumerate(actions):
        key = subject(one.action)
        down = one.action < NOTE_OFF or one.action == SUSTAIN_DOWN
        was_down.setdefault(key, not down)
        last[key, down] = index
    kept = []
    for key, was in was_down.items():
        release, press = last.get((key, False), -1), last.get((key, True), -1)
        kept += [release] if was else []
        kept += [press] if press > release else []
    return [actions[index] for index in sorted(kept)]
