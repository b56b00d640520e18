"""The performer: between what is heard, the engine, and the player's plan. It has no clock of its own: it is told the time,
so that the same code plays live and renders offline.

    respond   answers when the human's phrase has ended; a key press silences it
    duet      plays around the human from the first notes on; ends some time after the human's phrase
    solo      plays on by itself; what the human plays is part of the music
    listen    only remembers

The engine's state is always the timeline (what really sounded) and the plan.
"""

from __future__ import annotations

import enum
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

from engine.codec import LONGEST_SILENCE, spell
from engine.engine import Engine, Snapshot
from engine.events import MAX_WAIT, NOTE_OFF, REST, STEPS_PER_SECOND, SUSTAIN_UP, Event, Timed, bin_velocity
from perceivers_live.clock.midi_clock import Beats, Transport
from perceivers_live.controls.registry import Controls, ControlValues
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.decision import Situation, decide
from perceivers_live.performer.merge import Played, merge
from perceivers_live.performer.phrases import PhraseDetector
from perceivers_live.performer.timeline import Timeline
from perceivers_live.performer.turns import MachineEvent, Turn
from perceivers_live.player.player import Phase, Planned, Player

log = logging.getLogger(__name__)

KEPT_ON_CHANGE = 0.03  # seconds of the plan that survive a turned control
KEPT_ON_ACTION = 3.0  # decisions' time of the plan that survives an action of the human's
SHORTEST_REPLY, LONGEST_REPLY = 2.0, 60.0  # seconds
LINGERING = 4.0  # seconds that a duet may go on after the human's phrase, until a good end comes
A_MOMENT = 0.001  # seconds
DUET_NOTES = 3  # of the human's, before a duet begins
CROWD = 40  # events at one moment, after which time has to go on
DECISION = 0.01  # seconds that a decision takes, as long as that is not known
QUICKEST, SLOWEST = 0.005, 0.04  # what is believed of it, in seconds
DECISIONS = 32  # the last ones, of which the slowest counts
CLOSING_TIME = 150  # steps that the model has to release its last notes by itself


class State(enum.Enum):
    LISTENING = "listening"
    PLAYING = "playing"


class SavedState(NamedTuple):
    """A musical state: exact, whatever is played after it. ``silence``: seconds since its newest event."""

    snapshot: Snapshot
    seed: int
    silence: float = 0.0


class Performer:
    """Owns the engine. Every method is called from one thread, but for ``react``, which is safe from all."""

    def __init__(
        self,
        engine: Engine,
        player: Player,
        controls: Controls,
        phrase: PhraseSettings,
        *,
        seed: int | None = None,
        beats: Beats | None = None,
        on_state: Callable[[State], None] = lambda _: None,
        on_countdown: Callable[[float | None], None] = lambda _: None,
    ) -> None:
        """``on_countdown``: told when the machine will begin if nothing more is heard, and of changes; None: not by itself."""
        self._engine, self._player, self._controls, self._beats = engine, player, controls, beats
        self.timeline = Timeline(engine)
        self._detector = PhraseDetector(phrase, lambda: float(controls.snapshot()["patience"]))
        self._own_seed = seed if seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
        self._on_state, self._on_countdown = on_state, on_countdown
        self._countdown: float | None = None
        self._serials = count(1)
        self._turn = Turn(0.0, SHORTEST_REPLY)
        self._seen = controls.snapshot()  # the values that the plan was made with
        self._waiting = False  # the machine gave way: it begins again when it is asked to, a duet with a new phrase as well
        self._stopped = False  # by the transport of whoever gives the beat
        self._took: deque[float] = deque(maxlen=DECISIONS)
        self._waited = False  # for the human's last action to be told

    @property
    def state(self) -> State:
        """The player owns it: a turn goes on until the performer has heard of its end."""
        return State.LISTENING if self._player.phase is Phase.NONE else State.PLAYING

    def took(self, seconds: float) -> None:
        """A decision took so long. The next ones are made with as much time to spare."""
        self._took.append(seconds)

    def steps(self) -> list[float]:
        """What the last decisions took, in seconds."""
        return list(self._took)

    @property
    def _decision(self) -> float:
        """Seconds until what is decided now can sound."""
        return min(max(max(self._took, default=DECISION), QUICKEST), SLOWEST)

    # What happened.

    def react(self, actions: Sequence[Timed]) -> Played:
        """The part of hearing that cannot wait for the engine: silences the machine at a key press where it only responds, and
        else makes room for the key.
        """
        with self._player.changed:  # so that nothing sounds meanwhile
            after, released = self._player.sounded, self._player.make_room(actions, self._until(actions))
            silenced = self._gives_way_to(actions)
            if silenced:
                released += self._player.interrupt(actions[0].time)
        return Played(actions, released, silenced, after)

    def hush(self, now: float) -> Played:
        """Silence at once, without waiting for the engine either, as if the human had asked for it by playing."""
        with self._player.changed:
            after, silenced = self._player.sounded, self._player.playing
            released = self._player.interrupt(now)
        return Played((), released, silenced, after)

    def _gives_way_to(self, actions: Sequence[Timed]) -> bool:
        struck = any(one.action < NOTE_OFF for one in actions)
        return struck and self.state is State.PLAYING and self._controls.snapshot()["mode"] in ("respond", "listen")

    def hear(self, played: Sequence[Played]) -> None:
        """What ``react`` returned, in that order; the actions are at the times at which they were played."""
        if not played:
            return  # it was left out in a flood
        actions = [one for part in played for one in part.actions]
        since: Sequence[Timed] = ()
        if any(part.silenced for part in played) or self._gives_way_to(actions):  # a reply may have begun since
            since = self._player.interrupt(actions[0].time if actions else self.timeline.time(0))
            self._listen()
            self._detector.reset()
        elif self.state is State.PLAYING and any(one.action < NOTE_OFF for one in actions):
            self._turn.closing = None  # a duet goes on
        for one in actions:
            self._follow(one)
        self._remember(played, since)

    def _until(self, actions: Sequence[Timed]) -> float:
        """Up to when the plan holds all the same: about then it will have been made anew."""
        if not actions:
            return -math.inf
        return actions[-1].time - float(self._controls.snapshot()["input_offset_ms"]) / 1000 + KEPT_ON_ACTION * self._decision

    def _remember(self, played: Sequence[Played], since: Sequence[Timed]) -> None:
        """What was played becomes history, and then ``since``; what is left of the plan comes after it (see ``merge``)."""
        actions = [one for part in played for one in part.actions]
        last = self._player.settle(actions, self._until(actions))
        merged = merge(played, since, self._turn.since(self.timeline.floor), last)
        self._rewind(merged.base)
        base = previous = self._engine.position
        told = [self._timed(one) if isinstance(one, MachineEvent) else one for one in merged.actions]
        events, places = self.timeline.spell(told)
        for one, (position, step) in zip(merged.actions, places, strict=True):
            if isinstance(one, MachineEvent) and position > previous:  # it was not left out
                self._turn.add(MachineEvent(one.serial, position, step, events[position - base - 1]))
            previous = position
        self.timeline.take(events, floor=places[merged.past - 1].position if merged.past else base)

    def _timed(self, one: MachineEvent) -> Timed:
        """When and how an event of the machine's is heard. Here a bin becomes a velocity of MIDI."""
        action, velocity = one.event.action, one.event.velocity
        return Timed(self.timeline.time(one.step), action, bin_velocity(velocity) if action < NOTE_OFF else 0)

    def _follow(self, one: Timed) -> None:
        """An action of the human's as a part of a phrase, maybe of another one than the last was."""
        end = self._detector.end()
        if self._detector.start is None or (end is not None and one.time > end):
            self._detector.reset()
            self._waiting = self._waiting and self._controls.snapshot()["mode"] == "solo"
        self._detector.feed(one)

    def takeover(self, now: float) -> None:
        """The machine plays from now on, whatever the human's phrase is at."""
        self._waiting = False
        if self.state is State.LISTENING and self._may_play(self._controls.snapshot()):
            self._begin(now)

    def give_way(self, now: float) -> None:
        """The machine stops at once and listens."""
        self._waiting = True
        self._silence(now)
        if self._controls.snapshot()["mode"] == "respond":
            self._detector.reset()  # what was played so far gets no answer

    def transport(self, change: Transport, now: float) -> None:
        """The sequencer that gives the beat was started or stopped: stopped means silence."""
        if change is Transport.STOPPED:
            self._stopped = True
            self._silence(now)
            self._detector.reset()
        elif change in (Transport.STARTED, Transport.CONTINUED):
            if self._stopped:
                self._detector.reset()  # what was played meanwhile is no call
            self._stopped = False

    def forget(self, now: float) -> None:
        """Everything heard and played is forgotten."""
        self._player.interrupt(now)
        self._detector.reset()
        self._listen()
        self._turn.rewind(0)
        self.timeline.forget()

    def recover(self, now: float) -> None:
        """After a fault anywhere below: silence, and the engine computed again from what really sounded. Raises what the engine
        does if it has not recovered.
        """
        self._engine.invalidate()
        try:
            self._silence(now)
        finally:
            self._listen()

    def saved_state(self, now: float) -> SavedState:
        """The musical state as it is now, which is what sounded; the plan goes on as if nothing had happened."""
        engine, timeline = self._engine, self.timeline
        sounded = max(self._turn.reached(self._player.sounded), timeline.floor)
        planned = engine.since(sounded) if self.state is State.PLAYING else []
        engine.rewind(engine.position - len(planned))
        silence = max(0.0, now - timeline.time(engine.step)) if timeline.origin is not None else 0.0
        try:
            snapshot = engine.snapshot()
        finally:
            engine.absorb(planned)
        return SavedState(snapshot, self._seed(self._controls.snapshot()), min(silence, LONGEST_SILENCE / STEPS_PER_SECOND))

    def recall(self, saved_state: SavedState, now: float) -> None:
        """Goes on from a saved state, as if nothing had happened since; what sounded then does not sound now."""
        self._silence(now)
        self._detector.reset()
        self._turn.rewind(0)
        self._engine.restore(saved_state.snapshot)
        self._own_seed = saved_state.seed
        self.timeline.resume(now - saved_state.silence)
        still, ledger = self._engine.sounding, self._player.ledger
        hanging = [NOTE_OFF + int(pitch) for pitch in still.held() if pitch not in ledger.keys.held]
        hanging += [SUSTAIN_UP] if still.pedal and not ledger.keys.pedal else []
        self.timeline.absorb([Timed(now, action) for action in hanging])

    # What to do.

    def work(self, now: float) -> float | None:
        """One piece of work; returns when there is more (``now`` or earlier: at once), None: not before something is heard."""
        controls = self._controls.snapshot()
        if self.state is State.LISTENING:
            if controls["mode"] != self._seen["mode"]:
                self._seen, self._waiting = controls, False
            begin = self._begin_at(controls, now)
            if begin != self._countdown:
                self._countdown = begin
                self._on_countdown(begin)
            if begin is None or begin > now:
                return begin
            self._begin(now)
            return now
        phase = self._player.phase
        self._waited = phase in (Phase.UNSETTLED, Phase.SILENCED) and not self._waited
        if self._waited:
            return now + A_MOMENT  # to hear of it first; in a flood there is always more to hear
        if not self._may_play(controls):
            self._silence(now)
            return now
        if controls.decisions != self._seen.decisions:
            if controls["mode"] == "respond" != self._seen["mode"] and self._detector.held:
                self._silence(now)  # from now on a human who is playing is not played over
                return now
            self._seen = controls
            self._rewind_to(self._player.cancel(after=now + KEPT_ON_CHANGE))
        elif phase in (Phase.TORN, Phase.UNSETTLED):
            self._rewind_to(self._player.cancel())
        ahead = self.timeline.time(self._engine.step) - now
        lookahead = float(controls["lookahead_ms"]) / 1000
        if ahead > lookahead:
            return now + max(ahead - lookahead, 0.001)
        notes, pedal = self._holding()
        if self._turn.closing is not None and not notes and not pedal:
            return self._finish(now, controls)
        self._continue(now, controls, notes, pedal)
        return now

    def _holding(self) -> tuple[frozenset[int], bool]:
        """What the machine will have to release once the plan has sounded; a pedal that the human has down is not its own."""
        notes, pedal = self._player.holding()
        return notes, pedal and not self._player.ledger.keys.pedal

    def _may_play(self, controls: ControlValues) -> bool:
        return controls["mode"] != "listen" and not controls["hold"] and not self._stopped

    def _begin_at(self, controls: ControlValues, now: float) -> float | None:
        """When the machine begins to play if nothing more is heard, None: it does not."""
        if not self._may_play(controls):
            return None
        if controls["mode"] == "respond":
            return self._detector.end()
        if self._waiting:
            return None
        if controls["mode"] == "duet":
            end = self._detector.end()  # a phrase that is over already is no reason to begin
            return now if self._detector.notes >= DUET_NOTES and end is not None and now < end else None
        return now

    def _begin(self, now: float) -> None:
        self._seen = controls = self._controls.snapshot()
        if controls["mode"] == "duet" and self._detector.start is not None:
            length = LINGERING
        else:
            call = self._detector.length(now) or 0.0
            length = min(max(call * float(controls["response_length"]), SHORTEST_REPLY), LONGEST_REPLY)
        start_at = self._start_at(controls, now)
        max_silence = self._detector.ending_silence if controls["mode"] == "respond" else None
        self._turn = Turn(now if start_at is None else start_at, length, self._detector.rate, start_at, max_silence)
        self.timeline.begin(now)
        self.timeline.floor = self._engine.position  # all of it has sounded, the last turn's end as well
        if controls["mode"] == "respond":
            self._detector.reset()
        self._player.begin()
        self._on_state(State.PLAYING)

    def _start_at(self, controls: ControlValues, now: float) -> float | None:
        """The next beat or bar, where that is asked for and there is one."""
        if self._beats is None or controls["start_on"] == "now":
            return None
        ready = now + self._decision
        bar = controls["start_on"] == "bar"
        return self._beats.next_bar(ready, int(controls["beats_per_bar"])) if bar else self._beats.next_beat(ready)

    def _due(self, controls: ControlValues) -> float:
        """From when on the turn may end."""
        if controls["mode"] == "solo":
            return math.inf
        end = self._detector.end() if controls["mode"] == "duet" else None
        return self._turn.begun + self._turn.length if end is None else max(end, self._turn.begun + SHORTEST_REPLY)

    def _continue(self, now: float, controls: ControlValues, own: frozenset[int], own_pedal: bool) -> None:
        """Decides one event, absorbs it and plans it: never for a moment that has passed once it is decided."""
        turn, engine = self._turn, self._engine
        self.timeline.begin(now)
        opening = turn.opening(own, engine.last, engine.step)
        earliest = now + self._decision - min(0.0, self._output_offset())
        first = opening and not turn.strikes
        at_once = first and controls["mode"] != "duet"  # whoever hands over does not expect to wait
        if first and turn.start_at is not None and turn.start_at >= earliest:
            at_once = True
            elapsed = self.timeline.step(turn.start_at) - engine.step
        else:
            elapsed = math.ceil((earliest - self.timeline.time(engine.step)) * STEPS_PER_SECOND)
        elapsed = max(elapsed, int(turn.crowd >= CROWD), 0)
        while elapsed > MAX_WAIT:  # nothing happened for so long: that is part of the music
            engine.absorb([Event(MAX_WAIT, REST)])
            elapsed -= MAX_WAIT
        event = decide(
            engine, controls, self._situation(controls, own, own_pedal, elapsed, opening, at_once), self._seed(controls)
        )
        step = engine.step + event.wait
        if turn.closing is None and turn.may_end(event, self.timeline.time(step), self._due(controls)):
            turn.closing = engine.step  # this would begin a new phrase: the turn ends before it
        elif turn.closing is not None and step - turn.closing > CLOSING_TIME:
            self._release_all(earliest)
        else:
            self._add(event)

    def _situation(
        self, controls: ControlValues, own: frozenset[int], own_pedal: bool, elapsed: int, opening: bool, at_once: bool
    ) -> Situation:
        turn, end, now = self._turn, self._detector.end(), self.timeline.time(self._engine.step)
        return Situation(
            own=own,
            own_pedal=own_pedal,
            barred=own | self._player.ledger.barred,
            elapsed=elapsed,
            opening=opening,
            at_once=at_once,
            closing=turn.closing is not None,
            together=end is not None and now <= end and not opening and turn.closing is None,
            strikes=[(self.timeline.time(one.step), one.event.pitch) for one in turn.strikes],
            begun=turn.begun,
            now=now,
            rate=self._detector.rate if controls["mode"] == "duet" else turn.rate,
        )

    def _add(self, event: Event) -> None:
        """An event of the machine's, into the plan, and while it waits there into the engine."""
        one = MachineEvent(next(self._serials), self._engine.position + 1, self._engine.step + event.wait, event)
        self._turn.add(one)
        time, action, velocity = self._timed(one)
        self._player.schedule([Planned(time + self._output_offset(), one.serial, action, velocity)])
        self._engine.absorb([event])

    def _release_all(self, earliest: float) -> None:
        """The last notes and the pedal, let go together."""
        step = max(self._engine.step, self.timeline.step(earliest) + 1)
        notes, pedal = self._holding()
        for action in [*(NOTE_OFF + pitch for pitch in sorted(notes)), *([SUSTAIN_UP] if pedal else [])]:
            for event in spell(step - self._engine.step, action):
                self._add(event)

    def _finish(self, now: float, controls: ControlValues) -> float | None:
        """The plan is complete; the turn is over when it has sounded, and in a duet not before the human may have ended."""
        if self._player.planned() or (controls["mode"] == "duet" and now < self._due(controls)):
            return now + 0.02
        self._silence(now)
        self._detector.reset()
        return self.work(now)

    def _silence(self, now: float) -> None:
        """Ends the machine's turn, if it has one, and closes its notes."""
        self.timeline.absorb(self._stop(now))

    def _stop(self, now: float) -> Sequence[Timed]:
        """Ends the machine's turn; returns the releases sent, which are still to be absorbed."""
        released = self._player.interrupt(now)
        self._rewind_to(self._player.sounded)
        self._listen()
        return released

    def _rewind_to(self, serial: int) -> None:
        """Back to the machine's event with this serial number."""
        self._rewind(self._turn.reached(serial))

    def _rewind(self, position: int) -> None:
        self.timeline.rewind(position)
        self._turn.rewind(self._engine.position)

    def _output_offset(self) -> float:
        return float(self._controls.snapshot()["output_offset_ms"]) / 1000

    def _seed(self, controls: ControlValues) -> int:
        seed = int(controls["seed"])
        return seed if seed >= 0 else self._own_seed

    def _listen(self) -> None:
        """The machine's turn is over."""
        if self._player.end():
            self._on_state(State.LISTENING)
