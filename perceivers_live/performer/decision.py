"""Decides the machine's next event from the musical situation and the controls."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from engine.ahead import Following
from engine.engine import Engine
from engine.events import MAX_WAIT, PITCHES, REST, SUSTAIN_UP, VELOCITY_BINS, Event
from engine.sampling import LOOKBACK, Steering, sampling_bias
from perceivers_live.clock.midi_clock import Beats
from perceivers_live.controls.registry import ControlValues
from perceivers_live.performer.pulse import attraction
from perceivers_live.performer.steering import (
    Call,
    Strike,
    Target,
    chord_steps_left,
    machine_share,
    scaled_waits,
    velocity_shift,
    wait_scale,
)

PACE_GAIN = 4.0  # of the rate's correction, for each unit of ``pace``
MAX_ATTEMPTS = 6  # decisions for one event; the last is accepted even if it is an event of the human


class Situation(NamedTuple):
    """The machine's situation after the engine's newest event. Times are monotonic seconds."""

    own: frozenset[int]  # pitches that the machine holds
    own_pedal: bool  # whether the machine may lift the pedal
    forbidden: frozenset[int]  # pitches that must not be struck
    elapsed: int  # steps since the newest event that have already passed
    opening: bool  # the event must be a note-on
    immediate: bool  # the opening note comes right at ``elapsed``
    closing: bool  # the turn is ending: no more notes
    human_active: bool  # the human's phrase is not over
    strikes: list[Strike]  # the machine's note-ons in this turn
    turn_start: float
    now: float  # time of the newest event
    call: Call  # what the human played
    beats: Beats | None  # the clock
    subdivision: int  # parts of a beat that the human plays on


def decide(engine: Engine, controls: ControlValues, at: Situation, seed: int) -> Event:
    """The machine's next event, not yet absorbed.

    The model continues the music of both players. While the human plays, an event that belongs to the human (the release of a
    human's key, in a duet also some of the notes) is discarded, and the next decision is for a later time. After ``MAX_ATTEMPTS``
    the machine plays in any case.
    """
    skip_probability = _skip_probability(at) if at.human_active and controls["mode"] == "duet" else 0.0
    noise = np.random.default_rng((seed, engine.position))
    adjustment = Adjustment(controls, at, np.random.default_rng((seed, engine.position, 1)))
    steered, elapsed = steering(controls), at.elapsed
    if adjustment.is_neutral and (following := _following(steered, at, seed)) is not None:
        return engine.decide_following(following)
    for attempt in range(MAX_ATTEMPTS):
        bias = sampling_bias(
            engine.sounding,
            steered,
            noise,
            own=at.own,
            own_pedal=at.own_pedal,
            shared=at.human_active and attempt + 1 < MAX_ATTEMPTS,
            strikes=[one.pitch for one in at.strikes],
            forbidden=at.forbidden,
            elapsed=adjustment.model_wait(elapsed),
            opening=at.opening,
            immediate=at.immediate,
            closing=at.closing,
            waits=adjustment.waits,
        )
        event = adjustment.apply(engine.decide(bias), elapsed)
        by_human = (event.is_note_off and event.pitch not in at.own) or (event.action == SUSTAIN_UP and not at.own_pedal)
        if not by_human and not (event.is_note_on and noise.random() < skip_probability):
            break
        elapsed = event.wait + 2**attempt
        if elapsed > MAX_WAIT:
            return Event(MAX_WAIT, REST)
    return event


class Adjustment:
    """How the next event is moved towards what the controls ask for: its wait is scaled, its velocity shifted, and waits that
    end on the clock's subdivisions are made likelier (``waits``, None: no clock).
    """

    def __init__(self, controls: ControlValues, at: Situation, noise: np.random.Generator) -> None:
        density = float(controls["density"])
        target = Target.of(at.call, density, float(controls["dynamics"]))
        gain = PACE_GAIN * float(controls["pace"]) + abs(density)
        scale = 1.0 if at.opening else wait_scale(at.strikes, at.turn_start, at.now, target, gain)
        kept = chord_steps_left(at.strikes, at.now)
        self._scale, self._steps = scale, scaled_waits(scale, noise.random(), kept)
        self._shift = math.floor(velocity_shift(at.strikes, at.turn_start, at.now, target) / 4 + noise.random())  # bins
        pulse = 0.0 if at.immediate else float(controls["pulse"])
        self.waits = attraction(self._steps, at.beats, at.now, pulse, at.subdivision, kept)

    @property
    def is_neutral(self) -> bool:
        """Whether every event of the model is played as it was drawn."""
        return self._scale == 1 and self._shift == 0 and self.waits is None

    def model_wait(self, steps: int) -> int:
        """The shortest wait of the model that takes at least ``steps`` when scaled."""
        return min(int(np.searchsorted(self._steps, steps)), MAX_WAIT)

    def apply(self, drawn: Event, elapsed: int) -> Event:
        """The event to play for the one that the model drew: a rest if its scaled wait is longer than one event can wait."""
        wait = max(int(self._steps[drawn.wait]), elapsed)
        if drawn.action == REST or wait > MAX_WAIT:
            return Event(MAX_WAIT, REST)
        if not drawn.is_note_on:
            return drawn._replace(wait=wait)
        return drawn._replace(wait=wait, velocity=min(max(drawn.velocity + self._shift, 0), VELOCITY_BINS - 1))


def _following(steered: Steering, at: Situation, seed: int) -> Following | None:
    """The decision, if it is one in the middle of the machine's own playing."""
    if at.elapsed or at.opening or at.closing or at.human_active:
        return None
    strikes = tuple(one.pitch for one in at.strikes[-LOOKBACK:])
    return Following(seed, steered, at.own, at.own_pedal, at.forbidden - at.own, strikes)


def _skip_probability(at: Situation) -> float:
    """The probability that a note of the model is left to the human: the machine's share of the latest notes.

    Without it, each note would make further notes of the machine more likely.
    """
    return 0.5 if at.call.rate is None else machine_share(at.strikes, at.turn_start, at.now, at.call.rate)


def steering(controls: ControlValues) -> Steering:
    """The controls that affect sampling."""
    low, high = sorted((int(controls["register_low"]), int(controls["register_high"])))
    shift = int(controls["transpose"])  # pitches that transposition would move out of 0..127 are excluded
    return Steering(
        temperature=float(controls["temperature"]),
        min_p=float(controls["min_p"]),
        variety=float(controls["variety"]),
        register_low=max(low, -shift),
        register_high=min(high, PITCHES - 1 - shift),
        max_polyphony=int(controls["max_polyphony"]),
    )
