"""The human's input reaches each component once, and all components agree on it: the model, the phrase detector, the ledger and
the receiver. The session runs without its threads, on a manually advanced clock.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engine import Engine
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, Timed
from perceivers_live.clock.midi_clock import CONTINUE, SONG_POSITION, START, STOP, TICK
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import ClockSettings, OscSettings, Settings
from perceivers_live.midi.echo import PROOF
from perceivers_live.performer.performer import State
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.session.observers import Observer
from perceivers_live.session.session import Session
from tests.perceivers_live.receiver import Message, Synthesizer
from tests.perceivers_live.toys import Musician, ToyRuntime, steady

NEVER_HELD = 100  # a key that only the machine plays
SETTINGS = Settings(osc=OscSettings(enabled=False), clock=ClockSettings("midi"))


class InputHarness:
    """A session without its threads. ``now``: monotonic seconds."""

    def __init__(self, musician: Musician | None = None, settings: Settings = SETTINGS, **controls: object) -> None:
        self.now = 1000.0
        self.engine = Engine(ToyRuntime(musician or steady()))
        self.port = Synthesizer()
        self.human: list[Timed] = []
        self.controls = Controls({"mode": "listen", **controls})
        self.session = Session(
            self.engine, settings, self.controls, self.port.send, observers=[Observer(human=self.human.append)]
        )

    def receive(self, *messages: Message, every: float = 0.0) -> None:
        for message in messages:
            self.now += every
            self.session.receive(self.now, message)

    def command(self, name: str) -> None:
        self.session.commands()[name]()
        self.run()

    def run(self, seconds: float = 0.0) -> None:
        """Runs the performer and the player for ``seconds``."""
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

    def machine_plays(self, action: int) -> None:
        """The machine plays an action."""
        assert self.session.player.ledger.play(action, 80)

    def check_agreement(self) -> None:
        """Checks that all components agree on keys and pedal."""
        self.run()
        held = self.session.keys.held
        assert set(self.engine.sounding.held().tolist()) == held
        assert self.session.performer._detector.held == held
        assert self.engine.sounding.pedal == self.session.keys.pedal


@pytest.mark.parametrize("number", [120, 123, 124, 125, 126, 127])
@pytest.mark.parametrize("channel", [0, 3])
def test_channel_mode_message_releases_keys_in_all_components(number: int, channel: int) -> None:
    harness = InputHarness(thru=True)
    harness.receive((0x90 | channel, 60, 80), (0xB0 | channel, number, 0))
    harness.check_agreement()
    assert harness.session.keys.held == frozenset()
    assert harness.session.player.ledger.forbidden == frozenset()
    assert harness.port.silent
    assert ((0xB0 | channel, number, 0) in harness.port.messages) == (channel != 0)  # not forwarded on the machine's channel


def test_switching_thru_off_leaves_no_hanging_note() -> None:
    harness = InputHarness(thru=True)
    down: list[Message] = [(0x90, 60, 80), (0xB0, 64, 127), (0xB0, 66, 127), (0xB0, 67, 100)]
    down += [(0xE0, 0, 90), (0xD0, 50), (0xA0, 60, 9), (0xB0, 1, 7)]
    harness.receive(*down)
    harness.controls.set("thru", False)
    harness.receive((0x90, 62, 80), (0xB0, 65, 127), (0xB0, 7, 50), (0xB0, 64, 90), (0xE0, 0, 80))  # nothing new begins
    assert harness.port.messages == down
    rest = [(0xB0, 66, 0), (0xB0, 67, 0), (0xE0, 0, 64), (0xD0, 0), (0xA0, 60, 0), (0xB0, 1, 0)]
    harness.receive((0xB0, 64, 20), *rest, (0xB0, 123, 0))
    rest = [(0xB0, 64, 0), *rest, (0x80, 60, 64)]
    assert harness.port.messages[len(down) :] == rest
    assert harness.session.keys.held == frozenset()


@pytest.mark.parametrize("number", [121, 64])
def test_pedal_up_or_controller_reset_lifts_the_pedal_in_all_components(number: int) -> None:
    harness = InputHarness(thru=True)
    harness.machine_plays(SUSTAIN_DOWN)
    harness.receive((0xB0, 64, 127), (0xB0, number, 0))
    harness.check_agreement()
    assert not harness.session.keys.pedal
    assert not harness.session.player.ledger.pedal
    assert not harness.port.pedals


@pytest.mark.parametrize("number", [120, 121, 122, 123, 124, 125, 126, 127])
def test_channel_mode_message_does_not_affect_the_machines_notes(number: int) -> None:
    harness = InputHarness(thru=True)
    harness.receive((0x90, 60, 80))
    harness.machine_plays(NOTE_ON + 72)
    harness.machine_plays(SUSTAIN_DOWN)
    harness.receive((0x80, 60, 64), (0xB0, number, 0))
    assert (0xB0, number, 0) not in harness.port.messages
    assert (harness.port.sounding, harness.port.pedals) == ({(0, 72)}, {0})
    assert (harness.session.player.ledger.notes, harness.session.player.ledger.pedal) == ({72}, True)


def test_small_pedal_values_do_not_lift_the_machines_pedal() -> None:
    harness = InputHarness(thru=True)
    harness.machine_plays(SUSTAIN_DOWN)
    harness.receive((0xB0, 64, 20), (0xB0, 64, 0), (0xB0, 64, 30))
    assert harness.port.pedals == {0}
    assert harness.session.player.ledger.release_machine() != []
    assert harness.port.messages[-1] == (0xB0, 64, 30)  # back to the human's pedal value


@pytest.mark.parametrize("after", [0.02, 0.05, 0.09])
def test_human_pedal_just_after_the_machines_pedal_counts(after: float) -> None:
    harness = InputHarness()
    harness.machine_plays(SUSTAIN_DOWN)
    harness.receive((0xB0, 64, 127), every=after)
    harness.check_agreement()
    assert harness.session.keys.pedal
    assert not harness.session.player.ledger.play(257)  # the foot is on it


def test_fast_repeated_notes_are_all_absorbed_and_forwarded() -> None:
    harness = InputHarness(thru=True)
    played = [message for _ in range(60) for message in ((0x90, 60, 80), (0x80, 60, 64))]
    harness.receive(*played, every=0.03)
    assert harness.port.messages == played
    assert [one.action for one in harness.human] == [NOTE_ON + 60, NOTE_OFF + 60] * 60


def test_bouncing_pedal_contact_leaves_the_pedal_down() -> None:
    harness = InputHarness(thru=True)
    harness.receive((0xB0, 64, 127), (0xB0, 64, 0), (0xB0, 64, 127), every=0.002)
    harness.check_agreement()
    assert harness.session.keys.pedal
    assert harness.port.pedals == {0}


def test_channel_pressure_between_notes_loses_no_message() -> None:
    harness = InputHarness(thru=True)
    notes = {20: (0x90, 60, 80), 26: (0x80, 60, 64), 30: (0x90, 60, 80), 34: (0x80, 60, 64)}
    played = [message for i in range(60) for message in ([notes[i]] if i in notes else []) + [(0xD0, i * 7 % 128)]]
    harness.receive(*played, every=0.005)
    assert harness.port.messages == played
    assert harness.port.silent


def test_layered_keyboard_presses_each_key_once() -> None:
    harness = InputHarness(thru=True)
    played: list[Message] = []
    for i in range(8):
        played += [(0x90, 60 + i, 80), (0x91, 60 + i, 80), (0x80, 60 + i, 64), (0x81, 60 + i, 64)]
    harness.receive(*played, every=0.0006)
    assert [one.action for one in harness.human if one.action < NOTE_OFF] == [60 + i for i in range(8)]
    assert harness.port.messages == played
    harness.check_agreement()


@pytest.mark.parametrize("command", ["panic", "forget"])
def test_panic_and_forget_free_a_key_without_note_off(command: str) -> None:
    harness = InputHarness(thru=True)
    harness.receive((0x90, 60, 80), (0xB0, 64, 127))
    harness.command(command)
    assert harness.session.keys.held == harness.session.player.ledger.forbidden == frozenset()
    assert harness.port.silent
    harness.check_agreement()
    assert harness.session.player.ledger.play(NOTE_ON + 60, 80)


def test_lost_input_releases_its_held_notes() -> None:
    harness = InputHarness(thru=True)
    harness.receive((0x90, 60, 80), (0x92, 62, 80), (0xB0, 64, 127), (0xB2, 66, 127))
    harness.session.input_lost(harness.now + 1)
    harness.check_agreement()
    assert harness.session.keys.held == frozenset()
    assert harness.port.silent
    assert (0xB2, 66, 0) in harness.port.messages


def test_midi_stop_silences_even_without_a_start() -> None:
    harness = InputHarness(mode="solo")
    harness.receive(*[(TICK,)] * 24, every=0.02)
    harness.run(2.0)
    assert harness.playing
    harness.receive((STOP,))
    assert harness.port.silent
    harness.run(5.0)
    assert not harness.playing


def test_a_stop_is_not_lost_among_many_song_positions() -> None:
    """A scrubbed sequencer sends one for each movement, and the performer may be busy meanwhile."""
    session = InputHarness(mode="solo").session
    session.receive(0.0, (STOP,))
    for place in range(200):
        session.receive(0.0, (SONG_POSITION, place % 128, 0))
    assert session.loop.inbox.dropped == 0
    while not session.performer.transport_stopped:
        command = session.loop.inbox.get(0)
        assert callable(command)
        command()


def test_stop_of_an_input_that_was_replaced_does_not_apply() -> None:
    harness = InputHarness(mode="solo")
    harness.receive((START,), (TICK,), (STOP,), (0x90, 60, 80))
    harness.session.input_lost(harness.now)  # it may come back: the stop still applies
    harness.run(5.0)
    assert not harness.playing
    harness.receive((0x90, 60, 80))
    harness.session.input_replaced(harness.now)
    assert harness.session.keys.held == frozenset()
    harness.run(5.0)
    assert harness.playing


@pytest.mark.parametrize("begin", [START, CONTINUE])
def test_phrase_played_while_stopped_is_not_answered_after_the_start(begin: int) -> None:
    harness = InputHarness(mode="respond")
    harness.receive((START,), (TICK,), (STOP,))
    harness.receive(*[(0x90 - i % 2 * 0x10, 60 + i // 2, 80) for i in range(8)], every=0.2)
    harness.run(60.0)
    harness.receive((begin,))
    harness.run(10.0)
    assert not harness.port.messages
    harness.receive(*[(0x90 - i % 2 * 0x10, 60 + i // 2, 80) for i in range(8)], every=0.2)
    harness.run(3.0)
    assert harness.port.note_ons


@pytest.mark.parametrize("delay", [0.002, 0.15])
@pytest.mark.parametrize("channel", [0, 4])
def test_machine_stops_answering_its_own_echo(delay: float, channel: int, caplog: pytest.LogCaptureFixture) -> None:
    harness = InputHarness(mode="respond", lookahead_ms=100)
    back: list[tuple[float, Message]] = []
    harness.session.output._send = lambda message: back.append((harness.now + delay, (message[0] & 0xF0 | channel, *message[1:])))
    harness.session.echo.sent = _in_virtual_time(harness, harness.session.echo.sent)  # type: ignore[method-assign]
    harness.receive((0x90, 60, 80))
    harness.receive((0x80, 60, 64), every=0.3)
    for _ in range(60 * 500):
        harness.run(0.002)
        while back and back[0][0] <= harness.now:
            harness.receive(back.pop(0)[1])
    assert harness.session.echo.established
    assert sum("comes back on the input" in record.message for record in caplog.records) == 1
    assert len(harness.human) <= PROOF + 4  # the call, the notes that prove the loop, and their releases
    assert not harness.session.keys.held


def _in_virtual_time(harness: InputHarness, sent: Callable[..., None]) -> Callable[..., None]:
    def sent_now(_: float, message: Message, *, own: bool = True) -> None:
        sent(harness.now, message, own=own)

    return sent_now


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
def test_all_components_agree_and_nothing_hangs_after_any_events(steps: list[tuple[float, Message | str]], thru: bool) -> None:
    harness = InputHarness(thru=thru)
    ledger = harness.session.player.ledger
    for wait, step in steps:
        harness.now += wait
        if not isinstance(step, str):
            harness.receive(step)
        elif step in ("panic", "forget"):
            harness.command(step)
        elif step == "lost":
            harness.session.input_lost(harness.now)
        elif step == "thru":
            harness.controls.set("thru", not harness.controls.get("thru"))
        elif step == "close":
            ledger.release_machine(harness.now)
        else:
            ledger.play(SUSTAIN_DOWN if step == "pedal" else NOTE_ON + 61, 80)
        assert {(0, sent) for sent in ledger.notes} <= harness.port.sounding, "a note of the machine was cut off"
        assert not ledger.pedal or 0 in harness.port.pedals, "the machine's pedal was lifted"
        assert harness.session.keys.held.isdisjoint(ledger.notes)
        harness.check_agreement()
    harness.session.input_lost(harness.now)
    ledger.release_machine(harness.now)
    assert harness.session.keys.held == frozenset()
    assert harness.port.silent


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.05]), MESSAGES), max_size=60), st.booleans())
def test_any_input_is_absorbed_and_forwarded_exactly_once(played: list[tuple[float, Message]], thru: bool) -> None:
    """The machine plays a key that the human never plays."""
    played = [
        (wait, one) for wait, one in played if one[0] & 0xF0 != 0xB0 or one[1] < 120
    ]  # channel mode messages are executed instead
    harness, alone = InputHarness(thru=thru), HumanKeys()
    expected: list[Message] = []
    actions: list[Timed] = []
    for index, (wait, one) in enumerate(played):
        if index % 3 == 0:
            harness.machine_plays(NOTE_OFF + NEVER_HELD if harness.session.player.ledger.notes else NOTE_ON + NEVER_HELD)
            expected.append(harness.port.messages[-1])
        harness.receive(one, every=wait)
        actions += alone.feed(harness.now, one)
        expected += [one] if thru else []
    assert harness.port.messages == expected
    assert harness.human == actions
    assert harness.session.keys.held == alone.held
