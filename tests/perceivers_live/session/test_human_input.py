"""What the human does reaches everybody once, and everybody's account of it is the same: the model's, the phrase detector's, the
ledger's and the receiver's. A session without its threads, on a clock that goes on when told.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engine import Engine
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, Timed
from perceivers_live.clock.midi_clock import CONTINUE, START, STOP, TICK
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import ClockSettings, OscSettings, Settings
from perceivers_live.midi.echo import PROOF
from perceivers_live.performer.performer import State
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.session.observers import Observer
from perceivers_live.session.session import Session
from tests.perceivers_live.receiver import Message, Synthesizer
from tests.perceivers_live.toys import Musician, ToyRuntime, steady

NEVER_HELD = 100  # a key of the machine's that nobody else plays
SETTINGS = Settings(osc=OscSettings(enabled=False), clock=ClockSettings("midi"))


class Stage:
    """``now``: monotonic seconds. What is sent comes back as ``returns`` makes it, ``delay`` seconds later; None: it does not."""

    def __init__(self, musician: Musician | None = None, settings: Settings = SETTINGS, **controls: object) -> None:
        self.now = 1000.0
        self.engine = Engine(ToyRuntime(musician or steady()))
        self.port = Synthesizer()
        self.human: list[Timed] = []
        self.controls = Controls({"mode": "listen", **controls})
        self.session = Session(
            self.engine, settings, self.controls, self.port.send, observers=[Observer(human=self.human.append)]
        )

    def hear(self, *messages: Message, every: float = 0.0) -> None:
        for message in messages:
            self.now += every
            self.session.receive(self.now, message)

    def command(self, name: str) -> None:
        self.session.commands()[name]()
        self.perform()

    def perform(self, seconds: float = 0.0) -> None:
        """The performer and the player go on for so long."""
        until = self.now + seconds
        while True:
            due = self.session.performer.work(self.now)
            waiting = self.session.loop.inbox.qsize()
            self.session.loop.handle_next(0)
            times = [time for time in (self.session.player.play_due(self.now), due) if time is not None]
            if not waiting and (not times or min(times) >= until):
                break
            self.now = max(self.now, min(times, default=self.now))
        self.now = max(self.now, until)

    @property
    def playing(self) -> bool:
        return self.session.performer.state is State.PLAYING

    def strike(self, action: int) -> None:
        """The machine plays, by itself."""
        assert self.session.player.ledger.play(action, 80)

    def agree(self) -> None:
        """Everybody says the same of the keys."""
        self.perform()
        held = self.session.keys.held
        assert set(self.engine.sounding.held().tolist()) == held
        assert self.session.performer._detector.held == held
        assert self.engine.sounding.pedal == self.session.keys.pedal


@pytest.mark.parametrize("number", [120, 123, 124, 125, 126, 127])
@pytest.mark.parametrize("channel", [0, 3])
def test_a_channel_mode_message_in_place_of_note_offs_releases_everywhere(number: int, channel: int) -> None:
    stage = Stage(thru=True)
    stage.hear((0x90 | channel, 60, 80), (0xB0 | channel, number, 0))
    stage.agree()
    assert stage.session.keys.held == frozenset()
    assert stage.session.player.ledger.forbidden == frozenset()
    assert stage.port.silent
    assert ((0xB0 | channel, number, 0) in stage.port.messages) == (channel != 0)  # never raw where the machine plays


def test_thru_that_is_switched_off_meanwhile_leaves_nothing_hanging() -> None:
    stage = Stage(thru=True)
    down: list[Message] = [(0x90, 60, 80), (0xB0, 64, 127), (0xB0, 66, 127), (0xB0, 67, 100)]
    down += [(0xE0, 0, 90), (0xD0, 50), (0xA0, 60, 9), (0xB0, 1, 7)]
    stage.hear(*down)
    stage.controls.set("thru", False)
    stage.hear((0x90, 62, 80), (0xB0, 65, 127), (0xB0, 7, 50), (0xB0, 64, 90), (0xE0, 0, 80))  # nothing new begins
    assert stage.port.messages == down
    rest = [(0xB0, 66, 0), (0xB0, 67, 0), (0xE0, 0, 64), (0xD0, 0), (0xA0, 60, 0), (0xB0, 1, 0)]
    stage.hear((0xB0, 64, 20), *rest, (0xB0, 123, 0))
    rest = [(0xB0, 64, 0), *rest, (0x80, 60, 64)]
    assert stage.port.messages[len(down) :] == rest
    assert stage.session.keys.held == frozenset()


@pytest.mark.parametrize("number", [121, 64])
def test_the_pedal_that_resetting_the_controllers_lifts_is_up_everywhere(number: int) -> None:
    stage = Stage(thru=True)
    stage.strike(SUSTAIN_DOWN)
    stage.hear((0xB0, 64, 127), (0xB0, number, 0))
    stage.agree()
    assert not stage.session.keys.pedal
    assert not stage.session.player.ledger.pedal
    assert not stage.port.pedals


@pytest.mark.parametrize("number", [120, 121, 122, 123, 124, 125, 126, 127])
def test_what_concerns_a_channel_does_not_concern_the_machines_notes_on_it(number: int) -> None:
    stage = Stage(thru=True)
    stage.hear((0x90, 60, 80))
    stage.strike(NOTE_ON + 72)
    stage.strike(SUSTAIN_DOWN)
    stage.hear((0x80, 60, 64), (0xB0, number, 0))
    assert (0xB0, number, 0) not in stage.port.messages
    assert (stage.port.sounding, stage.port.pedals) == ({(0, 72)}, {0})
    assert (stage.session.player.ledger.notes, stage.session.player.ledger.pedal) == ({72}, True)


def test_a_foot_that_only_rests_on_the_pedal_does_not_lift_the_machines() -> None:
    stage = Stage(thru=True)
    stage.strike(SUSTAIN_DOWN)
    stage.hear((0xB0, 64, 20), (0xB0, 64, 0), (0xB0, 64, 30))
    assert stage.port.pedals == {0}
    assert stage.session.player.ledger.close() != []
    assert stage.port.messages[-1] == (0xB0, 64, 30)  # back to where the foot has it


@pytest.mark.parametrize("after", [0.02, 0.05, 0.09])
def test_the_humans_pedal_just_after_the_machines_counts(after: float) -> None:
    stage = Stage()
    stage.strike(SUSTAIN_DOWN)
    stage.hear((0xB0, 64, 127), every=after)
    stage.agree()
    assert stage.session.keys.pedal
    assert not stage.session.player.ledger.play(257)  # the foot is on it


def test_a_key_struck_quickly_is_heard_and_passed_on_every_time() -> None:
    stage = Stage(thru=True)
    played = [message for _ in range(60) for message in ((0x90, 60, 80), (0x80, 60, 64))]
    stage.hear(*played, every=0.03)
    assert stage.port.messages == played
    assert [one.action for one in stage.human] == [NOTE_ON + 60, NOTE_OFF + 60] * 60


def test_a_contact_that_bounces_leaves_the_pedal_down() -> None:
    stage = Stage(thru=True)
    stage.hear((0xB0, 64, 127), (0xB0, 64, 0), (0xB0, 64, 127), every=0.002)
    stage.agree()
    assert stage.session.keys.pedal
    assert stage.port.pedals == {0}


def test_pressure_between_the_strikes_of_a_key_costs_nothing() -> None:
    stage = Stage(thru=True)
    strikes = {20: (0x90, 60, 80), 26: (0x80, 60, 64), 30: (0x90, 60, 80), 34: (0x80, 60, 64)}
    played = [message for i in range(60) for message in ([strikes[i]] if i in strikes else []) + [(0xD0, i * 7 % 128)]]
    stage.hear(*played, every=0.005)
    assert stage.port.messages == played
    assert stage.port.silent


def test_a_layered_keyboard_strikes_each_key_once() -> None:
    stage = Stage(thru=True)
    played: list[Message] = []
    for i in range(8):
        played += [(0x90, 60 + i, 80), (0x91, 60 + i, 80), (0x80, 60 + i, 64), (0x81, 60 + i, 64)]
    stage.hear(*played, every=0.0006)
    assert [one.action for one in stage.human if one.action < NOTE_OFF] == [60 + i for i in range(8)]
    assert stage.port.messages == played
    stage.agree()


@pytest.mark.parametrize("command", ["panic", "forget"])
def test_a_key_whose_note_off_never_came_is_free_after_a_command(command: str) -> None:
    stage = Stage(thru=True)
    stage.hear((0x90, 60, 80), (0xB0, 64, 127))
    stage.command(command)
    assert stage.session.keys.held == stage.session.player.ledger.forbidden == frozenset()
    assert stage.port.silent
    stage.agree()
    assert stage.session.player.ledger.play(NOTE_ON + 60, 80)


def test_what_was_held_on_an_input_that_is_lost_is_let_go() -> None:
    stage = Stage(thru=True)
    stage.hear((0x90, 60, 80), (0x92, 62, 80), (0xB0, 64, 127), (0xB2, 66, 127))
    stage.session.input_lost(stage.now + 1)
    stage.agree()
    assert stage.session.keys.held == frozenset()
    assert stage.port.silent
    assert (0xB2, 66, 0) in stage.port.messages


def test_a_stop_means_silence_though_no_start_was_heard() -> None:
    stage = Stage(mode="solo")
    stage.hear(*[(TICK,)] * 24, every=0.02)
    stage.perform(2.0)
    assert stage.playing
    stage.hear((STOP,))
    assert stage.port.silent
    stage.perform(5.0)
    assert not stage.playing


@pytest.mark.parametrize("begin", [START, CONTINUE])
def test_what_was_played_while_the_transport_stood_is_no_call_when_it_starts(begin: int) -> None:
    stage = Stage(mode="respond")
    stage.hear((START,), (TICK,), (STOP,))
    stage.hear(*[(0x90 - i % 2 * 0x10, 60 + i // 2, 80) for i in range(8)], every=0.2)
    stage.perform(60.0)
    stage.hear((begin,))
    stage.perform(10.0)
    assert not stage.port.messages
    stage.hear(*[(0x90 - i % 2 * 0x10, 60 + i // 2, 80) for i in range(8)], every=0.2)
    stage.perform(3.0)
    assert stage.port.note_ons


@pytest.mark.parametrize("delay", [0.002, 0.15])
@pytest.mark.parametrize("channel", [0, 4])
def test_a_machine_that_hears_itself_stops_answering_itself(delay: float, channel: int, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(mode="respond", lookahead_ms=100)
    back: list[tuple[float, Message]] = []
    stage.session.output._send = lambda message: back.append((stage.now + delay, (message[0] & 0xF0 | channel, *message[1:])))
    stage.session.echo.sent = _on_the_stages_clock(stage, stage.session.echo.sent)  # type: ignore[method-assign]
    stage.hear((0x90, 60, 80))
    stage.hear((0x80, 60, 64), every=0.3)
    for _ in range(60 * 500):
        stage.perform(0.002)
        while back and back[0][0] <= stage.now:
            stage.hear(back.pop(0)[1])
    assert stage.session.echo.established
    assert sum("comes back on the input" in record.message for record in caplog.records) == 1
    assert len(stage.human) <= PROOF + 4  # the call, what it takes to prove the loop, and releases of what was heard
    assert not stage.session.keys.held


def _on_the_stages_clock(stage: Stage, sent: Callable[..., None]) -> Callable[..., None]:
    def told(_: float, message: Message, *, own: bool = True) -> None:
        sent(stage.now, message, own=own)

    return told


# --- any playing -----------------------------------------------------------------------------------------------------

KEYS = st.integers(60, 63)
CHANNELS = st.sampled_from([0, 0, 1])


def message(kind: int, *data: st.SearchStrategy[int]) -> st.SearchStrategy[Message]:
    return st.tuples(CHANNELS.map(lambda channel: kind | channel), *data)


MESSAGES = st.one_of(
    message(0x90, KEYS, st.sampled_from([0, 40, 100])),
    message(0x80, KEYS, st.just(64)),
    message(0xB0, st.just(64), st.sampled_from([0, 30, 60, 66, 127])),
    message(0xB0, st.sampled_from([1, 7, 66, 120, 121, 122, 123, 124, 126, 127]), st.sampled_from([0, 127])),
    message(0xA0, KEYS, st.integers(0, 2)),
    message(0xC0, st.integers(0, 3)),
    message(0xD0, st.integers(0, 2)),
    message(0xE0, st.just(0), st.integers(63, 65)),
)
STEPS = st.one_of(MESSAGES, MESSAGES, MESSAGES, st.sampled_from(["panic", "forget", "lost", "thru", "machine", "pedal", "close"]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.02, 0.1]), STEPS), max_size=40), st.booleans())
def test_whatever_happens_all_accounts_agree_and_nothing_hangs(steps: list[tuple[float, Message | str]], thru: bool) -> None:
    stage = Stage(thru=thru)
    ledger = stage.session.player.ledger
    for wait, step in steps:
        stage.now += wait
        if not isinstance(step, str):
            stage.hear(step)
        elif step in ("panic", "forget"):
            stage.command(step)
        elif step == "lost":
            stage.session.input_lost(stage.now)
        elif step == "thru":
            stage.controls.set("thru", not stage.controls.get("thru"))
        elif step == "close":
            ledger.close(stage.now)
        else:
            ledger.play(SUSTAIN_DOWN if step == "pedal" else NOTE_ON + 61, 80)
        assert {(0, sent) for sent in ledger.notes} <= stage.port.sounding, "a note of the machine's was cut"
        assert not ledger.pedal or 0 in stage.port.pedals, "the machine's pedal was lifted"
        assert stage.session.keys.held.isdisjoint(ledger.notes)
        stage.agree()
    stage.session.input_lost(stage.now)
    ledger.close(stage.now)
    assert stage.session.keys.held == frozenset()
    assert stage.port.silent


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.05]), MESSAGES), max_size=60), st.booleans())
def test_any_playing_is_heard_and_passed_on_exactly_once(played: list[tuple[float, Message]], thru: bool) -> None:
    """Beside a machine that plays what nobody else does."""
    played = [(wait, one) for wait, one in played if one[0] & 0xF0 != 0xB0 or one[1] < 120]  # those are carried out instead
    stage, alone = Stage(thru=thru), HumanKeys()
    expected: list[Message] = []
    heard: list[Timed] = []
    for index, (wait, one) in enumerate(played):
        if index % 3 == 0:
            stage.strike(NOTE_OFF + NEVER_HELD if stage.session.player.ledger.notes else NOTE_ON + NEVER_HELD)
            expected.append(stage.port.messages[-1])
        stage.hear(one, every=wait)
        heard += alone.feed(stage.now, one)
        expected += [one] if thru else []
    assert stage.port.messages == expected
    assert stage.human == heard
    assert stage.session.keys.held == alone.held
