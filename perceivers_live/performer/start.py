"""The exact time of a turn's first note, where there is one."""

from __future__ import annotations

from perceivers_live.clock.midi_clock import Beats
from perceivers_live.clock.ticks import PPQ
from perceivers_live.controls.registry import ControlValues

BEAT_WAIT = 0.01  # seconds after which a beat that was not known may be known
SEEDED_DELAY = 0.1  # seconds from a phrase's end to the reply if a seed is set: longer than decisions take


def awaits_beat(controls: ControlValues, beats: Beats | None, now: float) -> bool:
    """Whether ``start_on`` asks for a beat of a running clock that is not known yet: after a continue, or before the tempo is
    known. Right on the beat, as after a start, the machine can begin.
    """
    if beats is None or controls["start_on"] == "now" or not beats.running or beats.next_beat(now) is not None:
        return False
    unit = 1 if controls["start_on"] == "beat" else int(controls["beats_per_bar"])
    return beats.position(now) % unit >= 1 / PPQ


def start_time(
    controls: ControlValues, beats: Beats | None, phrase_end: float | None, now: float, ready: float, lead: float = 0.0
) -> float | None:
    """The next beat or bar after ``ready``, if ``start_on`` asks for one. Otherwise, if a seed is set, a time that depends on the
    phrase alone, so that the reply does not depend on how fast the machine was. None: as soon as possible. ``lead``: seconds by
    which events are sent before their time.
    """
    if beats is not None and controls["start_on"] == "beat":
        return beats.next_beat(ready)
    if beats is not None and controls["start_on"] == "bar":
        return beats.next_bar(ready, int(controls["beats_per_bar"]))
    if controls["mode"] == "respond" and int(controls["seed"]) >= 0 and phrase_end is not None and phrase_end <= now:
        return phrase_end + SEEDED_DELAY + lead
    return None
