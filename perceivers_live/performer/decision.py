"""Decides the machine's next event from the musical situation and the controls."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from engine.ahead import Following
from engine.engine import Engine
from engine.events import MAX_WAIT, PITCHES, REST, SUSTAIN_UP, Event
from engine.sampling import LOOKBACK, Steering, sampling_bias
from perceivers_live.controls.registry import ControlValues
from perceivers_live.performer.pace import density_correction, machine_share

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
    strikes: list[tuple[float, int]]  # the machine's note-ons in this turn: time and pitch
    turn_start: float
    now: float  # time of the newest event
    rate: float | None  # target notes per second; None: no target


def decide(engine: Engine, controls: ControlValues, at: Situation, seed: int) -> Event:
    """The machine's next event, not yet absorbed.

    The model continues the music of both players. While the human plays, an event that belongs to the human (the release of a
    human's key, in a duet also some of the notes) is discarded, and the next decision is for a later time. After ``MAX_ATTEMPTS``
    the machine plays in any case.
    """
    skip_probability = _skip_probability(at) if at.human_active and controls["mode"] == "duet" else 0.0
    noise = np.random.default_rng((seed, engine.position))
    steered, elapsed = _steering_with_pace(steering(controls), float(controls["pace"]), at), at.elapsed
    if (following := _following(steered, at, seed)) is not None:
        return engine.decide_following(following)
    for attempt in range(MAX_ATTEMPTS):
        event = engine.decide(
            sampling_bias(
                engine.sounding,
                steered,
                noise,
                own=at.own,
                own_pedal=at.own_pedal,
                shared=at.human_active and attempt + 1 < MAX_ATTEMPTS,
                strikes=[pitch for _, pitch in at.strikes],
                forbidden=at.forbidden,
                elapsed=elapsed,
                opening=at.opening,
                immediate=at.immediate,
                closing=at.closing,
            )
        )
        by_human = (event.is_note_off and event.pitch not in at.own) or (event.action == SUSTAIN_UP and not at.own_pedal)
        if not by_human and not (event.is_note_on and noise.random() < skip_probability):
            break
        elapsed = event.wait + 2**attempt
        if elapsed > MAX_WAIT:
            return Event(MAX_WAIT, REST)
    return event


def _following(steered: Steering, at: Situation, seed: int) -> Following | None:
    """The decision, if it is one in the middle of the machine's own playing. Where the steering follows a target rate it changes
    with every event.
    """
    if at.elapsed or at.opening or at.closing or at.human_active or at.rate is not None:
        return None
    strikes = tuple(pitch for _, pitch in at.strikes[-LOOKBACK:])
    return Following(seed, steered, at.own, at.own_pedal, at.forbidden - at.own, strikes)


def _skip_probability(at: Situation) -> float:
    """The probability that a note of the model is left to the human: the machine's share of the latest notes.

    Without it, each note would make further notes of the machine more likely.
    """
    return 0.5 if at.rate is None else machine_share([time for time, _ in at.strikes], at.turn_start, at.now, at.rate)


def _steering_with_pace(base: Steering, pace: float, at: Situation) -> Steering:
    """``base`` with its density changed by ``pace`` times the correction towards the target rate."""
    if at.rate is None or not pace:
        return base
    correction = density_correction([time for time, _ in at.strikes], at.turn_start, at.now, at.rate)
    return dataclasses.replace(base, density=base.density + pace * correction)


def steering(controls: ControlValues) -> Steering:
    """The controls that affect sampling."""
    low, high = sorted((int(controls["register_low"]), int(controls["register_high"])))
    shift = int(controls["transpose"])  # pitches that transposition would move out of 0..127 are excluded
    return Steering(
        temperature=float(controls["temperature"]),
        min_p=float(controls["min_p"]),
        variety=float(controls["variety"]),
        density=float(controls["density"]),
        dynamics=float(controls["dynamics"]),
        register_low=max(low, -shift),
        register_high=min(high, PITCHES - 1 - shift),
        max_polyphony=int(controls["max_polyphony"]),
    )
