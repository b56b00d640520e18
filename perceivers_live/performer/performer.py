"""The performer: takes turns with the human. It absorbs the human's actions and plans the machine's events.

    respond   replies when the human's phrase has ended; a key press interrupts the reply
    duet      plays along from the human's first notes; ends some time after the human's phrase
    solo      plays continuously; the human's notes become part of the music
    listen    does not play

The performer has no clock: callers pass the time, so that live playing and offline rendering share this code. The engine's
history is always the timeline (what sounded) followed by the plan.
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

from engine.adjustment import Strike
from engine.codec import LONGEST_SILENCE, events_after_gap
from engine.engine import Engine, Snapshot
from engine.events import MAX_WAIT, NOTE_OFF, REST, STEPS_PER_SECOND, SUSTAIN_UP, Event, Timed, bin_velocity
from perceivers_live.clock.midi_clock import Beats, Transport
from perceivers_live.controls.registry import Controls, ControlValues
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.decision import Situation, decide
from perceivers_live.performer.decision_times import DecisionTimes, lead, output_offset
from perceivers_live.performer.merge import Played, merge
from perceivers_live.performer.phrases import PhraseDetector
from perceivers_live.performer.pulse import Subdivision, grid
from perceivers_live.performer.start import TurnStart
from perceivers_live.performer.timeline import Timeline
from perceivers_live.performer.turns import EARLY, MIN_REPLY, OVERTIME, MachineEvent, Turn
from perceivers_live.player.player import Phase, Planned, Player

log = logging.getLogger(__name__)

MIN_KEPT = 0.03  # seconds of the plan that stay at least when a control changes
OPENING_DECISIONS = 3  # decisions that follow the one of the first note before it sounds
INPUT_WAIT = 0.001  # seconds to wait for input that the player has handled and the performer has not received
MAX_SIMULTANEOUS = 40  # events at the same time; the next one is at least a step later
PEDAL_STEPS = 8  # from the release of the last keys to that of the pedal


class State(enum.Enum):
    LISTENING = "listening"
    PLAYING = "playing"


class SavedState(NamedTuple):
    """An exact musical state. ``silence``: seconds since its newest event."""

    snapshot: Snapshot
    seed: int
    silence: float = 0.0


class Performer:
    """Owns the engine. ``adapt_plan`` and ``interrupt`` may be called from any thread, all other methods from one."""

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
        """``on_countdown`` receives each change of the time at which the machine begins without further input; None: never."""
        self._engine, self._player, self._controls, self._beats = engine, player, controls, beats
        self.timeline = Timeline(engine)
        self._detector = PhraseDetector(phrase, lambda: float(controls.snapshot()["patience"]))
        self._default_seed = seed if seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
        self._on_state = on_state
        self._decision_times = DecisionTimes()
        self._start = TurnStart(self._detector, self._decision_times, beats, on_countdown)
        self._subdivision = Subdivision(beats)
        self._serials = count(1)
        self._turn = Turn(0.0, MIN_REPLY)
        self._plan_controls = controls.snapshot()  # the values used for the plan
        self.transport_stopped = False  # the sequencer that sends the clock is stopped
        self._awaits_input = False  # the last call of ``work`` waited for the inbox

    @property
    def state(self) -> State:
        """Derived from the player's phase. An interrupted turn lasts until ``absorb_input`` ends it."""
        return State.LISTENING if self._player.phase is Phase.IDLE else State.PLAYING

    def add_decision_time(self, seconds: float) -> None:
        """Records how long a decision took. The next ones are planned at least as far ahead."""
        self._decision_times.add(seconds)

    def decision_times(self) -> list[float]:
        """How long the latest decisions took, in seconds."""
        return self._decision_times.latest()

    # Input and commands.

    def adapt_plan(self, actions: Sequence[Timed]) -> Played:
        """The immediate part of handling input, without the engine: releases the keys that the human strikes and shortens the
        plan, or interrupts the machine in ``respond``. Pass the result to ``absorb_input``, in order.
        """
        with self._player.changed:  # nothing is sent in between
            after, released = self._player.sounded, self._player.react_to(actions, self._keep_until(actions))
            silenced = self._is_interrupted_by(actions)
            if silenced:
                released += self._player.interrupt(actions[0].time)
        return Played(actions, released, silenced, after)

    def interrupt(self, now: float) -> Played:
        """Interrupts the machine immediately, without the engine. Pass the result to ``absorb_input``, in order."""
        with self._player.changed:
            after, silenced = self._player.sounded, self._player.playing
            released = self._player.interrupt(now)
        return Played((), released, silenced, after)

    def release_all(self, now: float) -> Played:
        """Releases what the machine holds; its turn and its plan go on. Pass the result to ``absorb_input``, in order."""
        with self._player.changed:
            after, released = self._player.sounded, self._player.release_all(now)
        return Played((), released, False, after)

    def _is_interrupted_by(self, actions: Sequence[Timed]) -> bool:
        struck = any(one.action < NOTE_OFF for one in actions)
        return struck and self.state is State.PLAYING and self._controls.snapshot()["mode"] in ("respond", "listen")

    def absorb_input(self, played: Sequence[Played]) -> None:
        """Adds input to the history and to the phrase. ``played``: results of ``adapt_plan`` and ``interrupt``, in order."""
        if not played:
            return  # dropped by an overloaded inbox
        actions = [one for part in played for one in part.actions]
        since: Sequence[Timed] = ()
        if any(part.silenced for part in played) or self._is_interrupted_by(actions):  # a reply may have begun since
            since = self._player.interrupt(actions[0].time if actions else self.timeline.time(0))
            self._set_listening()
            if actions and not self._has_sounded():
                self._start.postpone(self._turn)
            else:
                self._detector.reset()
        elif self.state is State.PLAYING and any(one.action < NOTE_OFF for one in actions):
            self._turn.closing = None  # a duet continues
        for one in actions:
            self._feed_detector(one)
        self._update_history(played, since)

    def _keep_until(self, actions: Sequence[Timed]) -> float:
        """The time up to which the plan stays when the human plays."""
        if not actions:
            return math.inf
        controls = self._controls.snapshot()
        return actions[-1].time - float(controls["input_offset_ms"]) / 1000 + self._decision_times.kept(controls)

    def _update_history(self, played: Sequence[Played], since: Sequence[Timed]) -> None:
        """Rewrites the history since the input: what was played, the rest of the plan, and ``since`` (see ``merge``)."""
        actions = [one for part in played for one in part.actions]
        last = self._player.reopen(actions, self._keep_until(actions))
        merged = merge(played, since, self._turn.events_after(self.timeline.floor), last)
        self._rewind(merged.base)
        base = previous = self._engine.position
        timed = [self._to_timed(one) if isinstance(one, MachineEvent) else one for one in merged.actions]
        events, places = self.timeline.encode(timed)
        for one, (position, step) in zip(merged.actions, places, strict=True):
            if isinstance(one, MachineEvent) and position > previous:  # not omitted by ``encode``
                self._turn.add(MachineEvent(one.serial, position, step, events[position - base - 1]))
            previous = position
        self.timeline.append(events, floor=places[merged.final - 1].position if merged.final else base)

    def _to_timed(self, planned: MachineEvent) -> Timed:
        """An event of the machine in monotonic seconds."""
        action, velocity = planned.event.action, planned.event.velocity
        return Timed(self.timeline.time(planned.step), action, bin_velocity(velocity) if action < NOTE_OFF else 0)

    def _feed_detector(self, timed: Timed) -> None:
        """Adds an action of the human to the phrase, or to a new phrase if the last one is over."""
        end = self._detector.over_at()
        if timed.action < NOTE_OFF and (end is None or timed.time > end) and not self._start.awaits_beat:
            self._detector.reset()
            self._start.begin_phrase(self._controls.snapshot())
        self._detector.feed(timed._replace(time=self.timeline.quantized(timed.time)))
        self._subdivision.feed(timed)

    def takeover(self, now: float) -> None:
        """The machine begins to play now (or on the next beat, as ``start_on`` has it), even within the human's phrase."""
        controls = self._controls.snapshot()
        self._start.allow()
        if self.state is State.LISTENING and self._may_play(controls):
            self._start.request()
            self._begin_if_due(now, controls)

    def yield_turn(self, now: float) -> None:
        """The machine stops immediately and listens."""
        self._start.yield_turn()
        self._end_turn(now)
        if self._controls.snapshot()["mode"] == "respond":
            self._detector.reset()  # no reply to what was played so far

    def transport(self, change: Transport, now: float) -> None:
        """The sequencer that sends the clock was started or stopped. While it is stopped, the machine does not play."""
        if change is not Transport.MOVED:
            self.transport_stopped = change is Transport.STOPPED  # first, since the engine may fail
        if change is Transport.STOPPED:
            self._start.cancel()
            self._detector.reset()
            self._end_turn(now)

    def clear_stop(self, now: float) -> None:
        """Another input was chosen: a stop of the former input's sequencer no longer keeps the machine silent."""
        self.transport_stopped = False

    def forget(self, now: float) -> None:
        """Ends the turn and clears the history."""
        self._player.interrupt(now)
        self._start.cancel()
        self._detector.forget()
        self._set_listening()
        self._turn.rewind(0)
        self._subdivision.forget()
        self.timeline.forget()

    def recover(self, now: float) -> None:
        """After a fault of engine or player: ends the turn and rebuilds the engine's state from what sounded. Raises what the
        engine raises if it has not recovered.
        """
        self._engine.invalidate()
        try:
            self._end_turn(now)
        finally:
            self._set_listening()

    def saved_state(self, now: float) -> SavedState:
        """The musical state after what has sounded. The plan is not affected. Raises ``StateError`` while a standby computes."""
        engine, timeline = self._engine, self.timeline
        sounded = max(self._turn.position_of(self._player.sounded), timeline.floor)
        planned = engine.since(sounded) if self.state is State.PLAYING else []
        engine.rewind(engine.position - len(planned))
        silence = max(0.0, now - timeline.time(engine.step)) if timeline.origin is not None else 0.0
        try:
            snapshot = engine.snapshot()
        finally:
            engine.absorb(planned)
        return SavedState(snapshot, self._seed(self._controls.snapshot()), min(silence, LONGEST_SILENCE / STEPS_PER_SECOND))

    def recall(self, saved_state: SavedState, now: float) -> None:
        """Ends the turn and continues from a saved state. Keys that were down in it are released in the history."""
        self._start.cancel()
        self._end_turn(now)
        self._detector.reset()
        self._turn.rewind(0)
        self._engine.restore(saved_state.snapshot)
        self._default_seed = saved_state.seed
        self.timeline.resume(now - saved_state.silence)
        restored, ledger = self._engine.sounding, self._player.ledger
        releases = [NOTE_OFF + int(pitch) for pitch in restored.held() if pitch not in ledger.keys.held]
        releases += [SUSTAIN_UP] if restored.pedal and not ledger.keys.pedal else []
        self.timeline.absorb([Timed(now, action) for action in releases])

    # Playing.

    def work(self, now: float) -> float | None:
        """Does one step of work. Returns when to call again (up to ``now``: immediately); None: after input or a command."""
        controls = self._controls.snapshot()
        self._detector.set_mode(now, str(controls["mode"]) if self._may_play(controls) else None)
        if self.state is State.LISTENING:
            if controls["mode"] != self._plan_controls["mode"]:
                self._plan_controls = controls
                self._start.change_mode()
            return self._begin_if_due(now, controls)
        if controls["mode"] == "respond" == self._plan_controls["mode"] and self._has_sounded():
            self._detector.reset()  # not before: until then, the human may go on with the phrase
        phase = self._player.phase
        self._awaits_input = phase in (Phase.INPUT_PENDING, Phase.INTERRUPTED) and not self._awaits_input
        if self._awaits_input:
            return now + INPUT_WAIT  # for ``absorb_input``; only once, since in a flood there is always more input
        if not self._may_play(controls):
            self._end_turn(now)
            return now
        if controls.decision_version != self._plan_controls.decision_version:
            if controls["mode"] == "respond" != self._plan_controls["mode"] and self._detector.held:
                self._end_turn(now)  # ``respond`` does not play while the human does
                return now
            self._plan_controls = controls
            self._rewind_to_serial(self._player.cancel(after=now + max(self._decision_times.kept(controls), MIN_KEPT)))
        elif phase in (Phase.DROPPED, Phase.INPUT_PENDING):
            self._rewind_to_serial(self._player.cancel(after=math.inf))  # what was not dropped stays
        ahead = self.timeline.time(self._engine.step) - now
        lookahead = float(controls["lookahead_ms"]) / 1000 + lead(controls)
        if ahead > lookahead:
            return now + max(ahead - lookahead, 0.001)
        notes, pedal = self._held_after_plan()
        if self._turn.closing is not None and not notes and not pedal:
            return self._finish(now, controls)
        self._decide_next(now, controls, notes, pedal)
        return now

    def _has_sounded(self) -> bool:
        """Whether an event of the turn has sounded."""
        return self._turn.position_of(self._player.sounded) > 0

    def _held_after_plan(self) -> tuple[frozenset[int], bool]:
        """The pitches and the pedal that the machine holds after the plan. A pedal that the human holds does not count."""
        notes, pedal = self._player.held_after_plan()
        return notes, pedal and not self._player.ledger.keys.pedal

    def _may_play(self, controls: ControlValues) -> bool:
        """Whether mode, ``hold`` and transport allow the machine to play."""
        return controls["mode"] != "listen" and not controls["hold"] and not self.transport_stopped

    def _begin_if_due(self, now: float, controls: ControlValues) -> float | None:
        """Begins a turn that is due. Returns when to call ``work`` again."""
        begin = self._start.next_check(now, controls, may_play=self._may_play(controls))
        if begin is not None and begin <= now:
            self._plan_controls, self._turn = controls, self._start.new_turn(now, controls)
            self.timeline.begin(now)
            self.timeline.floor = self._engine.position  # all of it has sounded
            self._player.begin()
            self._on_state(State.PLAYING)
        return begin

    def _earliest_end(self, controls: ControlValues) -> float:
        """The time from which the turn may end."""
        if controls["mode"] == "solo":
            return math.inf
        end = self._detector.over_at() if controls["mode"] == "duet" else None
        if end is None or (self._turn.requested and end <= self._turn.start):  # a duet without a phrase, after a takeover
            return self._turn.start + self._turn.length
        return max(end, self._turn.start + MIN_REPLY) - EARLY * self._turn.length  # not before the human's phrase may be over

    def _decide_next(self, now: float, controls: ControlValues, own: frozenset[int], own_pedal: bool) -> None:
        """Decides one event and plans it, for a time that is not past when the decision is made."""
        turn, engine = self._turn, self._engine
        self.timeline.begin(now)
        opening = turn.must_play_note(own, engine.last, engine.step)
        earliest = self._decision_times.earliest(now, controls)
        first = opening and not turn.strikes
        immediate = first and controls["mode"] != "duet"  # a reply, a solo or a takeover begins without delay
        if first and turn.first_note_at is not None and turn.first_note_at >= earliest:
            immediate = True
            elapsed = self.timeline.step(turn.first_note_at) - engine.step
        else:
            if immediate and not turn.requested:  # time to decide the other notes of a first chord, which are struck together
                earliest += OPENING_DECISIONS * self._decision_times.expected
            elapsed = math.ceil((earliest - self.timeline.time(engine.step)) * STEPS_PER_SECOND)
        elapsed = max(elapsed, int(turn.simultaneous_events >= MAX_SIMULTANEOUS), 0)
        while elapsed > MAX_WAIT:  # the silence becomes part of the history
            engine.absorb([Event(MAX_WAIT, REST)])
            elapsed -= MAX_WAIT
        if turn.closing is not None:  # the last chord and the pedal are held to the end
            own, own_pedal = own - turn.last_chord(), False
        event = decide(
            engine, controls, self._situation(controls, own, own_pedal, elapsed, opening, immediate), self._seed(controls)
        )
        step = engine.step + event.wait
        due = self._earliest_end(controls)
        if turn.closing is None and turn.may_end(event, step, round(self.timeline.time(step) - due, 6) / turn.length):
            turn.close(engine.step, self.timeline.step(due + OVERTIME * turn.length))  # the event is discarded
        elif turn.closing is not None and step >= turn.closing:
            self._plan_releases(max(earliest, self.timeline.time(turn.closing)))
        else:
            self._plan_event(event)

    def _situation(
        self, controls: ControlValues, own: frozenset[int], own_pedal: bool, elapsed: int, opening: bool, immediate: bool
    ) -> Situation:
        turn, end, step = self._turn, self._detector.over_at(), self._engine.step
        now = self.timeline.time(step)
        pulse = 0.0 if immediate else float(controls["pulse"])
        return Situation(
            own=own,
            own_pedal=own_pedal,
            forbidden=own | self._player.ledger.forbidden,
            elapsed=elapsed,
            opening=opening,
            immediate=immediate,
            closing=turn.closing is not None,
            human_active=controls["mode"] != "respond"
            and end is not None
            and now <= end
            and not opening
            and turn.closing is None,
            strikes=[Strike(one.step, one.event.pitch, one.event.velocity) for one in turn.strikes],
            turn_start=turn.start - self.timeline.time(0),
            call=self._detector.call if controls["mode"] == "duet" else turn.call,
            grid=grid(self._beats, now, step, pulse, self._subdivision.parts()),
        )

    def _plan_event(self, event: Event) -> None:
        """Adds an event to the plan and to the engine's history."""
        one = MachineEvent(next(self._serials), self._engine.position + 1, self._engine.step + event.wait, event)
        self._turn.add(one)
        time, action, velocity = self._to_timed(one)
        self._player.schedule([Planned(time + output_offset(self._controls.snapshot()), one.serial, action, velocity)])
        self._engine.absorb([event])

    def _plan_releases(self, time: float) -> None:
        """Plans the release of all keys at ``time``, and that of the pedal a little later."""
        step = max(self._engine.step, self.timeline.step(time))
        notes, pedal = self._held_after_plan()
        for action in [*(NOTE_OFF + pitch for pitch in sorted(notes)), *([SUSTAIN_UP] if pedal else [])]:
            step += PEDAL_STEPS if action == SUSTAIN_UP else 0
            for event in events_after_gap(step - self._engine.step, action):
                self._plan_event(event)

    def _finish(self, now: float, controls: ControlValues) -> float | None:
        """Ends the turn once the plan has sounded, in a duet not before the human's phrase may be over."""
        if self._player.planned() or (controls["mode"] == "duet" and now < self._earliest_end(controls)):
            return now + 0.02
        self._end_turn(now)
        self._detector.reset()
        return self.work(now)

    def _end_turn(self, now: float) -> None:
        """Ends the machine's turn, if there is one, and releases its notes."""
        released = self._player.interrupt(now)
        self._rewind_to_serial(self._player.sounded)
        self._set_listening()
        self.timeline.absorb(released)

    def _rewind_to_serial(self, serial: int) -> None:
        """Drops the machine's events with later serial numbers from the history."""
        self._rewind(self._turn.position_of(serial))

    def _rewind(self, position: int) -> None:
        self.timeline.rewind(position)
        self._turn.rewind(self._engine.position)

    def _seed(self, controls: ControlValues) -> int:
        seed = int(controls["seed"])
        return seed if seed >= 0 else self._default_seed

    def _set_listening(self) -> None:
        """Ends the player's plan and reports the state."""
        if self._player.end():
            self._on_state(State.LISTENING)
