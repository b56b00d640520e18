"""A toy musician for the tests of the live core, and real engine parts around it.

Only the network is replaced. Engine, ledger, player and performer are the real ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engine.config import ModelConfig
from engine.engine import Engine
from engine.events import (
    ACTIONS,
    END,
    MAX_WAIT,
    NO_VELOCITY,
    NOTE_OFF,
    NOTE_ON,
    PITCHES,
    REST,
    START,
    SUSTAIN_DOWN,
    SUSTAIN_UP,
    VELOCITY_BINS,
    WAITS,
    Event,
    Timed,
    velocity_bin,
)
from engine.midi import SUSTAIN
from engine.rings import MASKED
from engine.runtimes import SamplingBias
from engine.sounding import AGES, PEDAL
from perceivers_live.clock.midi_clock import Beats
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.merge import Played
from perceivers_live.performer.performer import Performer, State
from perceivers_live.player.ledger import Ledger, Sent, Voicing
from perceivers_live.player.player import Planned, Player, PlayerObserver

SMALL = ModelConfig(width=8, heads=1, kv_heads=1, layers=1, scales=(64, 1024), window=64, slack=256)
Message = tuple[int, ...]


# --- toy musicians -------------------------------------------------------------------------------------------------


class Hidden(NamedTuple):
    """What a toy knows of the music so far."""

    digest: int  # of every event up to here
    position: int
    ages: np.ndarray  # [AGES]


Musician = Callable[[Hidden, SamplingBias], tuple[int, int, int]]


def possible(bias: np.ndarray) -> np.ndarray:
    """The choices that the odds leave, in order."""
    return np.flatnonzero(bias > MASKED / 2)


def improviser(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
    """Chance on top of a pianist's habits: short waits, white keys, notes of about a third of a second, a little pedal."""
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
    """Strikes as many of its pitches as make a chord, releases them in turn, for ever; each ``wait`` after the last event."""

    def play(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
        waits, actions = possible(bias.wait), possible(bias.action)
        when = int(waits[np.searchsorted(waits, min(wait, waits[-1]))])
        held = [int(action) for action in actions if NOTE_OFF <= action < SUSTAIN_DOWN]
        # A call keeps its tune whatever is cancelled and decided again: the choice follows from what sounds and was played.
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
            choice = int(actions[0])  # it has to strike, and its tune is not to be had
        return when, choice, 20  # like the real heads, a velocity whatever the action

    return play


def restless(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
    """Strikes and releases whatever can be, whoever holds it, a moment after the last event."""
    _, for_action, for_velocity = np.split(bias.noise, (WAITS, WAITS + ACTIONS))
    waits, logits = possible(bias.wait), bias.action + for_action
    logits[NOTE_OFF:SUSTAIN_DOWN] += 2
    if len(possible(bias.action)) > 1:
        logits[REST] = MASKED
    action = int(np.argmax(logits))
    wait = MAX_WAIT if action == REST else int(waits[min(4, len(waits) - 1)])
    return wait, action, int(np.argmax(bias.velocity + for_velocity))


def silent(_: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
    """Has nothing to say, and says as little as it may."""
    if bias.action[REST] > MASKED / 2:
        return MAX_WAIT, REST, 0
    return int(possible(bias.wait)[-1]), int(possible(bias.action)[0]), 0


class ToyRuntime:
    """A runtime whose network is a function. Its rings are what it knows at each position, so a wrong pointer shows.

    ``failures``: how many of the coming steps and decisions raise. ``broken``: hidden states are not finite.
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


# --- the receiving end ---------------------------------------------------------------------------------------------


class PortError(Exception):
    """The port was told not to work."""


class Synthesizer:
    """Stands for the output port and what listens behind it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.fails: Callable[[Message], bool] = lambda _: False

    def send(self, message: Sequence[int]) -> None:
        if self.fails(tuple(message)):
            raise PortError("the port is gone")
        self.messages.append(tuple(message))

    @property
    def sounding(self) -> set[tuple[int, int]]:
        """(channel, pitch) of every note-on without a note-off since. Controllers are not trusted to silence notes."""
        held: set[tuple[int, int]] = set()
        for status, first, second in (m for m in self.messages if len(m) == 3):
            if status & 0xF0 == 0x90 and second:
                held.add((status & 0x0F, first))
            elif status & 0xF0 in (0x80, 0x90):
                held.discard((status & 0x0F, first))
        return held

    @property
    def pedals(self) -> set[int]:
        """Channels with the pedal down."""
        values = {m[0] & 0x0F: m[2] for m in self.messages if len(m) == 3 and m[0] & 0xF0 == 0xB0 and m[1] == SUSTAIN}
        return {channel for channel, value in values.items() if value >= 64}

    @property
    def silent(self) -> bool:
        return not self.sounding and not self.pedals

    @property
    def note_ons(self) -> list[int]:
        return [m[1] for m in self.messages if m[0] & 0xF0 == 0x90 and m[2]]


def unbalanced(messages: Iterable[Message]) -> list[str]:
    """Where an account of note-ons and note-offs breaks: struck while sounding, released while silent, never released."""
    held: set[tuple[int, int]] = set()
    faults = []
    for status, pitch, velocity in messages:
        key = (status & 0x0F, pitch)
        if status & 0xF0 == 0x90 and velocity:
            faults += [f"{pitch} struck while it sounds"] if key in held else []
            held.add(key)
        elif status & 0xF0 in (0x80, 0x90):
            faults += [] if key in held else [f"{pitch} released while it is silent"]
            held.discard(key)
    return faults + [f"{pitch} never released" for _, pitch in sorted(held)]


class Watcher(PlayerObserver):
    """Hears what the machine plays, in the model's pitches; ``plan`` is what it was told of the plan, with what has sounded."""

    def __init__(self, heard: Callable[[Timed], object] = lambda _: None) -> None:
        self._heard = heard
        self.plan: list[Planned] = []
        self.taken = 0  # events that were taken back

    def sounded(self, one: Sent) -> None:
        self._heard(one.played)

    def planned(self, events: Sequence[Planned]) -> None:
        self.plan += events

    def taken_back(self, first: int) -> None:
        stays = [one for one in self.plan if one.serial < first]
        self.taken += len(self.plan) - len(stays)
        self.plan = stays


# --- a performer on a virtual clock --------------------------------------------------------------------------------


class Stage:
    """A performer and a player in virtual time, with a record of everything that sounded.

    ``keys`` and ``pedal``: what the human holds. ``trespasses``: messages of the machine's that struck or released such a key,
    or lifted the pedal while the machine went on playing.
    """

    def __init__(
        self,
        musician: Musician = improviser,
        controls: Mapping[str, object] | None = None,
        phrase: PhraseSettings | None = None,
        *,
        seed: int = 1,
        beats: Beats | None = None,
    ) -> None:
        self.runtime = ToyRuntime(musician)
        self.engine = Engine(self.runtime)
        self.controls = Controls(controls)
        self.port = Synthesizer()
        self.sounded: list[Timed] = []  # human and machine, in the order in which it did
        self.sent_at: list[tuple[float, Timed]] = []  # what the player sounded, and when
        self.states: list[State] = []
        self.keys: set[int] = set()
        self.pedal = False
        self.trespasses: list[Message] = []
        self.watcher = Watcher(self._heard)
        self.player = Player(Ledger(self._send, voicing=self._voicing), self.watcher)
        self.now = 0.0
        self.performer = Performer(
            self.engine,
            self.player,
            self.controls,
            phrase or PhraseSettings(),
            seed=seed,
            beats=beats,
            on_state=self.states.append,
        )
        self._untold: list[Played] = []
        self._missed: list[list[Timed]] = []  # for each of these, what sounded that the performer does not know of

    def _voicing(self) -> Voicing:
        return Voicing(int(self.controls.get("transpose")), float(self.controls.get("loudness")))

    def _send(self, message: Sequence[int]) -> None:
        touches = message[0] & 0xE0 == 0x80 and message[1] in self.keys
        lifts = tuple(message[:2]) == (0xB0, SUSTAIN) and message[2] < 64 and self.pedal and self.player.playing
        if touches or lifts:
            self.trespasses.append(tuple(message))
        self.port.send(message)

    def _heard(self, timed: Timed) -> None:
        self.sent_at.append((self.now, timed))
        if timed.action != SUSTAIN_UP or not self.pedal:  # with the human's foot on it, the pedal stays down
            self.sounded.append(timed)

    @property
    def replying(self) -> bool:
        return self.performer.state is State.PLAYING

    @property
    def machine(self) -> list[Timed]:
        """What the machine played, an interruption's releases included."""
        return [timed for _, timed in self.sent_at]

    def run(self, until: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Performs from one deadline to the next until a time, or until ``stop``; nobody plays."""
        while not stop():
            more = self.performer.work(self.now)
            if more is not None and more <= self.now:
                continue
            times = [time for time in (self.player.play_due(self.now), more) if time is not None]
            if stop():
                return
            if not times or min(times) > until:
                self.now = max(self.now, until)
                self.player.play_due(self.now)
                return
            self.now = max(self.now, min(times))
            self.player.play_due(self.now)

    def hear(self, *actions: Timed) -> None:
        """The human plays, now or at the actions' later times, heard one at a time as by the input's callback."""
        for one in actions:
            self.run(one.time)
            self._lift(one)
            self.player.ledger.keys.apply(one)
            try:
                self.performer.absorb_input([self.performer.adapt_plan([one])])
            finally:
                self._press(one)

    def strike(self, one: Timed) -> None:
        """The human plays, now, and only the input's callback hears it: the performer is busy until ``catch_up``."""
        known = len(self.sounded)
        self._lift(one)
        self.player.ledger.keys.apply(one)
        self._untold.append(self.performer.adapt_plan([one]))
        self._press(one)
        self._missed.append(self.sounded[known:])

    def work_first(self, work: Callable[[], object]) -> None:
        """The performer does a piece of work, and only then hears what it missed. If it ends the turn for a reason of its own,
        all of that is remembered first.
        """
        count = len(self.sounded)
        work()
        if self._untold and self.sounded[count:]:
            missed = [one for part in self._missed for one in part]
            known = {id(one) for one in missed}
            self.sounded[:] = [*(one for one in self.sounded if id(one) not in known), *missed]

    def catch_up(self) -> None:
        """The performer hears all that it missed, together, as in a session."""
        missed, self._untold, self._missed = self._untold, [], []
        if missed:
            self.performer.absorb_input(missed)

    def catch_up_with_one(self) -> None:
        """The performer hears the first thing that it missed, as if a command separated it from the others."""
        if self._untold:
            first, _ = self._untold.pop(0), self._missed.pop(0)
            self.performer.absorb_input([first])

    def _lift(self, one: Timed) -> None:
        if NOTE_OFF <= one.action < SUSTAIN_DOWN:
            self.keys.discard(one.action - NOTE_OFF)
        elif one.action == SUSTAIN_UP:
            self.pedal = False

    def _press(self, one: Timed) -> None:
        self.sounded.append(one)
        if one.action < NOTE_OFF:
            self.keys.add(one.action - NOTE_ON)
        elif one.action == SUSTAIN_DOWN:
            self.pedal = True

    def command(self, method: Callable[[float], None]) -> None:
        """One of the performer's commands, now."""
        method(self.now)

    def history(self) -> list[tuple[int, int, int]]:
        """What the engine remembers: (step, action, velocity bin), rests folded into the steps."""
        return absolute(self.engine._history)

    def expected(self) -> list[tuple[int, int, int]]:
        """What it should remember, from what really sounded; for sessions without a silence that is shortened. What changes
        nothing, such as one of two feet leaving the pedal, is left out.
        """
        origin = self.performer.timeline.origin or 0.0
        step, out = 0, []
        down: set[int] = set()
        for one in self.sounded:
            subject = one.action % PITCHES if one.action < SUSTAIN_DOWN else PITCHES
            presses = one.action < NOTE_OFF or one.action == SUSTAIN_DOWN
            if one.action >= NOTE_OFF and presses == (subject in down):
                continue
            down = down | {subject} if presses else down - {subject}
            step = max(step, int(np.floor((one.time - origin) * 100 + 0.5)))
            out.append((step, one.action, velocity_bin(one.velocity) if one.action < NOTE_OFF else NO_VELOCITY))
        return out


def absolute(events: Iterable[Event]) -> list[tuple[int, int, int]]:
    """Events -> (step, action, velocity bin); rests and the start only move time."""
    step, out = 0, []
    for wait, action, velocity in events:
        step += wait
        if action not in (REST, START):
            out.append((step, action, velocity if action < NOTE_OFF else NO_VELOCITY))
    return out


def fresh(events: Iterable[Event]) -> Engine:
    """An engine that has absorbed exactly these events, one at a time; the first is the start event."""
    engine = Engine(ToyRuntime())
    for event in list(events)[1:]:
        engine.absorb([event])
    return engine


# --- calls ---------------------------------------------------------------------------------------------------------


def note(start: float, duration: float, pitch: int, velocity: int = 80) -> list[Timed]:
    return [Timed(start, NOTE_ON + pitch, velocity), Timed(start + duration, NOTE_OFF + pitch)]


def phrase(start: float = 0.0, count: int = 8, gap: float = 0.2, pitch: int = 60) -> list[Timed]:
    """An even, detached run upwards."""
    return [one for i in range(count) for one in note(start + i * gap, gap * 0.8, pitch + i % 12)]
