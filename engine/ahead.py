"""Decisions ahead: several events decided and absorbed in one call, for runtimes where a call takes a network round trip.

The server computes the biases of further decisions from a ``DecisionRequest``, with the same code as the client. The client
uses a decision that was made ahead only if its own request at that position is identical.
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
from engine.sampling import SamplingControls, sampling_bias
from engine.sounding import Sounding

MAX_AHEAD = 8  # events in a call


@dataclasses.dataclass(frozen=True)
class DecisionRequest:
    """A decision in the middle of the machine's turn, with everything that it depends on besides the model's state. Decisions at
    the start and the end of a turn, and those for which time has already passed, are made in ``performer.decision`` alone.

    ``next``: the request after this one, if nothing else happens. ``forbidden``: keys besides ``own``. ``step``: that of the
    newest event. The other fields are described at ``sampling_bias`` and ``Adjustment``.
    """

    seed: int
    sampling: SamplingControls
    own: frozenset[int]
    own_pedal: bool
    forbidden: frozenset[int]
    strikes: tuple[Strike, ...]  # the newest ``KEPT_STRIKES``
    goal: Goal
    step: int

    def decide(self, draw: Callable[[SamplingBias], Event | None], sounding: Sounding, position: int) -> Event | None:
        """The event after ``position``, drawn by ``draw``; None if it returns None."""
        adjustment = adjustment_after(position, self.seed, self.goal, self.strikes, self.step)
        bias = sampling_bias(
            sounding,
            self.sampling,
            np.random.default_rng((self.seed, position)),
            own=self.own,
            own_pedal=self.own_pedal,
            strikes=[one.pitch for one in self.strikes],
            forbidden=self.own | self.forbidden,
            waits=adjustment.waits,
        )
        drawn = draw(bias)
        return None if drawn is None else adjustment.apply(drawn)

    def next(self, event: Event) -> DecisionRequest:
        """The request after the machine has played ``event``."""
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

    def decide_ahead(self, position: int, request: DecisionRequest, sounding: Sounding) -> Event | None:
        """The event of ``request``, None if the model's state is not finite. ``sounding``: the keys and pedal that are down at
        ``position``.
        """


def decided(runtime: Runtime, position: int, bias: SamplingBias) -> Event | None:
    """``Runtime.decide`` as an event: only note-ons have a velocity."""
    drawn = runtime.decide(position, bias)
    if drawn is None:
        return None
    wait, action, velocity = drawn
    return Event(wait, action, velocity if action < NOTE_OFF else NO_VELOCITY)


def decide_ahead(runtime: Runtime, position: int, request: DecisionRequest, sounding: Sounding, seconds: float) -> list[Event]:
    """The event after ``position`` and those after it, until ``seconds`` have passed or there are ``MAX_AHEAD``. All but the last
    are absorbed. Empty if the model's state is not finite; a later one that is not finite ends the list.
    """
    end = time.monotonic() + seconds
    events: list[Event] = []
    sounding = sounding.copy()
    while True:
        event = request.decide(partial(decided, runtime, position), sounding, position)
        if event is None:
            return events
        events.append(event)
        if len(events) >= min(MAX_AHEAD, runtime.config.slack) or time.monotonic() >= end:
            return events
        request, position = request.next(event), position + 1
        sounding.apply(event)
        runtime.step(np.array([event], np.int64), sounding.ages()[None], np.array([sounding.step], np.int64), position)
