"""Random sequences of playing, control changes, commands, delays of the performer and faults of the engine: the guarantees hold
in any order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.engine import RECENT
from engine.events import NOTE_OFF, NOTE_ON, REST, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.runtimes import SamplingBias
from perceivers_live.clock.midi_clock import Transport
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Control
from perceivers_live.performer.performer import SavedState
from perceivers_live.player.player import Phase
from tests.perceivers_live.receiver import unbalanced
from tests.perceivers_live.toys import Musician, improviser, restless, steady
from tests.perceivers_live.virtual_session import VirtualSession, absolute, fresh

MUSICIANS = [improviser, restless, steady(), steady(7, (64, 65, 67, 69), chord=3), steady(9, pedal=True)]
MODES = st.sampled_from(["respond", "duet", "solo", "listen"])
KEYS = st.integers(55, 75)


def values(control: Control) -> st.SearchStrategy[object]:
    """Values of a control; the ends of its range are frequent."""
    if control.kind == "choice":
        return st.sampled_from(control.choices)
    if control.kind == "switch":
        return st.booleans()
    between = st.integers(int(control.low), int(control.high)) if control.kind == "int" else st.floats(control.low, control.high)
    return st.sampled_from([control.low, control.default, control.high]) | between


TURNS = st.one_of([st.tuples(st.just(name), values(control)) for name, control in CONTROLS.items()])


class Performance(RuleBasedStateMachine):
    """A human, a performer, and random events."""

    @initialize(musician=st.sampled_from(MUSICIANS), seed=st.integers(0, 99), mode=MODES)
    def begin(self, musician: Musician, seed: int, mode: str) -> None:
        self.session = VirtualSession(musician, {"mode": mode}, seed=seed)
        self.saved: tuple[SavedState, list[Timed]] | None = None
        self.unplugged = self.failed = False  # whether the output fails, and whether it ever did
        self.stopped = False

    def do(self, action: Callable[[], object]) -> None:
        """Runs an action on the performer's thread, after all pending input and with recovery from faults, as in a session."""
        for one in (self.session.catch_up, action):
            try:
                one()
            except RuntimeError:
                self.recover()

    def do_first(self, action: Callable[[], object]) -> None:
        """Runs an action on the performer's thread before the pending input is processed."""

        def do() -> None:
            try:
                action()
            except RuntimeError:
                self.recover()

        self.session.work_first(do)

    @property
    def silent(self) -> bool:
        """Whether the receiver is silent or cannot be reached."""
        return self.session.port.silent or self.unplugged

    def recover(self) -> None:
        while True:
            try:
                self.session.performer.recover(self.session.now)
            except RuntimeError:
                continue
            break
        assert self.silent
        assert not self.session.replying

    def command(self, method: Callable[[float], None]) -> None:
        self.do(lambda: self.session.command(method))

    # Time passes.

    def run(self, until: float) -> None:
        """The performer works until a time, or until input has come meanwhile."""
        self.do(lambda: self.session.run(until, stop=lambda: self.session.has_pending))

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.2, 0.7, 3.0]))
    def wait(self, seconds: float) -> None:
        until = self.session.now + seconds
        while self.session.now < until:
            self.run(until)
        controls = self.session.controls
        assert self.silent or not (self.stopped or controls.get("hold") or controls.get("mode") == "listen")

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.5, 1.4, 2.0]))
    def stall(self, seconds: float) -> None:
        """The performer is busy or delayed; the player is not."""
        self.session.now += seconds
        self.session.player.play_due(self.session.now)

    @rule()
    def work(self) -> None:
        """The performer does a piece of work before it processes the input that arrived just before."""

        self.do_first(lambda: self.session.performer.work(self.session.now))
        self.do(self.session.catch_up)

    @precondition(lambda self: self.session.controls.get("mode") in ("duet", "solo"))  # in other modes the input ends the turn
    @rule(seconds=st.sampled_from([0.0, 0.02, 0.2]), working=st.booleans())
    def process_one_input(self, seconds: float, working: bool) -> None:
        """The performer processes only the first of several pending actions of the human, and then continues."""
        self.do_first(self.session.catch_up_with_one)
        if working:
            self.do_first(lambda: self.session.performer.work(self.session.now))
        self.stall(seconds)

    # The human plays.

    def play(self, action: int, velocity: int, busy: bool) -> None:
        one = Timed(self.session.now, action, velocity)
        if busy:
            self.session.receive_while_busy(one)
        else:
            self.run(self.session.now)
            while self.session.has_pending:
                self.run(self.session.now)
            self.do(lambda: self.session.receive(one))

    @rule(pitch=KEYS, velocity=st.integers(1, 127), busy=st.booleans())
    def key(self, pitch: int, velocity: int, busy: bool) -> None:
        down = pitch in self.session.keys
        self.play((NOTE_OFF if down else NOTE_ON) + pitch, 0 if down else velocity, busy)
        assert pitch not in {sounding for _, sounding in self.session.port.sounding} or down or self.unplugged

    @rule(pitch=KEYS, velocity=st.integers(1, 127), seconds=st.sampled_from([0.0, 0.003, 0.02, 0.1]))
    def key_during_the_next_decision(self, pitch: int, velocity: int, seconds: float) -> None:
        """Seconds after its begin; the decision ends just then."""
        runtime = self.session.runtime

        def decide(position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
            del runtime.decide
            drawn = runtime.decide(position, bias)
            self.stall(seconds)
            self.key(pitch, velocity, busy=True)
            return drawn

        runtime.decide = decide  # type: ignore[method-assign]

    @rule(busy=st.booleans())
    def sustain_pedal(self, busy: bool) -> None:
        self.play(SUSTAIN_UP if self.session.pedal else SUSTAIN_DOWN, 0, busy)

    @rule(pitch=KEYS, gap=st.sampled_from([0.05, 0.2]), count=st.integers(3, 6))
    def phrase(self, pitch: int, gap: float, count: int) -> None:
        for _ in range(count):
            for down in (True, False):
                if down != (pitch in self.session.keys):
                    self.play((NOTE_ON if down else NOTE_OFF) + pitch, 64 if down else 0, False)
                self.wait(gap / 2)

    @precondition(lambda self: self.session.keys)
    @rule()
    def release_keys(self) -> None:
        for pitch in sorted(self.session.keys):
            self.play(NOTE_OFF + pitch, 0, False)

    # Controls and commands.

    @rule(turn=TURNS)
    def turn(self, turn: tuple[str, object]) -> None:
        self.session.controls.set(*turn)

    @rule(mode=MODES)
    def switch(self, mode: str) -> None:
        self.session.controls.set("mode", mode)

    @rule()
    def takeover(self) -> None:
        self.command(self.session.performer.takeover)

    @rule()
    def yield_turn(self) -> None:
        self.command(self.session.performer.yield_turn)
        assert self.silent

    @rule()
    def panic(self) -> None:
        interruption = self.session.performer.interrupt(self.session.now)
        self.session.player.ledger.reset()
        assert not self.session.port.sounding or self.unplugged
        self.do(lambda: self.session.performer.absorb_input([interruption]))
        self.command(self.session.performer.yield_turn)

    @rule(change=st.sampled_from(Transport))
    def transport(self, change: Transport) -> None:
        self.command(lambda now: self.session.performer.transport(change, now))
        if change is not Transport.MOVED:
            self.stopped = change is Transport.STOPPED
        assert self.silent or not self.stopped

    @rule()
    def forget(self) -> None:
        self.command(self.session.performer.forget)
        self.session.sounded.clear()
        assert self.silent
        assert self.session.history() == []

    @rule()
    def save(self) -> None:
        def save() -> None:
            saved_state = self.session.performer.saved_state(self.session.now)
            sounded = [Timed(0.0, action, 0) for _, action, _ in self.session.expected()]
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
        session = self.session
        session.runtime.failures = 0  # otherwise its progress would be unknown
        self.command(lambda now: session.performer.recall(saved_state, now))
        still = saved_state.snapshot.moments[-1].sounding
        hanging = [NOTE_OFF + int(pitch) for pitch in still.held() if pitch not in session.keys]
        hanging += [SUSTAIN_UP] if still.pedal and not session.pedal else []
        session.sounded[:] = [*sounded, *(Timed(session.now, action) for action in hanging)]
        assert self.silent

    # Faults.

    @rule(count=st.integers(1, 4))
    def fault(self, count: int) -> None:
        """The next steps and decisions of the engine fail."""
        self.session.runtime.failures = count

    @rule()
    def unplug(self) -> None:
        """From now on nothing can be sent."""
        self.session.port.fails = lambda _: True
        self.unplugged = self.failed = True

    @precondition(lambda self: self.unplugged)
    @rule()
    def plug(self) -> None:
        """The output works again, and is silenced, as in a session."""
        self.session.port.fails = lambda _: False
        self.unplugged = False
        violations = list(self.session.violations)
        released = self.session.performer.release_all(self.session.now)
        self.session.player.ledger.reset_channel(self.session.port.send)
        self.session.violations[:] = violations  # everything is released, and the human's pedal too
        assert self.silent
        self.do(lambda: self.session.performer.absorb_input([released]))

    # Invariants.

    @invariant()
    def notes_are_balanced(self) -> None:
        session = self.session
        messages = [m for m in session.port.messages if m[0] < 0xB0]
        allowed = ("never", "silent") if self.failed else ("never",)  # a note-on may have failed, but not its note-off
        assert not [fault for fault in unbalanced(messages) if not any(word in fault for word in allowed)]
        sounding, notes = {pitch for _, pitch in session.port.sounding}, set(session.player.ledger._notes.values())
        assert sounding == notes or self.failed
        assert sounding <= notes | {action - NOTE_OFF for action in session.player.ledger._unsent}
        assert session.replying or self.silent
        assert all(0 <= byte < 128 for message in session.port.messages for byte in message[1:])

    @invariant()
    def human_keys_are_untouched(self) -> None:
        assert self.session.violations == []
        assert self.session.player.ledger.keys.held == self.session.keys
        assert self.session.player.ledger.keys.pedal == self.session.pedal

    @invariant()
    def output_is_in_order_and_never_early(self) -> None:
        times = [one.time for one in self.session.machine]
        assert times == sorted(times)
        assert all(at >= one.time for at, one in self.session.sent_at)

    @invariant()
    def history_is_what_sounded(self) -> None:
        """The history is what sounded, followed by the plan and nothing else."""
        session = self.session
        if not session._pending and session.player.phase is not Phase.DROPPED:
            planned = [one.action for one in session.player._plan if one.action != REST]
            history = actions(session.history())
            assert history == (actions(session.expected()) + planned)[-len(history) or None :]
            assert len(history) == len(planned) + len(session.expected()) or session.engine.position > RECENT

    def teardown(self) -> None:
        """At the end a takeover makes the machine play once more."""
        if not hasattr(self, "session"):
            return
        session = self.session
        session.runtime.failures = 0
        vars(session.runtime).pop("decide", None)  # of ``key_during_the_next_decision``
        if self.unplugged:
            self.plug()
        self.command(session.performer.yield_turn)
        self.history_is_what_sounded()
        assert (
            np.array_equal(fresh(session.engine._history).hidden(), session.engine.hidden()) or session.engine.position > RECENT
        )
        self.release_keys()
        for name, control in CONTROLS.items():
            session.controls.set(name, control.default)
        self.command(lambda now: session.performer.transport(Transport.STARTED, now))
        count = len(session.port.note_ons)
        self.command(session.performer.takeover)
        self.do(lambda: session.run(session.now + 2.0))
        assert len(session.port.note_ons) > count
        self.command(session.performer.yield_turn)
        assert session.port.silent
        assert unbalanced(m for m in session.port.messages if m[0] < 0xB0) == [] or self.failed
        assert session.engine.sounding.held().tolist() == []
        self.human_keys_are_untouched()


def actions(history: list[tuple[int, int, int]]) -> list[int]:
    return [action for _, action, _ in history]


TestPerformance = Performance.TestCase
TestPerformance.settings = settings(max_examples=max(200, settings.default.max_examples))
