"""Analysis of a player's log (see `live_daemon.py`): when events were decided, when they sounded, what was missed."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from engine.events import NOTE_OFF, REST

BEGAN, ENDED, PLANNED, RESTED, SOUNDED, HUMAN = "began", "ended", "planned", "rested", "sounded", "human"
CUT, CANCELLED = "cut", "cancelled"  # for what the human does, at once; by whoever plans, who plans anew
LEVELS = 32  # ticks after which a plan that ignores the human counts as not served
IN_TIME = 0.002  # seconds before its time that an event has to be planned, for the player's thread to be on its own


class Note(NamedTuple):
    """A log entry of the player at time ``when``. ``meant``: the planned time, or the time of the human's action; for a cut plan,
    the time up to which it remains valid.
    """

    what: str
    when: float
    meant: float
    action: int = REST


def read(path: Path) -> list[Note]:
    """The log entries of a file, sorted by time."""
    notes = [Note(*json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(notes, key=lambda note: note.when)


def after(moments: Sequence[float], times: Sequence[float]) -> list[float]:
    """Times from each moment to the first of the (sorted) times after it."""
    firsts = [(moment, bisect_right(times, moment)) for moment in moments]
    return [times[first] - moment for moment, first in firsts if first < len(times)]


def known(notes: Sequence[Note]) -> Iterator[tuple[float, float, int]]:
    """For every action of the human during a turn of the machine: its time, the time at which the first event or rest that took
    it into account was planned, and the action.
    """
    playing = False
    waiting: list[Note] = []  # played, not yet taken into account
    absorbed: list[Note] = []
    for note in notes:
        if note.what in (BEGAN, ENDED):
            playing, waiting, absorbed = note.what == BEGAN, [], []
        elif note.what == HUMAN and playing:
            waiting.append(note)
        elif note.what == CANCELLED:
            absorbed, waiting = absorbed + waiting, []
        elif note.what in (PLANNED, RESTED):
            yield from ((one.meant, note.when, one.action) for one in absorbed)
            absorbed = []


def in_time(notes: Sequence[Note]) -> list[Note]:
    """The events that sounded and were planned at least ``IN_TIME`` before their time."""
    planned = {(one.action, one.meant): one.when for one in notes if one.what == PLANNED}
    found = [(one, planned.get((one.action, one.meant))) for one in notes if one.what == SOUNDED]
    return [one for one, when in found if when is not None and one.meant - when >= IN_TIME]


def heard_late(notes: Sequence[Note], heard: Sequence[tuple[float, int]]) -> list[float]:
    """For each note, the seconds from the planned time to the arrival. ``heard``: times and pitches, in the same order."""
    late, first = [], 0
    for note in (one for one in notes if one.what == SOUNDED and one.action < NOTE_OFF):
        for i in range(first, min(first + 20, len(heard))):
            when, pitch = heard[i]
            if pitch == note.action and abs(when - note.when) < 0.2:
                late.append(when - note.meant)
                first = i + 1
                break
    return late


def ticks(notes: Sequence[Note], tick: float) -> list[float]:
    """For each tick of the machine's turns, how well it was served, 0..1."""
    stale = list(known(notes))
    served: list[float] = []
    for until, turn in turns(notes):
        first = next((note.meant for note in turn if note.what == PLANNED), None)
        if first is None:
            continue
        decided = [(note.when, note.meant) for note in turn if note.what in (PLANNED, RESTED, CUT, CANCELLED)]
        times = [when for when, _ in decided]
        late = {int((note.meant - first) / tick) for note in turn if note.what == SOUNDED and note.when - note.meant > tick}
        last = min(until, max(note.meant for note in turn))
        for number in range(int((last - first) / tick)):
            now = first + number * tick
            at = bisect_right(times, now) - 1
            waiting = [key for key, when, _ in stale if key <= now < when]
            level = min(int((now - min(waiting)) / tick), LEVELS) if waiting else 0
            served.append(float(at >= 0 and decided[at][1] >= now and number not in late) * (1 - level / LEVELS))
    return served


def turns(notes: Sequence[Note]) -> Iterator[tuple[float, list[Note]]]:
    """Each turn of the machine: its end, and the log entries until then."""
    bounds = [i for i, note in enumerate(notes) if note.what in (BEGAN, ENDED)]
    for begin, end in pairwise([*bounds, len(notes)]):
        if notes[begin].what == BEGAN:
            until = notes[end].when if end < len(notes) else notes[-1].when
            yield until, [note for note in notes[begin + 1 : end] if note.what != HUMAN]
