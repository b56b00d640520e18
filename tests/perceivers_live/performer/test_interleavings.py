"""Whatever the human does, whatever is turned and commanded, however late the performer comes and however the engine fails, in
any order: the promises hold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.engine import RECENT
from engine.events import NOTE_OFF, NOTE_ON, REST, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.clock.midi_clock import Transport
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Control
from perceivers_live.performer.performer import SavedState
from perceivers_live.player.player import Phase
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.toys import Musician, improviser, restless, steady
from tests.perceivers_live.virtual_stage import Stage, absolute, fresh

MUSICIANS = [improviser, restless, steady(), steady(7, (64, 65, 67, 69), chord=3), steady(9, pedal=True)]
MODES = st.sampled_from(["respond", "duet", "solo", "listen"])
KEYS = st.integers(55, 75)


def values(control: Control) -> st.SearchStrategy[object]:
    """What a control may be turned to; the ends of its range more often than not."""
    if control.kind == "choice":
        return st.sampled_from(control.choices)
    if control.kind == "switch":
        return st.booleans()
    between = st.integers(int(control.low), int(control.high)) if control.kind == "int" else st.floats(control.low, control.high)
    return st.sampled_from([control.low, control.default, control.high]) | between


TURNS = st.one_of([st.tuples(st.just(name), values(control)) for name, control in CONTROLS.items()])


class Performance(RuleBasedStateMachine):
    """A human, a performer, and whatever may happen between them."""

    @initialize(musician=st.sampled_from(MUSICIANS), seed=st.integers(0, 99), mode=MODES)
    def begin(self, musician: Musician, seed: int, mode: str) -> None:
        self.stage = Stage(musician, {"mode": mode}, seed=seed)
        self.saved: tuple[SavedState, list[Timed]] | None = None
        self.unplugged = self.failed = False  # whether the output fails, and whether it ever did
        self.stopped = False

    def do(self, action: Callable[[], object]) -> None:
        """On the performer's thread: it has heard everything before, and recovers from faults, as a session does."""
        for one in (self.stage.catch_up, action):
            try:
                one()
            except RuntimeError:
                self.recover()

    def do_first(self, action: Callable[[], object]) -> None:
        """On the performer's thread, before it has heard everything."""

        def do() -> None:
            try:
                action()
            except RuntimeError:
                self.recover()

        self.stage.work_first(do)

    @property
    def silent(self) -> bool:
        """Whether the receiver is silent, or cannot be reached."""
        return self.stage.port.silent or self.unplugged

    def recover(self) -> None:
        while True:
            try:
                self.stage.performer.recover(self.stage.now)
            except RuntimeError:
                continue
            break
        assert self.silent
        assert not self.stage.replying

    def command(self, method: Callable[[float], None]) -> None:
        self.do(lambda: self.stage.command(method))

    # Time passes.

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.2, 0.7, 3.0]))
    def wait(self, seconds: float) -> None:
        until = self.stage.now + seconds
        while self.stage.now < until:
            self.do(lambda: self.stage.run(until))
        controls = self.stage.controls
        assert self.silent or not (self.stopped or controls.get("hold") or controls.get("mode") == "listen")

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.5, 1.4, 2.0]))
    def stall(self, seconds: float) -> None:
        """The performer is busy or held up; the player is not."""
        self.stage.now += seconds
        self.stage.player.play_due(self.stage.now)

    @rule()
    def work(self) -> None:
        """The performer does a piece of work that it was about to do when something was heard, and only then hears it."""

        self.do_first(lambda: self.stage.performer.work(self.stage.now))
        self.do(self.stage.catch_up)

    @precondition(lambda self: self.stage.controls.get("mode") in ("duet", "solo"))  # else what is heard ends the turn
    @rule(seconds=st.sampled_from([0.0, 0.02, 0.2]), working=st.booleans())
    def hear_one(self, seconds: float, working: bool) -> None:
        """The performer hears of the first thing that the human has done, more having happened since; and then goes on."""
        self.do_first(self.stage.catch_up_with_one)
        if working:
            self.do_first(lambda: self.stage.performer.work(self.stage.now))
        self.stall(seconds)

    # The human plays.

    def play(self, action: int, velocity: int, busy: bool) -> None:
        one = Timed(self.stage.now, action, velocity)
        if busy:
            self.stage.strike(one)
        else:
            self.do(lambda: self.stage.run(self.stage.now))
            self.do(lambda: self.stage.hear(one))

    @rule(pitch=KEYS, velocity=st.integers(1, 127), busy=st.booleans())
    def key(self, pitch: int, velocity: int, busy: bool) -> None:
        down = pitch in self.stage.keys
        self.play((NOTE_OFF if down else NOTE_ON) + pitch, 0 if down else velocity, busy)
        assert pitch not in {sounding for _, sounding in self.stage.port.sounding} or down or self.unplugged

    @rule(busy=st.booleans())
    def foot(self, busy: bool) -> None:
        self.play(SUSTAIN_UP if self.stage.pedal else SUSTAIN_DOWN, 0, busy)

    @rule(pitch=KEYS, gap=st.sampled_from([0.05, 0.2]), count=st.integers(3, 6))
    def phrase(self, pitch: int, gap: float, count: int) -> None:
        for _ in range(count):
            for down in (True, False):
                if down != (pitch in self.stage.keys):
                    self.play((NOTE_ON if down else NOTE_OFF) + pitch, 64 if down else 0, False)
                self.wait(gap / 2)

    @precondition(lambda self: self.stage.keys)
    @rule()
    def let_go(self) -> None:
        for pitch in sorted(self.stage.keys):
            self.play(NOTE_OFF + pitch, 0, False)

    # Someone steers.

    @rule(turn=TURNS)
    def turn(self, turn: tuple[str, object]) -> None:
        self.stage.controls.set(*turn)

    @rule(mode=MODES)
    def switch(self, mode: str) -> None:
        self.stage.controls.set("mode", mode)

    @rule()
    def takeover(self) -> None:
        self.command(self.stage.performer.takeover)

    @rule()
    def give_way(self) -> None:
        self.command(self.stage.performer.yield_turn)
        assert self.silent

    @rule()
    def panic(self) -> None:
        hushed = self.stage.performer.interrupt(self.stage.now)
        self.stage.player.ledger.reset()
        assert not self.stage.port.sounding or self.unplugged
        self.do(lambda: self.stage.performer.absorb_input([hushed]))
        self.command(self.stage.performer.yield_turn)

    @rule(change=st.sampled_from(Transport))
    def transport(self, change: Transport) -> None:
        self.command(lambda now: self.stage.performer.transport(change, now))
        if change is not Transport.MOVED:
            self.stopped = change is Transport.STOPPED
        assert self.silent or not self.stopped

    @rule()
    def forget(self) -> None:
        self.command(self.stage.performer.forget)
        self.stage.sounded.clear()
        assert self.silent
        assert self.stage.history() == []

    @rule()
    def save(self) -> None:
        def save() -> None:
            saved_state = self.stage.performer.saved_state(self.stage.now)
            sounded = [Timed(0.0, action, 0) for _, action, _ in self.stage.expected()]
            assert (
                actions(absolute(saved_state.snapshot.history))
                == [one.action for one in sounded][-len(saved_state.snapshot.history) :]
            )
            self.saved = saved_state, sounded

        self.do(save)

    @precondition(lambda self: self.saved)
    @rule()
    def recall(self) -> None:
        assert self.saved is not None
        saved_state, sounded = self.saved
        stage = self.stage
        stage.runtime.failures = 0  # or there would be no saying how far it got
        self.command(lambda now: stage.performer.recall(saved_state, now))
        still = saved_state.snapshot.moments[-1].sounding
        hanging = [NOTE_OFF + int(pitch) for pitch in still.held() if pitch not in stage.keys]
        hanging += [SUSTAIN_UP] if still.pedal and not stage.pedal else []
        stage.sounded[:] = [*sounded, *(Timed(stage.now, action) for action in hanging)]
        assert self.silent

    # Something breaks.

    @rule(count=st.integers(1, 4))
    def fault(self, count: int) -> None:
        """The coming steps and decisions of the engine fail."""
        self.stage.runtime.failures = count

    @rule()
    def unplug(self) -> None:
        """From here on nothing can be sent."""
        self.stage.port.fails = lambda _: True
        self.unplugged = self.failed = True

    @precondition(lambda self: self.unplugged)
    @rule()
    def plug(self) -> None:
        """The output works again, and is silenced, as in a session."""
        self.stage.port.fails = lambda _: False
        self.unplugged = False
        trespasses = list(self.stage.trespasses)
        released = self.stage.performer.release_all(self.stage.now)
        self.stage.player.ledger.reset_channel(self.stage.port.send)
        self.stage.trespasses[:] = trespasses  # everything is released, and the human's pedal too
        assert self.silent
        self.do(lambda: self.stage.performer.absorb_input([released]))

    # What must hold.

    @invariant()
    def the_account_balances(self) -> None:
        stage = self.stage
        messages = [m for m in stage.port.messages if m[0] < 0xB0]
        allowed = ("never", "silent") if self.failed else ("never",)  # a note-on may have failed, but not its note-off
        assert not [fault for fault in unbalanced(messages) if not any(word in fault for word in allowed)]
        sounding, notes = {pitch for _, pitch in stage.port.sounding}, set(stage.player.ledger._notes.values())
        assert sounding == notes or self.failed
        assert sounding <= notes | {action - NOTE_OFF for action in stage.player.ledger._unsent}
        assert stage.replying or self.silent
        assert all(0 <= byte < 128 for message in stage.port.messages for byte in message[1:])

    @invariant()
    def what_the_human_holds_is_left_alone(self) -> None:
        assert self.stage.trespasses == []
        assert self.stage.player.ledger.keys.held == self.stage.keys
        assert self.stage.player.ledger.keys.pedal == self.stage.pedal

    @invariant()
    def output_is_in_order_and_never_early(self) -> None:
        times = [one.time for one in self.stage.machine]
        assert times == sorted(times)
        assert all(at >= one.time for at, one in self.stage.sent_at)

    @invariant()
    def what_sounded_is_remembered(self) -> None:
        """Whatever is planned comes after it, and nothing else."""
        stage = self.stage
        if not stage._untold and stage.player.phase is not Phase.DROPPED:
            planned = [one.action for one in stage.player._plan if one.action != REST]
            history = actions(stage.history())
            assert history == (actions(stage.expected()) + planned)[-len(history) or None :]
            assert len(history) == len(planned) + len(stage.expected()) or stage.engine.position > RECENT

    def teardown(self) -> None:
        """At the end the machine is told to play once more, and does."""
        if not hasattr(self, "stage"):
            return
        stage = self.stage
        stage.runtime.failures = 0
        if self.unplugged:
            self.plug()
        self.command(stage.performer.yield_turn)
        self.what_sounded_is_remembered()
        assert np.array_equal(fresh(stage.engine._history).hidden(), stage.engine.hidden()) or stage.engine.position > RECENT
        self.let_go()
        for name, control in CONTROLS.items():
            stage.controls.set(name, control.default)
        self.command(lambda now: stage.performer.transport(Transport.STARTED, now))
        count = len(stage.port.note_ons)
        self.command(stage.performer.takeover)
        self.do(lambda: stage.run(stage.now + 2.0))
        assert len(stage.port.note_ons) > count
        self.command(stage.performer.yield_turn)
        assert stage.port.silent
        assert unbalanced(m for m in stage.port.messages if m[0] < 0xB0) == [] or self.failed
        assert stage.engine.sounding.held().tolist() == []
        self.what_the_human_holds_is_left_alone()


def actions(history: list[tuple[int, int, int]]) -> list[int]:
    return [action for _, action, _ in history]


TestPerformance = Performance.TestCase
TestPerformance.settings = settings(max_examples=max(200, settings.default.max_examples))
