"""A performer and a player in virtual time, with toy musicians. Only the network is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from engine.engine import Engine
from engine.events import (
    NO_VELOCITY,
    NOTE_OFF,
    NOTE_ON,
    PITCHES,
    REST,
    START,
    SUSTAIN_DOWN,
    SUSTAIN_UP,
    Event,
    Timed,
    velocity_bin,
)
from engine.midi import SUSTAIN
from perceivers_live.clock.midi_clock import Beats
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.merge import Played
from perceivers_live.performer.performer import Performer, State
from perceivers_live.player.ledger import Ledger, Voicing
from perceivers_live.player.player import Player
from tests.perceivers_live.receiver import Message, RecordingObserver, Synthesizer
from tests.perceivers_live.toys import Musician, ToyRuntime, improviser

# --- a performer on a virtual clock --------------------------------------------------------------------------------


class VirtualSession:
    """A performer and a player in virtual time, with a record of everything that sounded.

    ``keys`` and ``pedal``: what the human holds. ``violations``: messages of the machine that pressed or released such a key,
    or lifted the pedal while the machine continued to play.
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
        self.sounded: list[Timed] = []  # by human and machine, in order
        self.sent_at: list[tuple[float, Timed]] = []  # what the player sent, and when
        self.states: list[State] = []
        self.countdowns: list[float | None] = []
        self.keys: set[int] = set()
        self.pedal = False
        self.violations: list[Message] = []
        self.observer = RecordingObserver(self._record_sounded)
        self.player = Player(Ledger(self._send, voicing=self._voicing), self.observer)
        self.now = 0.0
        self.performer = Performer(
            self.engine,
            self.player,
            self.controls,
            phrase or PhraseSettings(),
            seed=seed,
            beats=beats,
            on_state=self.states.append,
            on_countdown=self.countdowns.append,
        )
        self._pending: list[Played] = []
        self._missed: list[list[Timed]] = []  # for each of these, what sounded without the performer's knowledge

    def _voicing(self) -> Voicing:
        return Voicing(int(self.controls.get("transpose")), float(self.controls.get("loudness")))

    def _send(self, message: Sequence[int]) -> None:
        touches = message[0] & 0xE0 == 0x80 and message[1] in self.keys
        lifts = tuple(message[:2]) == (0xB0, SUSTAIN) and message[2] < 64 and self.pedal and self.player.playing
        if touches or lifts:
            self.violations.append(tuple(message))
        self.port.send(message)

    def _record_sounded(self, timed: Timed) -> None:
        self.sent_at.append((self.now, timed))
        if timed.action != SUSTAIN_UP or not self.pedal:  # with the human's foot on it, the pedal stays down
            self.sounded.append(timed)

    @property
    def replying(self) -> bool:
        return self.performer.state is State.PLAYING

    @property
    def has_pending(self) -> bool:
        """Whether the performer has not processed some input of ``receive_while_busy``."""
        return bool(self._pending)

    @property
    def machine(self) -> list[Timed]:
        """What the machine played, including the releases of an interruption."""
        return [timed for _, timed in self.sent_at]

    def run(self, until: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Runs from one deadline to the next until a time, or until ``stop``; the human does not play."""
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

    def receive(self, *actions: Timed) -> None:
        """The human plays, now or at the later times of the actions, which are processed one at a time as by the callback."""
        for one in actions:
            self.run(one.time)
            self._lift(one)
            self.player.ledger.keys.apply(one)
            try:
                self.performer.absorb_input([self.performer.adapt_plan([one])])
            finally:
                self._press(one)

    def receive_while_busy(self, one: Timed) -> None:
        """The human plays now, and only the input callback processes it: the performer is busy until ``catch_up``."""
        known = len(self.sounded)
        self._lift(one)
        self.player.ledger.keys.apply(one)
        self._pending.append(self.performer.adapt_plan([one]))
        self._press(one)
        self._missed.append(self.sounded[known:])

    def work_first(self, work: Callable[[], object]) -> None:
        """The performer does a piece of work before it processes its pending input. If the work itself ends the turn, everything
        that sounded is absorbed before that input.
        """
        count = len(self.sounded)
        work()
        if self._pending and self.sounded[count:]:
            missed = [one for part in self._missed for one in part]
            known = {id(one) for one in missed}
            self.sounded[:] = [*(one for one in self.sounded if id(one) not in known), *missed]

    def catch_up(self) -> None:
        """The performer processes all pending input together, as in a session."""
        missed, self._pending, self._missed = self._pending, [], []
        if missed:
            self.performer.absorb_input(missed)

    def catch_up_with_one(self) -> None:
        """The performer processes the first pending input alone, as if a command separated it from the others."""
        if self._pending:
            first, _ = self._pending.pop(0), self._missed.pop(0)
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
        """Runs one of the performer's commands now."""
        method(self.now)

    def history(self) -> list[tuple[int, int, int]]:
        """The engine's history as (step, action, velocity bin), with rests folded into the steps."""
        return absolute(self.engine._history)

    def expected(self) -> list[tuple[int, int, int]]:
        """The expected history, from what really sounded; for sessions without shortened silences. Actions that change nothing,
        such as one of two players releasing the pedal, are omitted.
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
