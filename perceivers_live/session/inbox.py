"""What waits for the performer's thread: in the order in which it came, and never more than it can catch up with.

A model that takes milliseconds an event falls behind a stuck or hostile sender, or behind anybody while it recovers from a fault.
What the human plays meanwhile is kept as it is up to ``MOST_ACTIONS``. Beyond that it is replaced by what it comes to (``net``):
the last release of every key that was down, the last strike of every key that is down now, and the pedal as it is. Of more than
``MOST_COMMANDS`` the oldest go, and the newest take their places: they may overtake what was played before them. What the player
did in answer is never left out: that is what sounded.
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
MOST_ACTIONS = 1024  # ten seconds of the densest playing, and less than a second of the bundled model's time
MOST_COMMANDS = 64
Command = Callable[[], None]


class _Next(Enum):
    MUSIC = auto()
    COMMAND = auto()
    WAKE = auto()
    END = auto()


class Inbox:
    """``put`` from any thread, ``get`` from one; a signal handler may put None, which says that it is over. Nobody waits but the
    one who gets. Actions that were put one after the other come out together.
    """

    def __init__(self) -> None:
        self._order: queue.SimpleQueue[_Next] = queue.SimpleQueue()  # which of the two is next; reentrant, for signal handlers
        self._lock = threading.Lock()  # guards what follows
        self._music: deque[list[Played]] = deque()  # one for each MUSIC in the order
        self._commands: deque[Command] = deque()  # one for each COMMAND
        self._growing = False  # whether the newest music may be added to: no command has come since
        self._actions = 0  # in all of the music
        self._flooded = self._woken = False
        self.left_out = 0  # actions and commands, so far

    def put(self, item: Played | Command | None) -> None:
        """What happened, a command for the performer's thread, or None to end it."""
        if item is None:
            self._order.put(_Next.END)  # without the lock, which the interrupted thread may hold
            return
        with self._lock:
            if isinstance(item, Played):
                self._add(item)
            else:
                if len(self._commands) < MOST_COMMANDS:
                    self._order.put(_Next.COMMAND)
                    self._growing = False
                else:
                    self._commands.popleft()
                    self.left_out += 1
                self._commands.append(item)

    def wake(self) -> None:
        """Something has changed that the performer should see."""
        if not self._woken:  # once is enough
            self._woken = True
            self._order.put(_Next.WAKE)

    def get(self, timeout: float | None = None) -> list[Played] | Command | None:
        """The next, after waiting ``timeout`` seconds at most (None: for ever). Raises ``queue.Empty``."""
        following = self._next(timeout)
        if following is _Next.END:
            return None
        if following is _Next.WAKE:
            self._woken = False
            return lambda: None
        with self._lock:
            if following is _Next.COMMAND:
                return self._commands.popleft()
            played = self._music.popleft()
            self._growing = self._growing and bool(self._music)
            self._actions -= sum(len(one.actions) for one in played)
            self._flooded = self._flooded and self._actions > 0
            return played

    def _next(self, timeout: float | None) -> _Next:
        try:
            return self._order.get(block=False)
        except queue.Empty:  # only now with the timeout: in Python 3.10 one of 0 may last for ever while something was just taken
            if timeout is not None and timeout <= 0:
                raise
        return self._order.get(timeout=timeout)

    def get_nowait(self) -> list[Played] | Command | None:
        """The next, if there is one. Raises ``queue.Empty``."""
        return self.get(0)

    def qsize(self) -> int:
        """Actions and commands that wait."""
        return self._actions + len(self._commands)

    def _add(self, item: Played) -> None:
        if not self._growing:
            self._music.append([])
            self._order.put(_Next.MUSIC)
            self._growing = True
        self._music[-1].append(item)
        self._actions += len(item.actions)
        if self._actions > MOST_ACTIONS:
            self._condense()

    def _condense(self) -> None:
        """All the music that waits becomes what it comes to, where the first of it is."""
        everything = [one for batch in self._music for one in batch]
        left = deque(net([one for played in everything for one in played.actions]))
        if not self._flooded:
            log.warning("input overload: %d actions condensed to %d", self._actions, len(left))
        self._flooded = True
        self.left_out += self._actions - len(left)
        self._actions = len(left)
        outcome = []
        for played in everything:
            kept = []
            for one in played.actions:
                if left and one is left[0]:
                    kept.append(left.popleft())
            if kept or played.released or played.silenced:
                outcome.append(played._replace(actions=kept))
        self._music = deque([outcome, *([] for _ in range(len(self._music) - 1))])


def net(actions: Sequence[Timed]) -> list[Timed]:
    """The fewest of these actions that lead from the same keys and pedal down to the same, the latest of each, in order."""
    begins: dict[int, bool] = {}  # key or pedal -> whether it was down before
    last: dict[tuple[int, bool], int] = {}  # it, and whether it goes down -> the last time that it does
    for index, one in enumerate(actions):
        key = subject(one.action)
        down = one.action < NOTE_OFF or one.action == SUSTAIN_DOWN
        begins.setdefault(key, not down)
        last[key, down] = index
    kept = []
    for key, was_down in begins.items():
        release, strike = last.get((key, False), -1), last.get((key, True), -1)
        kept += [release] if was_down else []
        kept += [strike] if strike > release else []
    return [actions[index] for index in sorted(kept)]
