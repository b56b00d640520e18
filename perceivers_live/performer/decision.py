"""Decides the machine's next event from the musical situation and the controls."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.adjustment import KEPT_STRIKES, CallStatistics, Goal, Strike, Target, adjustment_after, machine_share
from engine.ahead import DecisionRequest
from engine.engine import Engine
from engine.events import MAX_WAIT, PITCHES, REST, STEPS_PER_SECOND, SUSTAIN_UP, Event
from engine.grid import PulseGrid
from engine.sampling import SamplingControls, sampling_bias
from perceivers_live.controls.registry import ControlValues

PACE_GAIN = 4.0  # of the rate's correction, for each unit of ``pace``
MAX_ATTEMPTS = 6  # decisions for one event; the last is accepted even if it is an event of the human


class Situation(NamedTuple):
    """The machine's situation after the engine's newest event."""

    own: frozenset[int]  # pitches that the machine holds
    own_pedal: bool  # whether the machine may lift the pedal
    forbidden: frozenset[int]  # pitches that must not be struck
    elapsed: int  # steps since the newest event that have already passed
    opening: bool  # the event must be a note-on
    immediate: bool  # the opening note comes right at ``elapsed``
    closing: bool  # the turn is ending: no more notes
    human_active: bool  # the human's phrase is not over
    strikes: list[Strike]  # the machine's note-ons in this turn
    turn_start: float  # seconds on the engine's time axis
    call: CallStatistics  # what the human played
    grid: PulseGrid | None  # the subdivisions of the clock's beat that the machine should play on


def decide(engine: Engine, controls: ControlValues, at: Situation, seed: int) -> Event:
    """The machine's next event, not yet absorbed.

    The model continues the music of both players. While the human plays, an event that belongs to the human (the release of a
    human's key, in a duet also some of the notes) is discarded, and the next decision is for a later time. After ``MAX_ATTEMPTS``
    the machine plays in any case.
    """
    if (request := _request(controls, at, seed, engine.step)) is not None:
        return engine.decide_request(request)
    skip_probability = _skip_probability(at, engine.step) if at.human_active and controls["mode"] == "duet" else 0.0
    noise = np.random.default_rng((seed, engine.position))
    adjustment = adjustment_after(engine.position, seed, goal(controls, at), at.strikes, engine.step, opening=at.opening)
    sampling, elapsed = sampling_controls(controls), at.elapsed
    for attempt in range(MAX_ATTEMPTS):
        bias = sampling_bias(
            engine.sounding,
            sampling,
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


def _request(controls: ControlValues, at: Situation, seed: int, step: int) -> DecisionRequest | None:
    """The decision, if it is one in the middle of the machine's own playing."""
    if at.elapsed or at.opening or at.closing or at.human_active:
        return None
    strikes = tuple(at.strikes[-KEPT_STRIKES:])
    return DecisionRequest(
        seed, sampling_controls(controls), at.own, at.own_pedal, at.forbidden - at.own, strikes, goal(controls, at), step
    )


def goal(controls: ControlValues, at: Situation) -> Goal:
    """What the controls ask for in this situation."""
    density, sampling = float(controls["density"]), sampling_controls(controls)
    keys = max(sampling.register_high - sampling.register_low + 1, 1)
    target = Target.of(at.call, density, float(controls["dynamics"]), sampling.max_polyphony, keys)
    return Goal(at.turn_start, target, PACE_GAIN * float(controls["pace"]) + abs(density), at.grid)


def _skip_probability(at: Situation, step: int) -> float:
    """The probability that a note of the model is left to the human: the machine's share of the latest notes.

    Without it, each note would make further notes of the machine more likely.
    """
    if at.call.rate is None:
        return 0.5
    return machine_share(at.strikes, at.turn_start, step / STEPS_PER_SECOND, at.call.rate)


def sampling_controls(controls: ControlValues) -> SamplingControls:
    """The controls that affect sampling."""
    low, high = sorted((int(controls["register_low"]), int(controls["register_high"])))
    shift = int(controls["transpose"])  # pitches that transposition would move out of 0..127 are excluded
    return SamplingControls(
        temperature=float(controls["temperature"]),
        min_p=float(controls["min_p"]),
        variety=float(controls["variety"]),
        register_low=max(low, -shift),
        register_high=min(high, PITCHES - 1 - shift),
        max_polyphony=int(controls["max_polyphony"]),
    )
