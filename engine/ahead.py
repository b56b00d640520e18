"""Decisions ahead: several events decided and absorbed in one call, where a call takes a network's round trip.

The biases of the following decisions are derived from ``Following`` at the far end, by the code that the near end uses for its
own. The near end still makes every decision; it takes one that was made ahead only if it asks for exactly the same.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np

from engine.adjustment import KEPT_STRIKES, Goal, Strike, adjustment_after
from engine.events import NO_VELOCITY, NOTE_OFF, SUSTAIN_DOWN, SUSTAIN_UP, Event
from engine.runtimes import Runtime, SamplingBias
from engine.sampling import Steering, sampling_bias
from engine.sounding import Sounding

MAX_AHEAD = 8  # events in a call


@dataclasses.dataclass(frozen=True)
class Following:
    """A decision in the middle of the machine's own playing, and what the next ones will be if nothing else happens: the event
    need not be a note-on, no time has passed, the turn does not close. See ``sampling_bias`` and ``Adjustment``; ``forbidden``:
    keys beside ``own``; ``step``: that of the newest event.
    """

    seed: int
    steering: Steering
    own: frozenset[int]
    own_pedal: bool
    forbidden: frozenset[int]
    strikes: tuple[Strike, ...]  # the newest ``KEPT_STRIKES``
    goal: Goal
    step: int

    def event(self, decide: Callable[[SamplingBias], Event | None], sounding: Sounding, position: int) -> Event | None:
        """The event after ``position``, drawn by ``decide``; None if it returns None."""
        adjustment = adjustment_after(position, self.seed, self.goal, self.strikes, self.step)
        bias = sampling_bias(
            sounding,
            self.steering,
            np.random.default_rng((self.seed, position)),
            own=self.own,
            own_pedal=self.own_pedal,
            strikes=[one.pitch for one in self.strikes],
            forbidden=self.own | self.forbidden,
            waits=adjustment.waits,
        )
        drawn = decide(bias)
        return None if drawn is None else adjustment.apply(drawn)

    def after(self, event: Event) -> Following:
        """The decision after the machine has played ``event``."""
        step = self.step + event.wait
        if event.is_note_on:
            strikes = (*self.strikes, Strike(step, event.pitch, event.velocity))[-KEPT_STRIKES:]
            return dataclasses.replace(self, step=step, own=self.own | {event.pitch}, strikes=strikes)
        if event.is_note_off:
            return dataclasses.replace(self, step=step, own=self.own - {event.pitch})
        if event.action in (SUSTAIN_DOWN, SUSTAIN_UP):
            return dataclasses.replace(self, step=step, own_pedal=event.action == SUSTAIN_DOWN)
        return dataclasses.replace(self, step=step)


@runtime_checkable
class AheadRuntime(Protocol):
    """A ``Runtime`` that can decide ahead. ``ahead``: how many events after the newest one it may have absorbed."""

    ahead: int

    def decide_ahead(self, position: int, following: Following, sounding: Sounding) -> Event | None:
        """The event of ``following``, None if the model's state is not finite. ``sounding``: the keys and pedal that are down at
        ``position``.
        """


def decided(runtime: Runtime, position: int, bias: SamplingBias) -> Event | None:
    """``Runtime.decide`` as an event: only note-ons have a velocity."""
    drawn = runtime.decide(position, bias)
    if drawn is None:
        return None
    wait, action, velocity = drawn
    return Event(wait, action, velocity if action < NOTE_OFF else NO_VELOCITY)


def decide_ahead(runtime: Runtime, position: int, following: Following, sounding: Sounding, seconds: float) -> list[Event]:
    """The event after ``position`` and those after it, until ``seconds`` have passed or there are ``MAX_AHEAD``. All but the last
    are absorbed. Empty if the model's state is not finite; a later one that is not finite ends the list.
    """
    end = time.monotonic() + seconds
    events: list[Event] = []
    sounding = sounding.copy()
    while True:
        event = following.event(partial(decided, runtime, position), sounding, position)
        if event is None:
            return events
        events.append(event)
        if len(events) >= min(MAX_AHEAD, runtime.config.slack) or time.monotonic() >= end:
            return events
        following, position = following.after(event), position + 1
        sounding.apply(event)
        runtime.step(np.array([event], np.int64), sounding.ages()[None], np.array([sounding.step], np.int64), position)
