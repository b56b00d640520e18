"""Decisions ahead over the protocol: the values of DECIDE_AHEAD and of its answer, and the client's record of what the server has
done.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from engine.adjustment import KEPT_STRIKES, Goal, Strike, Target
from engine.ahead import MAX_AHEAD, DecisionRequest
from engine.events import ACTIONS, PITCHES, VELOCITIES, VELOCITY_BINS, WAITS, Event
from engine.grid import PulseGrid
from engine.remote.wire import Value, WireError
from engine.sampling import SamplingControls
from engine.sounding import AGES, Sounding

MIN_DELAY = 0.004  # seconds; with less delay each decision is a call of its own, since events decided ahead may be discarded
MAX_SECONDS = 0.05  # that the server goes on deciding
NO_GRID = PulseGrid(0.0, 0.0, 0.0)


def call_values(request: DecisionRequest, sounding: Sounding, seconds: float) -> tuple[Value, ...]:
    """The values of the call, after the position: ``engine.ahead.decide_ahead``."""
    goal, grid = request.goal, request.goal.grid or NO_GRID
    numbers = [*dataclasses.astuple(request.sampling), goal.start, goal.gain, *goal.target, *grid]
    own, forbidden = (np.array(sorted(one), np.int64) for one in (request.own, request.forbidden))
    strikes = np.array(request.strikes, np.int64).reshape(-1, 3)
    state = (request.seed, int(request.own_pedal), request.step, own, forbidden, strikes, sounding.ages(), seconds)
    return (*state, *map(float, numbers))


def parse_call(values: Sequence[Value]) -> tuple[DecisionRequest, Sounding, float]:
    """Reads ``call_values``. Raises ``ValueError`` for values that are not those of a call."""
    match values:
        case (int(seed), int(own_pedal), int(step), np.ndarray() as own, np.ndarray() as forbidden, *rest) if step >= 0:
            match rest:
                case (np.ndarray() as strikes, np.ndarray() as ages, float(seconds), *numbers) if ages.shape == (AGES,):
                    sampling, goal = _numbers(numbers)
                    keys, others = (frozenset(_whole(one[:, None], (PITCHES,))[:, 0].tolist()) for one in (own, forbidden))
                    rows = _whole(strikes, (step + 1, PITCHES, VELOCITY_BINS)).tolist()
                    played = tuple(Strike(*row) for row in rows[-KEPT_STRIKES:])
                    request = DecisionRequest(seed, sampling, keys, bool(own_pedal), others, played, goal, step)
                    return request, Sounding.of(step, ages), min(seconds, MAX_SECONDS)
    raise ValueError("wrong arguments for decisions ahead")


def _whole(rows: np.ndarray, ends: tuple[int, ...]) -> np.ndarray:
    """The rows, [n, len(ends)] int64, if each number is in the range from 0 to below its column's end."""
    if rows.dtype != np.int64 or rows.ndim != 2 or rows.shape[1] != len(ends) or not ((rows >= 0) & (rows < ends)).all():
        raise ValueError("wrong numbers for decisions ahead")
    return rows


def _numbers(values: Sequence[Value]) -> tuple[SamplingControls, Goal]:
    fields = dataclasses.fields(SamplingControls)
    numbers = [one for one in values if isinstance(one, float) and math.isfinite(one)]
    if len(numbers) != len(values) or len(numbers) != len(fields) + 2 + len(Target._fields) + len(PulseGrid._fields):
        raise ValueError("wrong sampling for decisions ahead")
    whole = (isinstance(field.default, int) for field in fields)
    sampling = SamplingControls(*(int(one) if is_int else one for one, is_int in zip(numbers, whole, strict=False)))  # type: ignore[arg-type]
    start, gain, *others = numbers[len(fields) :]
    target, grid = Target(*others[: len(Target._fields)]), PulseGrid(*others[len(Target._fields) :])
    if min(target.rate, target.factor) <= 0 or grid.sharpness < 0:
        raise ValueError("wrong goal for decisions ahead")
    return sampling, Goal(start, target, gain, grid if grid.sharpness else None)


def answer_values(events: Sequence[Event], seconds: float) -> tuple[Value, ...]:
    """The values of the answer: events, and how many seconds the server took for them."""
    return np.array(events, np.int64).reshape(-1, 3), seconds


def parse_answer(values: Sequence[Value]) -> tuple[list[Event], float]:
    """Reads ``answer_values``. Raises ``WireError``."""
    match values:
        case (np.ndarray() as rows, float(seconds)) if rows.dtype == np.int64 and rows.ndim == 2 and rows.shape[1] == 3:
            if len(rows) <= MAX_AHEAD and ((rows >= 0) & (rows < (WAITS, ACTIONS, VELOCITIES))).all():
                return [Event(*row) for row in rows.tolist()], seconds
    raise WireError("its decisions ahead are not events")


class DecidedAhead:
    """What the server has decided and absorbed ahead of its client. Exact: a decision counts only if it was made for the same
    ``DecisionRequest`` and after the same events.
    """

    def __init__(self) -> None:
        self._decisions: dict[int, tuple[DecisionRequest, Event]] = {}  # by the position after which they were made
        self._absorbed: dict[int, Event] = {}  # by position

    def clear(self) -> None:
        self._decisions.clear()
        self._absorbed.clear()

    def fill(self, position: int, request: DecisionRequest, events: Sequence[Event]) -> None:
        """``events`` were decided after ``position``; all but the last are absorbed."""
        self.clear()
        for at, event in enumerate(events, position):
            self._decisions[at] = request, event
            request = request.next(event)
        self._absorbed = dict(enumerate(events[:-1], position + 1))

    def decision(self, position: int, request: DecisionRequest) -> Event | None:
        """The event after ``position``, if it was decided ahead."""
        made = self._decisions.get(position)
        return made[1] if made is not None and made[0] == request else None

    def has_absorbed(self, events: np.ndarray, first: int) -> bool:
        """Whether the server has absorbed these events already. If not, what it has done ahead no longer counts."""
        if len(events) == 1 and self._absorbed.get(first) == tuple(events[0].tolist()):
            return True
        self.clear()
        return False
