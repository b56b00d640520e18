"""Toy musicians, and a runtime that runs them in place of the network. Engine and performer are the real ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from engine.config import ModelConfig
from engine.events import (
    ACTIONS,
    END,
    MAX_WAIT,
    NOTE_OFF,
    NOTE_ON,
    PITCHES,
    REST,
    START,
    SUSTAIN_DOWN,
    SUSTAIN_UP,
    VELOCITY_BINS,
    WAITS,
)
from engine.rings import MASKED
from engine.runtimes import SamplingBias
from engine.sounding import AGES, PEDAL

SMALL = ModelConfig(width=8, heads=1, kv_heads=1, layers=1, scales=(64, 1024), window=64, slack=256)


class Hidden(NamedTuple):
    """What a toy musician knows of the music so far."""

    digest: int  # of every event up to here
    position: int
    ages: np.ndarray  # [AGES]


Musician = Callable[[Hidden, SamplingBias], tuple[int, int, int]]


def possible(bias: np.ndarray) -> np.ndarray:
    """The choices that are not masked, in order."""
    return np.flatnonzero(bias > MASKED / 2)


def improviser(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
    """Random choices with a pianist's habits: short waits, white keys, notes of about a third of a second, a little pedal."""
    for_wait, for_action, for_velocity = np.split(bias.noise, (WAITS, WAITS + ACTIONS))
    logits = -np.arange(WAITS) / 12
    logits[MAX_WAIT] = -6
    wait = int(np.argmax(logits / bias.temperature + bias.wait + for_wait))
    logits = np.full(ACTIONS, -14.0)
    logits[48:84] = [-3.0 if pitch % 12 in (0, 2, 4, 5, 7, 9, 11) else -6.0 for pitch in range(48, 84)]
    logits[NOTE_OFF:SUSTAIN_DOWN] = (hidden.ages[:PITCHES] - 30) / 8
    logits[[SUSTAIN_DOWN, SUSTAIN_UP]] = -4, (int(hidden.ages[PEDAL]) - 80) / 20
    logits[REST] = 2.0
    logits[[START, END]] = MASKED
    if wait < MAX_WAIT:
        logits[REST] = MASKED
    action = int(np.argmax(logits / bias.temperature + bias.action + for_action))
    return wait, action, int(np.argmax(bias.velocity + for_velocity))


def steady(wait: int = 12, pitches: Sequence[int] = (72, 74, 76), *, pedal: bool = False, chord: int = 1) -> Musician:
    """Plays chords of ``chord`` of its pitches and releases them in turn, for ever; each event ``wait`` steps after the last."""

    def play(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
        waits, actions = possible(bias.wait), possible(bias.action)
        when = int(waits[np.searchsorted(waits, min(wait, waits[-1]))])
        held = [int(action) for action in actions if NOTE_OFF <= action < SUSTAIN_DOWN]
        # The choice depends only on what sounds and was played; so it stays the same when it is cancelled and made again.
        free = [pitch for pitch in pitches if NOTE_ON + pitch in actions]
        if pedal and SUSTAIN_DOWN in actions and free:
            choice = SUSTAIN_DOWN
        elif held and (len(held) >= chord or not free):
            choice = max(held, key=lambda action: int(hidden.ages[action - NOTE_OFF]))
        elif free:
            choice = NOTE_ON + free[hidden.position % len(free)]
        elif SUSTAIN_UP in actions:
            choice = SUSTAIN_UP
        elif REST in actions:
            return MAX_WAIT, REST, 7
        else:
            choice = int(actions[0])  # it must play a note, but none of its pitches is available
        return when, choice, 20  # like the real model, a velocity for any action

    return play


def restless(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
    """Presses and releases any possible key, whoever holds it, shortly after the last event."""
    _, for_action, for_velocity = np.split(bias.noise, (WAITS, WAITS + ACTIONS))
    waits, logits = possible(bias.wait), bias.action + for_action
    logits[NOTE_OFF:SUSTAIN_DOWN] += 2
    if len(possible(bias.action)) > 1:
        logits[REST] = MASKED
    action = int(np.argmax(logits))
    wait = MAX_WAIT if action == REST else int(waits[min(4, len(waits) - 1)])
    return wait, action, int(np.argmax(bias.velocity + for_velocity))


def silent(_: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
    """Plays as little as possible."""
    if bias.action[REST] > MASKED / 2:
        return MAX_WAIT, REST, 0
    return int(possible(bias.wait)[-1]), int(possible(bias.action)[0]), 0


class ToyRuntime:
    """A runtime whose network is a function. Its rings hold the hidden state of each position, so a wrong index is detected.

    ``failures``: how many of the next steps and decisions raise. ``broken``: hidden states are not finite.
    """

    name = "toy"
    step_bytes = 0
    warm_for: float | None = None

    def __init__(self, musician: Musician = improviser, config: ModelConfig = SMALL) -> None:
        self.musician = musician
        self.config = config
        self.failures = 0
        self.broken = False
        self.steps = self.decisions = 0
        self._hidden: dict[int, Hidden] = {}

    def reset(self, first: int = 0) -> None:
        self._hidden.clear()

    def step(self, events: np.ndarray, ages: np.ndarray, times: np.ndarray, first: int) -> None:
        self._may_fail()
        self.steps += len(events)
        for position, (event, age) in enumerate(zip(events, ages, strict=True), first):
            before = self._hidden[position - 1].digest if position - 1 in self._hidden else 0
            self._hidden[position] = Hidden(zlib.crc32(event.tobytes() + age.tobytes(), before), position, age)

    prefill_cross = step

    def decide(self, position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        self._may_fail()
        self.decisions += 1
        if self.broken:
            return None
        wait, action, velocity = self.musician(self._hidden[position], bias)
        assert bias.wait[wait] > MASKED / 2, f"wait {wait} is masked"
        assert bias.action[action] > MASKED / 2, f"action {action} is masked"
        assert 0 <= velocity < VELOCITY_BINS
        return wait, action, velocity

    def hidden(self, position: int) -> np.ndarray:
        hidden = self._hidden[position]
        parts = (hidden.digest & 0xFFFF, hidden.digest >> 16, position)  # 16 bits at a time: exact in float32
        return np.array([*parts, *hidden.ages], np.float32)

    def rings(self) -> list[np.ndarray]:
        rows = [(one.digest, one.position, *one.ages.tolist()) for one in self._hidden.values()]
        return [np.array(rows, np.int64).reshape(-1, 2 + AGES)]

    def restore(self, rings: Sequence[np.ndarray], first: int = 0) -> None:
        self._hidden = {p: Hidden(digest, p, np.array(ages, np.int16)) for digest, p, *ages in rings[0].tolist()}

    def keep_warm(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _may_fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the toy runtime was told to fail")
