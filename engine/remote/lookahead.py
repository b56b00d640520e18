"""Decisions ahead over the protocol: the values of DECIDE_AHEAD and of its answer, and the client's record of what the server has
done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from engine.ahead import MAX_AHEAD, Following
from engine.events import ACTIONS, VELOCITIES, WAITS, Event
from engine.remote.wire import Value, WireError
from engine.sampling import LOOKBACK, Steering
from engine.sounding import AGES, Sounding

WORTH = 0.004  # seconds of delay from which on several decisions a round trip are worth the surplus
MAX_SECONDS = 0.05  # that the server goes on deciding


def call_values(following: Following, sounding: Sounding, seconds: float) -> tuple[Value, ...]:
    """The values of the call, after the position: ``engine.ahead.decide_ahead``."""
    numbers = [float(value) for value in dataclasses.astuple(following.steering)]
    sets = (np.array(sorted(one), np.int64) for one in (following.own, following.forbidden))
    strikes = np.array(following.strikes, np.int64)
    return following.seed, int(following.own_pedal), *sets, strikes, sounding.ages(), sounding.step, seconds, *numbers


def parse_call(values: Sequence[Value]) -> tuple[Following, Sounding, float]:
    """Reads ``call_values``. Raises ``ValueError`` for values that are not those of a call."""
    match values:
        case (int(seed), int(own_pedal), np.ndarray() as own, np.ndarray() as forbidden, np.ndarray() as strikes, *rest):
            match rest:
                case (np.ndarray() as ages, int(step), float(seconds), *numbers) if ages.shape == (AGES,):
                    keys, others, pitches = (_pitches(one) for one in (own, forbidden, strikes))
                    following = Following(
                        seed, _steering(numbers), frozenset(keys), bool(own_pedal), frozenset(others), tuple(pitches[-LOOKBACK:])
                    )
                    return following, Sounding.of(step, ages), min(seconds, MAX_SECONDS)
    raise ValueError("wrong arguments for decisions ahead")


def _pitches(array: np.ndarray) -> list[int]:
    if array.dtype != np.int64 or array.ndim != 1 or not ((array >= 0) & (array < AGES - 1)).all():
        raise ValueError("wrong pitches for decisions ahead")
    pitches: list[int] = array.tolist()
    return pitches


def _steering(numbers: Sequence[Value]) -> Steering:
    fields = dataclasses.fields(Steering)
    floats = [one for one in numbers if isinstance(one, float)]
    if len(floats) != len(numbers) or len(floats) != len(fields):
        raise ValueError("wrong steering for decisions ahead")
    whole = (isinstance(field.default, int) for field in fields)
    return Steering(*(int(one) if is_int else one for one, is_int in zip(floats, whole, strict=True)))  # type: ignore[arg-type]


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


class Lookahead:
    """What the server has decided and absorbed ahead of its client. Exact: a decision counts only if it was made for the same
    ``Following`` and after the same events.
    """

    def __init__(self) -> None:
        self._decisions: dict[int, tuple[Following, Event]] = {}  # by the position after which they were made
        self._absorbed: dict[int, Event] = {}  # by position

    def clear(self) -> None:
        self._decisions.clear()
        self._absorbed.clear()

    def fill(self, position: int, following: Following, events: Sequence[Event]) -> None:
        """``events`` were decided after ``position``; all but the last are absorbed."""
        self.clear()
        for at, event in enumerate(events, position):
            self._decisions[at] = following, event
            following = following.after(event)
        self._absorbed = dict(enumerate(events[:-1], position + 1))

    def decision(self, position: int, following: Following) -> Event | None:
        """The event after ``position``, if it was decided ahead."""
        made = self._decisions.get(position)
        return made[1] if made is not None and made[0] == following else None

    def has_absorbed(self, events: np.ndarray, first: int) -> bool:
        """Whether the server has absorbed these events already. If not, what it has done ahead no longer counts."""
        if len(events) == 1 and self._absorbed.get(first) == tuple(events[0].tolist()):
            return True
        self.clear()
        return False
