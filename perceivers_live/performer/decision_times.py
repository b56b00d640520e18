"""How long decisions take, so that the next ones are made early enough."""

from __future__ import annotations

from collections import deque

from perceivers_live.controls.registry import ControlValues

DEFAULT = 0.01  # seconds; assumed before the first measurement
SHORTEST, LONGEST = 0.005, 0.04  # seconds; measurements are clamped to this
SAMPLES = 32  # number of measurements; the slowest of them counts
KEPT_DECISIONS = 3.0  # decision times of the plan that stay when it is decided again


def output_offset(controls: ControlValues) -> float:
    """Seconds by which events are sent after their time, or before it if negative."""
    return float(controls["output_offset_ms"]) / 1000


def lead(controls: ControlValues) -> float:
    """How much earlier than its time an event is sent, in seconds."""
    return max(0.0, -output_offset(controls))


class DecisionTimes:
    """The latest measurements, in seconds."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=SAMPLES)

    def add(self, seconds: float) -> None:
        self._latest.append(seconds)

    def latest(self) -> list[float]:
        return list(self._latest)

    @property
    def expected(self) -> float:
        """Seconds from the start of a decision until its event can sound."""
        return min(max(max(self._latest, default=DEFAULT), SHORTEST), LONGEST)

    def earliest(self, now: float, controls: ControlValues) -> float:
        """The time for which an event can be decided from ``now`` on."""
        return now + self.expected + lead(controls)

    def kept(self, controls: ControlValues) -> float:
        """Seconds of the plan that stay: by then new decisions can be sent. A positive output offset delays these too."""
        return KEPT_DECISIONS * self.expected + max(0.0, output_offset(controls))
