"""Estimates tempo and beats of a MIDI clock: a line fitted to the times of the last ticks.

A tick only marks another twenty-fourth of a quarter note. Ticks arrive a millisecond or two early or late (or quantized to the
sender's audio buffer or JACK's period), and some are lost or duplicated. The player needs the time of a future beat. Therefore a
line is fitted by least squares to the times of the numbered ticks, over a window in which the tempo has been steady.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import chain, pairwise
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

PPQ = 24  # ticks a quarter note
WINDOW = 96  # ticks; over four beats, jitter of 2 ms leaves an error of a third of a millisecond (rms) in a predicted beat
RECENT = 8  # newest ticks; if their mean error is large, the tempo has changed
ENOUGH = 5  # ticks needed for a first tempo; PPQ ticks where an earlier tempo may still be valid
GATE = 0.3  # of a tick; a tick further than this from its expected time is an outlier
TURN = 6  # consecutive outliers after which they are examined
SLIPS = 4  # evenly spaced corrections of the count; they mean that the ticks are quantized, and none was lost
SHORTEST, LONGEST = 0.001, 0.5  # seconds a tick: 2500 and 5 bpm, the limits of a tempo
COARSE = 0.006  # seconds; ticks that are quantized more coarsely are GATE late or more at usual tempi
TICK_TIMEOUT = 1.0  # seconds without a tick after which the clock has stopped, while the tempo is unknown; else one beat


class _Tick(NamedTuple):
    number: int
    time: float
    late: float  # ticks after it was expected


class Ticks:
    """Numbers the ticks and fits their times: tick ``last`` falls at ``time`` (monotonic seconds), and one every ``period``
    seconds (None before there are enough ticks).

    Outliers, such as a burst after a delay, are left out of the fit. Consecutive outliers that are late by the same whole number
    of ticks mean that ticks were lost or duplicated: the count is corrected. Other consecutive outliers mean a new tempo: the
    window restarts with them. After a smaller change of tempo the newest ticks lie further to one side of the line than jitter
    explains: the older half of the window is dropped.

    If ticks are quantized to an audio buffer of nearly the length of a tick, ticks seem to be lost or duplicated at regular
    intervals. Once this is detected no tick is an outlier any more, and following a change of tempo takes two or three beats. It
    is detected late; so set ``resolution``, the length of that buffer in seconds, where it is known (0: unknown).
    """

    def __init__(self) -> None:
        self._window: deque[_Tick] = deque(maxlen=WINDOW)
        self._odd: list[_Tick] = []  # consecutive outliers, which are not in the window
        self._error = 0.0  # mean distance of the window from the line, in seconds
        self._slips: deque[tuple[int, int]] = deque(maxlen=SLIPS)  # number of a tick, how many were lost before it
        self._coarse = False
        self._enough = ENOUGH
        self._latest = -math.inf
        self.resolution = 0.0
        self.last = -1
        self.time = -math.inf
        self.period: float | None = None

    @property
    def timeout(self) -> float:
        """Seconds without a tick after which the clock counts as stopped."""
        return TICK_TIMEOUT if self.period is None else PPQ * self.period

    def add(self, time: float, first: bool = False) -> None:
        """Adds a tick that arrived at ``time``. ``first``: a song starts with it; an outlier then drops earlier ticks."""
        time, silence = max(time, self._latest), time - self._latest
        self._latest = time
        self.last += 1
        late, gate = 0.0, GATE
        if self._window and self.period is not None:
            late = (time - self.time) / self.period - 1
            spread = 2.4 * self._error / self.period  # ticks even of a coarse clock rarely lie outside
            gate = max(GATE, spread) * (1 + 2 / len(self._window))  # a line through few ticks is less accurate
        if silence > self.timeout or (first and abs(late) > gate):
            self._window.clear()
            self._odd.clear()
            self._enough = ENOUGH if self.period is None else PPQ
            self._coarse, late = self.resolution > COARSE, 0.0
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
        """Handles a run of outliers: a corrected count, a new tempo, or nothing yet."""
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
