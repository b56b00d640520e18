"""Random music for the tests: legal event streams and timed actions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.codec import encode
from engine.events import NOTE_OFF, NOTE_ON, START_EVENT, SUSTAIN_DOWN, SUSTAIN_UP, Event, Timed


def improvise(count: int, *, seed: int) -> list[Event]:
    """``count`` legal events, start included: random notes, chords, pedal and rests."""
    events = encode(improvise_timed(count, seed=seed))
    return events[:count] if len(events) >= count else [START_EVENT] * count


def improvise_timed(count: int, *, seed: int) -> list[Timed]:
    """``count`` legal timed actions."""
    rng = np.random.default_rng(seed)
    now, pedal = 0.5, False
    held: list[int] = []
    timed: list[Timed] = []
    for _ in range(count):
        now += float(rng.choice([0.0, 0.004, 0.03, 0.2, 1.7], p=[0.2, 0.2, 0.3, 0.27, 0.03]))
        draw = rng.random()
        if draw < 0.08:
            pedal = not pedal
            timed.append(Timed(now, SUSTAIN_DOWN if pedal else SUSTAIN_UP))
        elif held and (draw < 0.5 or len(held) > 8):
            timed.append(Timed(now, NOTE_OFF + held.pop(int(rng.integers(len(held))))))
        else:
            pitch = int(rng.choice([p for p in range(30, 100) if p not in held]))
            held.append(pitch)
            timed.append(Timed(now, NOTE_ON + pitch, int(rng.integers(1, 128))))
    return timed


class Piano:
    """Plays timed actions. Fails as soon as an action is impossible on a piano."""

    def __init__(self) -> None:
        self.down: set[int] = set()
        self.pedal = False

    def play(self, timed: Iterable[Timed]) -> None:
        for one in timed:
            if one.action < NOTE_OFF:
                assert one.action not in self.down
                assert 1 <= one.velocity <= 127
                self.down.add(one.action)
            elif one.action < SUSTAIN_DOWN:
                self.down.remove(one.action - NOTE_OFF)
            else:
                assert one.action in (SUSTAIN_DOWN, SUSTAIN_UP)
                assert self.pedal != (one.action == SUSTAIN_DOWN)
                self.pedal = one.action == SUSTAIN_DOWN
