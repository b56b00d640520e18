"""Analyses the log of a player (see `live_daemon.py`): when events were decided, when they sounded, which ticks were missed."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from engine.events import NOTE_OFF, REST

BEGAN, ENDED, PLANNED, RESTED, SOUNDED, HUMAN = "began", "ended", "planned", "rested", "sounded", "human"
# CUT: the human's input shortened the plan. CANCELLED: the performer dropped it and decides again.
CUT, CANCELLED = "cut", "cancelled"
MAX_STALE_TICKS = 32  # a plan that has ignored the human's input for this many ticks counts as not served
IN_TIME = 0.002  # seconds; an event is in time if it was planned at least this long before its time


class LogEntry(NamedTuple):
    """A log entry. ``what``: one of the constants above. ``when``: the time at which it was written. ``meant``: the planned time
    of an event, or the time of the human's action; for ``CUT`` and ``CANCELLED``, the time up to which the plan remains valid;
    for ``RESTED``, the time up to which silence is decided. Times are monotonic, in seconds.
    """

    what: str
    when: float
    meant: float
    action: int = REST


def read(path: Path) -> list[LogEntry]:
    """The log entries of a file, sorted by ``when``."""
    entries = [LogEntry(*json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(entries, key=lambda entry: entry.when)


def delays(starts: Sequence[float], times: Sequence[float]) -> list[float]:
    """Seconds from each start to the first of the sorted ``times`` after it. Starts with none after them are left out."""
    firsts = [(start, bisect_right(times, start)) for start in starts]
    return [times[first] - start for start, first in firsts if first < len(times)]


def responses(entries: Sequence[LogEntry]) -> Iterator[tuple[float, float, int]]:
    """For each action of the human during a turn of the machine: its time; the time at which the first event or rest was planned
    that takes it into account; and the action.
    """
    playing = False
    waiting: list[LogEntry] = []  # the performer has not absorbed them
    absorbed: list[LogEntry] = []  # absorbed, but nothing has been planned since
    for entry in entries:
        if entry.what in (BEGAN, ENDED):
            playing, waiting, absorbed = entry.what == BEGAN, [], []
        elif entry.what == HUMAN and playing:
            waiting.append(entry)
        elif entry.what == CANCELLED:
            absorbed, waiting = absorbed + waiting, []
        elif entry.what in (PLANNED, RESTED):
            yield from ((action.meant, entry.when, action.action) for action in absorbed)
            absorbed = []


def in_time(entries: Sequence[LogEntry]) -> list[LogEntry]:
    """The events that sounded and were planned at least ``IN_TIME`` before their time."""
    planned = {(entry.action, entry.meant): entry.when for entry in entries if entry.what == PLANNED}
    sounded = [(entry, planned.get((entry.action, entry.meant))) for entry in entries if entry.what == SOUNDED]
    return [entry for entry, when in sounded if when is not None and entry.meant - when >= IN_TIME]


def heard_late(entries: Sequence[LogEntry], heard: Sequence[tuple[float, int]]) -> list[float]:
    """Seconds from the planned time of each note to its arrival. ``heard``: times and pitches of the note-ons that arrived, in
    order. Notes that did not arrive are left out.
    """
    late, first = [], 0
    for note in (entry for entry in entries if entry.what == SOUNDED and entry.action < NOTE_OFF):
        for i in range(first, min(first + 20, len(heard))):
            when, pitch = heard[i]
            if pitch == note.action and abs(when - note.when) < 0.2:
                late.append(when - note.meant)
                first = i + 1
                break
    return late


def ticks(entries: Sequence[LogEntry], tick: float) -> list[float]:
    """How well each tick of the machine's turns was served, 0..1. ``tick``: its length in seconds. `live.py` defines it."""
    ignored = list(responses(entries))  # (from, until, action): the plan did not take the action into account
    served: list[float] = []
    for until, turn in turns(entries):
        first = next((entry.meant for entry in turn if entry.what == PLANNED), None)
        if first is None:
            continue
        decided = [(entry.when, entry.meant) for entry in turn if entry.what in (PLANNED, RESTED, CUT, CANCELLED)]
        times = [when for when, _ in decided]
        late = {int((entry.meant - first) / tick) for entry in turn if entry.what == SOUNDED and entry.when - entry.meant > tick}
        last = min(until, max(entry.meant for entry in turn))
        for number in range(int((last - first) / tick)):
            now = first + number * tick
            at = bisect_right(times, now) - 1
            waiting = [pressed for pressed, planned, _ in ignored if pressed <= now < planned]
            stale_ticks = min(int((now - min(waiting)) / tick), MAX_STALE_TICKS) if waiting else 0
            served.append(float(at >= 0 and decided[at][1] >= now and number not in late) * (1 - stale_ticks / MAX_STALE_TICKS))
    return served


def turns(entries: Sequence[LogEntry]) -> Iterator[tuple[float, list[LogEntry]]]:
    """For each turn of the machine: its end in seconds, and its log entries without the human's."""
    bounds = [i for i, entry in enumerate(entries) if entry.what in (BEGAN, ENDED)]
    for begin, end in pairwise([*bounds, len(entries)]):
        if entries[begin].what == BEGAN:
            until = entries[end].when if end < len(entries) else entries[-1].when
            yield until, [entry for entry in entries[begin + 1 : end] if entry.what != HUMAN]
