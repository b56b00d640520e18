"""Musical time from outside: what a source of beats tells (``Beats``), and MIDI clock as such a source.

MIDI clock (MIDI 1.0, system real-time messages and the song position pointer) is 24 ticks a quarter note, a start, a stop and a
continue. Where its beats fall is read off a line through the ticks: see ``ticks``.
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
SAME = 0.01  # seconds: two answers for one beat may differ by as much, as the clock is heard on


class Beats(Protocol):
    """A source of beats: quarter notes, at monotonic seconds (``time.perf_counter``). Any thread may ask; none has to wait."""

    @property
    def bpm(self) -> float | None:
        """Beats a minute, None while there is no tempo."""

    @property
    def running(self) -> bool:
        """Whether there are beats to play to, now."""

    def position(self, now: float) -> float:
        """Beats since the song's start; where it stands while not running."""

    def next_beat(self, after: float) -> float | None:
        """The time of the first beat later than ``after``; None if not running, or while the beat is not known yet.

        ``after`` may be an earlier answer: a beat less than 10 ms later is the same one, better known by now, and passed over.
        """

    def next_bar(self, after: float, beats: int) -> float | None:
        """The same for bars of ``beats`` beats, which is at least 1."""


class Grid(NamedTuple):
    """Evenly spaced beats: ``beat`` falls on ``time``, and one comes every ``period`` seconds."""

    time: float
    beat: float
    period: float

    def position(self, time: float) -> float:
        return self.beat + (time - self.time) / self.period

    def next(self, after: float, beats: int = 1) -> float:
        """When the first multiple of ``beats`` later than ``after`` falls."""
        multiple = (math.floor(self.position(after + SAME) / beats) + 1) * beats
        return self.time + (multiple - self.beat) * self.period


class Transport(Enum):
    """What a message of MIDI clock changed."""

    STARTED = auto()
    CONTINUED = auto()
    STOPPED = auto()
    MOVED = auto()


class _State(NamedTuple):
    """What readers see; replaced as a whole, so that they need no lock."""

    rolling: bool = False  # started or continued, and not stopped since
    heard: float = -math.inf  # when the last tick or start came
    timeout: float = TICK_TIMEOUT
    song: int = 0  # number of the song's next tick
    grid: Grid | None = None  # None until the song's first tick, and before there is a tempo
    bpm: float | None = None


class MidiClock:
    """Follows a MIDI clock: ``Beats``. Fed from one thread, the driver's; read from any.

    The song starts with the first tick after a start, or goes on with the first after a continue; who joins in the middle of a
    song hears its tempo, but not where its beats are, and has to wait for the next start. ``bpm`` stays the last one known. When
    no tick has come for a beat the clock is dead, and not running; ticks that come later go on where the song stood.

    Until there is a tempo (the fifth tick ever) the position moves in steps of a tick. ``now``: asked for the time.
    """

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now = now
        self._ticks = Ticks()
        self._zero = 0  # number of the tick that is the song's start
        self._state = _State()

    def feed(self, time: float, message: Sequence[int]) -> Transport | None:
        """One raw message, stamped on arrival; returns what it changed. Everything but MIDI clock is ignored."""
        status, state = message[0] if message else None, self._state
        if status == TICK:
            self._tick(time)
        elif status == START:
            return self._place(0, state._replace(rolling=True, heard=time), Transport.STARTED)
        elif status == CONTINUE and not _alive(state, time):
            return self._place(state.song, state._replace(rolling=True, heard=time), Transport.CONTINUED)
        elif status == STOP:  # means silence, whether or not the start was heard
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
        state = state._replace(heard=time, timeout=ticks.timeout, bpm=60 / grid.period if grid else None)
        self._state = state._replace(song=song + 1, grid=grid) if state.rolling else state

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
    return state.rolling and now - state.heard <= state.timeout
