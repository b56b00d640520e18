"""One decision: what the machine does next, the situation and the musician's wishes being what they are."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from engine.engine import Engine
from engine.events import MAX_WAIT, PITCHES, REST, SUSTAIN_UP, Event
from engine.sampling import Steering, sampling_bias
from perceivers_live.controls.registry import ControlValues
from perceivers_live.performer.pace import correction, share

MAX_SKIPS = 6  # decisions in a row, of which all but the last may be left to the human


class Situation(NamedTuple):
    """Of the machine, after the engine's newest event. Times in seconds."""

    own: frozenset[int]  # keys that it will have to release
    own_pedal: bool
    barred: frozenset[int]  # keys that it must not strike
    elapsed: int  # steps that have passed already
    opening: bool  # it owes a note
    at_once: bool  # now
    closing: bool  # no more notes: it comes to an end
    together: bool  # the human may be playing on
    strikes: list[tuple[float, int]]  # its own, in this turn: time and pitch
    begun: float  # its turn
    now: float
    rate: float | None  # notes a second to keep to


def decide(engine: Engine, controls: ControlValues, at: Situation, seed: int) -> Event:
    """The machine's next event. The model goes on with the music as a whole: what in it is the human's to do, as long as the
    human plays, is left to the human, and the moment passes; after some such moments the machine goes on all the same.
    """
    human = _humans_share(at) if at.together and controls["mode"] == "duet" else 0.0
    noise = np.random.default_rng((seed, engine.position))
    wishes, elapsed = _with_pace(steering(controls), float(controls["pace"]), at), at.elapsed
    for attempt in range(MAX_SKIPS):
        event = engine.decide(
            sampling_bias(
                engine.sounding,
                wishes,
                noise,
                own=at.own,
                own_pedal=at.own_pedal,
                shared=at.together and attempt + 1 < MAX_SKIPS,
                strikes=[pitch for _, pitch in at.strikes],
                barred=at.barred,
                elapsed=elapsed,
                opening=at.opening,
                at_once=at.at_once,
                closing=at.closing,
            )
        )
        theirs = (event.is_note_off and event.pitch not in at.own) or (event.action == SUSTAIN_UP and not at.own_pedal)
        if not theirs and not (event.is_note_on and noise.random() < human):
            break
        elapsed = event.wait + 2**attempt
        if elapsed > MAX_WAIT:
            return Event(MAX_WAIT, REST)
    return event


def _humans_share(at: Situation) -> float:
    """How many of the notes that the model expects are the human's to play: the more, the more of the last ones were the
    machine's. Left alone the two would drive each other on, each note making more notes likely.
    """
    return 0.5 if at.rate is None else share([time for time, _ in at.strikes], at.begun, at.now, at.rate)


def _with_pace(asked: Steering, pace: float, at: Situation) -> Steering:
    """``asked``, leaning towards the rate to keep to by ``pace`` of what that takes."""
    if at.rate is None or not pace:
        return asked
    lean = correction([time for time, _ in at.strikes], at.begun, at.now, at.rate)
    return dataclasses.replace(asked, density=asked.density + pace * lean)


def steering(controls: ControlValues) -> Steering:
    """The controls that shape a decision."""
    low, high = sorted((int(controls["register_low"]), int(controls["register_high"])))
    shift = int(controls["transpose"])  # what would leave the range of MIDI is not played
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
