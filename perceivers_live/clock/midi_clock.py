"""``Beats``, the interface of a tempo source, and ``MidiClock``, which implements it.

MIDI clock (MIDI 1.0, system real-time messages and song position pointer) consists of 24 ticks a quarter note, start, stop and
continue. The times of its beats are taken from a line fitted to the ticks: see ``ticks``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum, auto
from time import perf_counter
from typing import NamedTuple, Protocol

from perceivers_live.clock.ticks import PPQ, TICK_TIMEOUT, Ticks

SONG_POSITION, TICK, START, CONTINUE, STOP = 0xF2, 0xF8, 0xFA, 0xFB, 0xFC
SIXTEENTH = PPQ // 4  # ticks; the song position pointer counts sixteenths
SAME = 0.01  # seconds; two estimates of the same beat differ by at most this, as more ticks arrive


class Beats(Protocol):
    """A source of beats (quarter notes). Times are monotonic seconds (``time.perf_counter``). Thread-safe; never blocks."""

    @property
    def bpm(self) -> float | None:
        """Beats a minute; None while the tempo is unknown."""

    @property
    def running(self) -> bool:
        """Whether the source provides beats now."""

    def position(self, now: float) -> float:
        """Beats since the start of the song; while not running, the position at which it stopped."""

    def next_beat(self, after: float) -> float | None:
        """The time of the first beat later than ``after``; None if not running or while the beat is not known yet.

        ``after`` may be an earlier result: a beat less than 10 ms after it counts as the same beat and is skipped.
        """

    def next_bar(self, after: float, beats: int) -> float | None:
        """The same for bars of ``beats`` (at least 1) beats."""


class Grid(NamedTuple):
    """Evenly spaced beats: ``beat`` falls on ``time``, and one comes every ``period`` seconds."""

    time: float
    beat: float
    period: float

    def position(self, time: float) -> float:
        return self.beat + (time - self.time) / self.period

    def next(self, after: float, beats: int = 1) -> float:
        """The time of the first multiple of ``beats`` later than ``after``."""
        multiple = (math.floor(self.position(after + SAME) / beats) + 1) * beats
        return self.time + (multiple - self.beat) * self.period


class Transport(Enum):
    """The effect of a MIDI clock message."""

    STARTED = auto()
    CONTINUED = auto()
    STOPPED = auto()
    MOVED = auto()


class _State(NamedTuple):
    """The state that other threads read. It is replaced as a whole, so they need no lock."""

    rolling: bool = False  # started or continued, and not stopped since
    last_tick: float = -math.inf  # time of the last tick or start
    timeout: float = TICK_TIMEOUT
    song: int = 0  # number of the song's next tick
    grid: Grid | None = None  # None until the song's first tick, and while the tempo is unknown
    bpm: float | None = None


class MidiClock:
    """Follows a MIDI clock; implements ``Beats``. Call ``feed`` from one thread (the driver's); read from any thread.

    The song starts with the first tick after a start message, and continues with the first tick after a continue message. If the
    first ticks arrive in the middle of a song, the tempo is known but the position of the beats is not until the next start.
    ``bpm`` keeps its last known value. After one beat without a tick the clock is not running; later ticks continue the song from
    the position at which it stopped.

    Until the tempo is known (after five ticks) the position advances in steps of one tick. ``now`` returns the current time.
    """

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now = now
        self._ticks = Ticks()
        self._zero = 0  # number of the tick that is the song's start
        self._state = _State()

    def feed(self, time: float, message: Sequence[int]) -> Transport | None:
        """Processes one raw message with its time of arrival; returns its effect. Messages other than MIDI clock are ignored."""
        status, state = message[0] if message else None, self._state
        if status == TICK:
            self._tick(time)
        elif status == START:
            return self._place(0, state._replace(rolling=True, last_tick=time), Transport.STARTED)
        elif status == CONTINUE and not _alive(state, time):
            return self._place(state.song, state._replace(rolling=True, last_tick=time), Transport.CONTINUED)
        elif status == STOP:  # a stop means silence, even if the start was missed
            return self._place(state.song, state._replace(rolling=False), Transport.STOPPED)
        elif status == SONG_POSITION and len(message) == 3 and max(message[1:]) < 128 and not _alive(state, time):
            return self._place((message[1] + 128 * message[2]) * SIXTEENTH, state, Transport.MOVED)
        return None

    def _place(self, song: int, state: _State, change: Transport) -> Transport:
        self._zero = self._ticks.last + 1 - song
        self._state = state._replace(song=song, grid=None)
        return change

    def _tick(self, time: float) -> None:
        ticks, state = self._ticks, self._state
        ticks.add(time, first=state.rolling and state.grid is None)
        song = ticks.last - self._zero
        grid = None if ticks.period is None else Grid(ticks.time, song / PPQ, PPQ * ticks.period)
        state = state._replace(last_tick=time, timeout=ticks.timeout, bpm=60 / grid.period if grid else None)
        self._state = state._replace(song=song + 1, grid=grid) if state.rolling else state

    def lost(self) -> bool:
        """The input is gone. Beats are unknown until the next start or continue, since ticks may be missed. Returns whether they
        were known.
        """
        was_running, self._state = self.running, self._state._replace(rolling=False, grid=None)
        return was_running

    def set_resolution(self, seconds: float) -> None:
        """Sets the interval to which the times of messages are quantized, such as JACK's period; 0: unknown."""
        self._ticks.resolution = seconds

    @property
    def bpm(self) -> float | None:
        return self._state.bpm

    @property
    def running(self) -> bool:
        return _alive(self._state, self._now())

    def position(self, now: float) -> float:
        state = self._state
        if state.grid is None or not _alive(state, self._now()):
            return state.song / PPQ
        return max(0.0, state.grid.position(now))

    def next_beat(self, after: float) -> float | None:
        return self.next_bar(after, 1)

    def next_bar(self, after: float, beats: int) -> float | None:
        state = self._state
        return state.grid.next(after, beats) if state.grid and _alive(state, self._now()) else None


def _alive(state: _State, now: float) -> bool:
    return state.rolling and now - state.last_tick <= state.timeout
