"""The performer: between what is heard, the engine, and the player's plan. It has no clock of its own: it is told the time,
so that the same code plays live and renders offline.

One history of what really sounded, human and machine, in 10 ms steps; the engine's state is always that history and the plan.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import math
from collections.abc import Callable

import numpy as np

from engine.codec import spell, to_step
from engine.engine import Engine
from engine.events import NO_VELOCITY, NOTE_OFF, REST, STEPS_PER_SECOND, SUSTAIN_UP, Event, Timed, velocity_bin
from engine.sampling import Steering, odds
from perceivers_live.config import PhraseSettings
from perceivers_live.controls import Controls, Snapshot
from perceivers_live.pace import correction
from perceivers_live.phrases import PhraseDetector
from perceivers_live.player import Planned, Player

log = logging.getLogger(__name__)

LONGEST_SILENCE = 500  # steps; a longer one in the history is shortened to this
KEPT_ON_CHANGE = 0.03  # seconds of the plan that survive a turned control
SHORTEST_REPLY, LONGEST_REPLY = 2.0, 60.0  # seconds
BREATH = 25  # steps: a wait this long, past the reply's due length, is a place to end
OVERTIME = 1.5  # times the due length: from here on any gap between notes is a place to end, at twice the due length anything is
GAP = 4  # steps: what lies closer together is one chord
CROWD = 40  # events at one moment, after which time has to go on
DECISION = 0.01  # seconds that a decision may take
CLOSING_TIME = 150  # steps that the model has to release its last notes by itself


class State(enum.Enum):
    LISTENING = "listening"
    REPLYING = "replying"


class Performer:
    """Owns the engine. Every method is called from one thread, but for the player's, which are safe from all."""

    def __init__(
        self,
        engine: Engine,
        player: Player,
        controls: Controls,
        phrase: PhraseSettings,
        *,
        seed: int | None = None,
        on_state: Callable[[State], None] = lambda _: None,
    ) -> None:
        self._engine, self._player, self._controls = engine, player, controls
        self._detector = PhraseDetector(phrase)
        self._session = seed if seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
        self._on_state = on_state
        self._origin: float | None = None  # time of step 0
        self.state = State.LISTENING
        self._begun = self._due = 0.0  # the reply: when it began, how long it should be, in seconds
        self._closing: int | None = None  # the step at which the last notes began to be released
        self._floor = 0  # position of the last event that is no plan
        self._version = -1
        self._struck = False  # whether the reply has its first note
        self._rate: float | None = None  # notes a second of the call that is answered
        self._crowd = 0  # events of the plan since time last went on

    # What happened.

    def hear(self, actions: list[Timed], interruption: tuple[int | None, list[Timed]] | None = None) -> None:
        """The human's actions, in time order, at the times they were played.

        ``interruption`` is what ``Player.interrupt`` returned, if the player was silenced for them. In ``respond`` mode a
        note-on does that (here, if the caller has not done it already); a release or a pedal change only puts the plan on
        a new footing.
        """
        if interruption is not None and interruption[0] is None and self.state is State.LISTENING:
            interruption = None  # the reply had ended just before
        if not actions and interruption is None:
            return
        if self.state is State.REPLYING and interruption is None:
            if any(one.action < NOTE_OFF for one in actions):
                interruption = self._player.interrupt(actions[0].time)
            else:
                self._rewind(self._player.cancel())
        released: list[Timed] = []
        if interruption is not None:
            position, released = interruption
            self._rewind(position)
            self._detector.reset()
            self._enter(State.LISTENING)
        for one in actions:
            self._detector.feed(one)
        self._absorb(sorted([*released, *actions], key=lambda one: one.time))

    def takeover(self, now: float) -> None:
        """The machine plays from now on, whatever the human's phrase is at."""
        controls = self._controls.snapshot()
        if self.state is State.LISTENING and controls["mode"] == "respond" and not controls["hold"]:
            self._reply(now)

    def give_way(self, now: float) -> None:
        """The machine stops at once and listens."""
        position, released = self._player.interrupt(now)
        self._rewind(position)
        self._absorb(released)
        self._detector.reset()
        self._enter(State.LISTENING)

    def forget(self, now: float) -> None:
        """Everything heard and played is forgotten."""
        self._player.interrupt(now)
        self._detector.reset()
        self._enter(State.LISTENING)
        self._origin, self._floor = None, 0
        self._engine.forget()

    # What to do.

    def work(self, now: float) -> float | None:
        """One piece of work; returns when there is more (``now`` or earlier: at once), None: not before something is heard."""
        controls = self._controls.snapshot()
        if self.state is State.LISTENING:
            end = self._detector.end()
            if end is None or controls["mode"] != "respond" or controls["hold"]:
                return None
            if now < end:
                return end
            self._reply(now)
            return now
        if controls["mode"] != "respond" or controls["hold"]:
            self.give_way(now)
            return None
        if controls.version != self._version:
            self._version = controls.version
            self._rewind(self._player.cancel(after=now + KEPT_ON_CHANGE))
        ahead = self._time(self._engine.step) - now
        lookahead = float(controls["lookahead_ms"]) / 1000
        if ahead > lookahead:
            return now + max(ahead - lookahead, 0.001)
        notes, pedal = self._player.holding()
        if self._closing is not None and not notes and not pedal:
            return self._finish(now)
        self._continue(now, controls, notes, pedal)
        return now

    def _reply(self, now: float) -> None:
        controls = self._controls.snapshot()
        start = self._detector.start
        call = now - start if start is not None else SHORTEST_REPLY
        self._due = min(max(call * float(controls["response_length"]), SHORTEST_REPLY), LONGEST_REPLY)
        self._begun, self._closing, self._struck, self._version = now, None, False, controls.version
        if self._origin is None:
            self._origin = now
        self._rate = self._detector.rate
        self._skip_silence(now)
        self._detector.reset()
        self._player.begin(self._engine.position)
        self._enter(State.REPLYING)

    def _continue(self, now: float, controls: Snapshot, own: frozenset[int], own_pedal: bool) -> None:
        """Decides one event, absorbs it and plans it: never for a moment that has passed once it is decided."""
        self._skip_silence(now)
        earliest = now + DECISION - min(0.0, self._output_offset())
        elapsed = max(0, math.ceil((earliest - self._time(self._engine.step)) * STEPS_PER_SECOND))
        elapsed = max(elapsed, int(self._crowd >= CROWD))
        while elapsed > 100:  # nothing happened for so long: that is part of the music
            self._engine.absorb([Event(100, REST)])
            elapsed -= 100
        noise = np.random.default_rng((self._seed(controls), self._engine.position))
        reply = self._engine.since(self._floor)
        event = self._engine.decide(
            odds(
                self._engine.sounding,
                self._steering(controls, reply),
                noise,
                own=own,
                own_pedal=own_pedal,
                strikes=[one.pitch for one in reply if one.is_note_on],
                barred=self._detector.held,
                elapsed=elapsed,
                opening=self._opening(own),
                closing=self._closing is not None,
            )
        )
        step = self._engine.step + event.wait
        played = self._time(step) - self._begun
        if self._closing is None and self._may_end(event, played):
            self._closing = self._engine.step  # this would begin a new phrase: the reply ends before it
            return
        if self._closing is not None and step - self._closing > CLOSING_TIME:
            self._release_all(now)
            return
        self._crowd = 0 if event.wait else self._crowd + 1
        self._struck = self._struck or event.is_note_on
        self._engine.absorb([event])
        self._plan(event)

    def _steering(self, controls: Snapshot, reply: list[Event]) -> Steering:
        asked, pace = steering(controls), float(controls["pace"])
        if self._rate is None or not pace:
            return asked
        return dataclasses.replace(asked, density=asked.density + pace * correction(reply, self._rate))

    def _opening(self, own: frozenset[int]) -> bool:
        """Whether the machine owes the human a note: nothing of its own sounds, and the reply begins or has just paused."""
        return self._closing is None and not own and (not self._struck or self._engine.last.action == REST)

    def _may_end(self, event: Event, played: float) -> bool:
        """Whether the reply can end before ``event``, ``played`` seconds after it began: never within a chord."""
        if not (event.is_note_on or event.action == REST) or played <= self._due:
            return False
        overdue = played / self._due
        return event.wait >= BREATH or (overdue > OVERTIME and event.wait > GAP) or (overdue > 2 and event.wait > 0)

    def _release_all(self, now: float) -> None:
        """The last notes and the pedal, let go together."""
        step = max(self._engine.step, to_step(now - (self._origin or 0.0)) + 1)
        notes, pedal = self._player.holding()
        for action in [*(NOTE_OFF + pitch for pitch in sorted(notes)), *([SUSTAIN_UP] if pedal else [])]:
            for event in spell(step - self._engine.step, action):
                self._engine.absorb([event])
                self._plan(event)

    def _finish(self, now: float) -> float | None:
        """The plan is complete; the reply is over when it has sounded."""
        if self._player.planned():
            return now + 0.02
        self._player.end()
        self._enter(State.LISTENING)
        return self.work(now)

    def _output_offset(self) -> float:
        return float(self._controls.snapshot()["output_offset_ms"]) / 1000

    def _plan(self, event: Event) -> None:
        at = self._time(self._engine.step) + self._output_offset()
        self._player.schedule([Planned(at, self._engine.position, event.action, event.velocity)])

    # The history.

    def _absorb(self, actions: list[Timed]) -> None:
        events: list[Event] = []
        step = self._engine.step
        for one in actions:
            if self._origin is None:
                self._origin = one.time
            at = max(step, to_step(one.time - self._origin))
            if at - step > LONGEST_SILENCE:
                self._origin += (at - step - LONGEST_SILENCE) / STEPS_PER_SECOND
                at = step + LONGEST_SILENCE
            events += spell(at - step, one.action, velocity_bin(one.velocity) if one.action < NOTE_OFF else NO_VELOCITY)
            step = at
        self._engine.absorb(events)
        self._floor = self._engine.position

    def _skip_silence(self, now: float) -> None:
        """Shortens a silence up to ``now`` that is too long to be music."""
        surplus = to_step(now - (self._origin or 0.0)) - self._engine.step - LONGEST_SILENCE
        if surplus > 0 and self._origin is not None:
            self._origin += surplus / STEPS_PER_SECOND

    def _rewind(self, position: int | None) -> None:
        """Back to the last event of the plan that sounded, or to the human's last, whichever came later."""
        if position is not None and max(position, self._floor) < self._engine.position:
            self._engine.rewind(max(position, self._floor))

    def _time(self, step: int) -> float:
        return (self._origin or 0.0) + step / STEPS_PER_SECOND

    def _seed(self, controls: Snapshot) -> int:
        seed = int(controls["seed"])
        return seed if seed >= 0 else self._session

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._on_state(state)


def steering(controls: Snapshot) -> Steering:
    """The controls that shape a decision."""
    low, high = sorted((int(controls["register_low"]), int(controls["register_high"])))
    return Steering(
        temperature=float(controls["temperature"]),
        min_p=float(controls["min_p"]),
        variety=float(controls["variety"]),
        density=float(controls["density"]),
        dynamics=float(controls["dynamics"]),
        register_low=low,
        register_high=high,
        max_polyphony=int(controls["max_polyphony"]),
    )
