"""Where the ticks of a MIDI clock really are: a straight line through the last ones.

A tick says only "another twenty-fourth of a quarter note has passed". It comes a millisecond or two early or late (or as coarsely
as the sender's audio buffer, or JACK's period), some are lost and some come twice. What has to be known is when a beat will fall.
So a line is fitted to the times of the numbered ticks by least squares, over a window as long as the tempo has been steady.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import chain, pairwise
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

PPQ = 24  # ticks a quarter note
WINDOW = 96  # ticks: over four beats, 2 ms of jitter leave a third of a millisecond (rms) in a beat foreseen
RECENT = 8  # ticks whose mean tells that the line is off
ENOUGH = 5  # ticks that have a tempo of their own; a whole beat of them, where one is known that may still hold
GATE = 0.3  # of a tick: what comes further from where it was expected is odd
TURN = 6  # odd ticks in a row that are looked into
SLIPS = 4  # corrections of the count at even distances: there was nothing to correct
SHORTEST, LONGEST = 0.001, 0.5  # seconds a tick: 2500 and 5 bpm; anything beyond is no tempo
TICK_TIMEOUT = 1.0  # seconds without a tick, while there is no tempo, after which the clock is dead; else it is a beat


class _Tick(NamedTuple):
    number: int
    time: float
    late: float  # ticks after it was expected


class Ticks:
    """Numbers ticks and knows when they fall: tick ``last`` at ``time`` (monotonic seconds), one every ``period`` seconds (None
    before there are enough).

    An odd tick is left out, and the line carries on: an outlier, or a burst after a delay. Odd ticks that stay off by the same
    whole number tell that some were lost or came twice: the count is put right. If they stay off in any other way it is another
    tempo: the window begins again, with them. A smaller change of tempo shows in the latest ticks, when they lie more to one side
    of the line than jitter explains: the older half of the window goes.

    With ticks as coarse as an audio buffer of nearly their own length, one in so many seems lost or doubled, at even distances.
    From then on all of them count, and a change of tempo takes two or three beats to be followed.
    """

    def __init__(self) -> None:
        self._window: deque[_Tick] = deque(maxlen=WINDOW)
        self._odd: list[_Tick] = []  # those in a row that are not in the window
        self._error = 0.0  # mean distance of the window from the line, in seconds
        self._slips: deque[tuple[int, int]] = deque(maxlen=SLIPS)  # number of a tick, how many were lost before it
        self._coarse = False
        self._enough = ENOUGH
        self._latest = -math.inf
        self.last = -1
        self.time = -math.inf
        self.period: float | None = None

    @property
    def timeout(self) -> float:
        """Seconds without a tick after which the clock is dead."""
        return TICK_TIMEOUT if self.period is None else PPQ * self.period

    def add(self, time: float, first: bool = False) -> None:
        """Another tick came, at ``time``. ``first``: a song starts with it, so if it is odd, those before it tell nothing."""
        time, silence = max(time, self._latest), time - self._latest
        self._latest = time
        self.last += 1
        late, gate = 0.0, GATE
        if self._window and self.period is not None:
            late = (time - self.time) / self.period - 1
            spread = 2.4 * self._error / self.period  # what even a coarse clock's ticks hardly leave
            gate = max(GATE, spread) * (1 + 2 / len(self._window))  # a short line does not know better
        if silence > self.timeout or (first and abs(late) > gate):
            self._window.clear()
            self._odd.clear()
            self._enough = ENOUGH if self.period is None else PPQ
            self._coarse, late = False, 0.0
        if first:
            self._slips.clear()  # the song counts from here
        tick = _Tick(self.last, time, late)
        if abs(late) <= gate or self._coarse:
            self._odd.clear()
            self._window.append(tick)
        else:
            self._odd.append(tick)
            if len(self._odd) >= TURN:
                self._reconsider(countable=gate < 0.5)
        self._fit()

    def _reconsider(self, countable: bool) -> None:
        """The odd ticks are too many to be left out."""
        latest = self._odd[-TURN:]
        slip = round(median(tick.late for tick in latest))
        agreed = [tick for tick in latest if abs(tick.late - slip) <= GATE]
        drift = fmean(tick.late for tick in latest[TURN // 2 :]) - fmean(tick.late for tick in latest[: TURN // 2])
        if countable and slip and len(agreed) >= TURN - 1 and abs(drift) <= GATE:
            self._correct(slip, agreed)
        elif len(self._odd) >= 2 * TURN or any(abs(tick.late - round(tick.late)) > GATE for tick in self._odd):
            self._window, self._enough = deque(self._odd, WINDOW), ENOUGH
        else:
            return  # each is off by a whole number: there may have been several slips
        self._odd.clear()

    def _correct(self, slip: int, agreed: list[_Tick]) -> None:
        self._slips.append((self.last, slip))
        apart = [late - early for (early, _), (late, _) in pairwise(self._slips)]
        if len(self._slips) == SLIPS and max(apart) - min(apart) <= max(2, 0.1 * max(apart)):
            self._coarse = True
            self._window.clear()
            slip -= sum(slip for _, slip in self._slips)  # takes back the earlier ones too
        self.last += slip
        self._window.extend(tick._replace(number=tick.number + slip) for tick in agreed)

    def _fit(self) -> None:
        while True:
            numbers, times, _ = np.fromiter(chain.from_iterable(self._window), float).reshape(-1, 3).T
            numbers = numbers - self.last
            middle, mean = float(numbers.mean()), float(times.mean())
            spread = float(np.square(numbers - middle).sum())
            if len(times) >= self._enough and spread:
                period = float((numbers - middle) @ (times - mean)) / spread
                self.period = period if SHORTEST <= period <= LONGEST else self.period
            if self.period is None:
                return
            self.time = mean - middle * self.period
            errors = times - self.time - numbers * self.period
            self._error = float(np.abs(errors).mean())
            jitter = float(np.abs(np.diff(errors)).mean()) if len(errors) > 1 else 0.0  # 1.1 standard deviations, without drift
            limit = jitter + (0.6 if self._coarse else 0.01) * self.period  # three standard deviations of the mean of 8
            if len(times) <= 2 * RECENT or abs(float(errors[-RECENT:].mean())) <= limit:
                return
            self._window, self._enough = deque(list(self._window)[len(times) // 2 :], WINDOW), ENOUGH
