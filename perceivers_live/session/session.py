"""A live session: ports, performer, player and OSC, each in the thread it belongs to.

driver's callback     stamps, sorts, passes through, silences the machine at a key press, hands over to the performer
performer's thread    absorbs, detects phrase ends, generates
player's thread       sends on time
osc's thread          sets controls, queues commands
the caller's          tells how it goes, until someone stops it

The model should be in a process of its own (`engine.remote`): only the performer's thread waits for it then.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress

from engine.engine import Engine
from engine.errors import in_words
from engine.events import Timed
from engine.remote.standby import on_standby
from engine.states import StateError
from perceivers_live.clock.midi_clock import Beats, MidiClock, Transport
from perceivers_live.controls.midi_map import LEARN_TIMEOUT, MidiMap
from perceivers_live.controls.midi_map_file import Binding
from perceivers_live.controls.registry import Controls, Value
from perceivers_live.controls.settings import Settings
from perceivers_live.midi.echo import EchoGuard
from perceivers_live.osc.server import OscServer, Query
from perceivers_live.performer.merge import Played
from perceivers_live.performer.performer import Performer, SavedState, State
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.player.ledger import Ledger, Voicing
from perceivers_live.player.player import PlanObserver, Player, PlayerThread
from perceivers_live.session.inbox import Inbox
from perceivers_live.session.input import Hearing
from perceivers_live.session.saved_states import StateStore

log = logging.getLogger(__name__)
RETRY = 0.2  # seconds between two attempts to revive the engine
TELLING = 0.25  # seconds between two reports of how it goes
JOIN_TIMEOUT = 2.0  # seconds that the performer's thread has to end
SAVING = 10.0  # seconds that a state has to reach the disk at the end
MOST_SAVING = 2  # states, which are large, on their way to the disk
NOTICED = 0.01  # a change of tempo by more than this is worth a line
RELAPSE = 5.0  # seconds: a fault so soon after a recovery means that the memory itself is at fault
TimedListener = Callable[[Timed], None]
Triggers = dict[str, Callable[[], None]]


class Session:
    """Runs until ``stop``. ``send`` takes raw messages for the output; ``hear`` is the input's callback.

    ``beats``: another source of beats than the input's MIDI clock. ``midi_map``: makes the map of the controllers, given what
    they can command. ``states``: where states are kept, None = nowhere. ``on_human`` and ``on_machine`` are told of everything
    that sounds, as it was sent, on whatever thread that was done. ``on_plan`` is told what is planned and taken back,
    ``on_countdown`` when the machine will begin by itself, ``on_stats`` four times a second how it goes.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        controls: Controls,
        send: Callable[[Sequence[int]], None],
        *,
        beats: Beats | None = None,
        midi_map: Callable[[Triggers, Callable[[Binding], None]], MidiMap] | None = None,
        states: StateStore | None = None,
        on_human: TimedListener = lambda _: None,
        on_machine: TimedListener = lambda _: None,
        on_state: Callable[[State], None] = lambda _: None,
        on_listening: Callable[[], None] = lambda: None,
        on_plan: PlanObserver | None = None,
        on_countdown: Callable[[float | None], None] = lambda _: None,
        on_stats: Callable[[Mapping[str, float]], None] = lambda _: None,
        osc: bool = True,
    ) -> None:
        self._settings, self._controls, self._states = settings, controls, states
        self._engine = engine
        self._on_human, self._on_state, self._on_listening, self._on_stats = on_human, on_state, on_listening, on_stats
        self._inbox = Inbox()
        self._saving: list[threading.Thread] = []
        self._recalled: deque[tuple[str, SavedState]] = deque(maxlen=1)  # states are large: only the one asked for last waits
        self._stopping = False
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()  # ``stop`` may come in a signal, amid waiting for it
        self._relapse_until, self._faults, self._recoveries = 0.0, 0, 0
        self.echo = EchoGuard()
        self._send = send
        channel = settings.midi.channel - 1
        self.keys = HumanKeys(lambda: (int(controls.get("listen_low")), int(controls.get("listen_high"))))
        self.ledger = Ledger(
            self._sent,
            channel=channel,
            voicing=lambda: Voicing.of(controls.snapshot()),
            keys=self.keys,
            pass_on=self._passed_on,
        )
        self.player = Player(self.ledger, lambda one: on_machine(self.ledger.as_sent(one)), on_plan)
        clock = MidiClock() if settings.clock.source == "midi" else None
        self._beats, self._bpm = beats or clock, 0.0
        self._standby = False  # as last told
        self.performer = Performer(
            engine,
            self.player,
            controls,
            settings.phrase,
            beats=self._beats,
            on_state=self._entered,
            on_countdown=on_countdown,
        )
        self._map = midi_map(self._triggers(), self._learnt) if midi_map is not None else None
        if self._map is not None:
            self._map.on_fault = lambda error: self.fault("learn", error)
        self._hearing = Hearing(settings.midi, controls, self.echo, clock=clock, midi_map=self._map)
        self._serve_osc = osc and settings.osc.enabled
        self._osc: OscServer | None = None

    @property
    def beats(self) -> Beats | None:
        """Where musical time comes from, if from anywhere."""
        return self._beats

    @property
    def midi_map(self) -> MidiMap | None:
        """What the controllers are bound to."""
        return self._map

    # The driver's thread.

    def hear(self, now: float, message: Sequence[int]) -> None:
        """One raw message from the human, stamped by the caller. Never raises, never waits for the engine."""
        try:
            if self._stopping:
                return
            heard = self._hearing.feed(now, message)
            if heard.music is not None:
                self._play(heard.time, heard.music)
            if heard.takeover:
                self._later(self.performer.takeover)
            if heard.transport is not None:
                self._moved(heard.transport)
        except Exception:
            log.exception("a message was not understood: %s", bytes(byte & 0xFF for byte in message[:16]).hex(" "))

    def _play(self, time: float, message: Sequence[int]) -> None:
        """One message of the human's music."""
        with self.player.changed:  # nobody may see the keys changed who does not yet see what follows from it
            actions = self.keys.feed(time, message)
            if actions:
                self._happened(lambda: self.performer.react(actions))
            self._pass_on(message, releases_only=not self._controls.get("thru"))
        for one in actions:
            self._on_human(one)

    def input_lost(self, now: float) -> None:
        """The input has gone away: the keys that were held on it are up."""
        self.echo.forget()
        self._let_go(now)

    def _let_go(self, now: float) -> None:
        """What the human holds is up, for everybody, and for the receiver what was passed through."""
        with self.player.changed:
            actions = self.keys.release_all(now)
            self._happened(lambda: self.performer.react(actions))
            self.ledger.end_thru()
        for one in actions:
            self._on_human(one)

    def output_back(self) -> None:
        """The output can be sent to again: what may hang on it is closed. The music goes on by itself."""
        self._quietly(self._sweep)

    def change_output(self, change: Callable[[], None]) -> None:
        """Silences the machine on the output as it is, has ``change`` make it another one, and lets the machine go on there.
        Nothing is sent in between.
        """
        with self.player.changed:
            plays = self.player.playing
            self._hush()
            self.ledger.hand_over(change)
        self.output_back()
        if plays:
            self._later(self.performer.takeover)

    def _sweep(self) -> None:
        self.ledger.sweep(self._send)

    def _moved(self, change: Transport) -> None:
        if change is Transport.STOPPED:  # stop means silence, now
            self._hush()
        self._later(lambda now: self.performer.transport(change, now))

    def _hush(self) -> None:
        self._happened(lambda: self.performer.hush(time.perf_counter()))

    def _happened(self, react: Callable[[], Played]) -> None:
        """What is done at once, and what the performer hears of it. It hears everything in the order in which it happened."""
        with self.player.changed:
            played = react()
            if any(played[:3]):
                self._inbox.put(played)

    def _pass_on(self, message: Sequence[int], *, releases_only: bool) -> None:
        try:
            self.ledger.thru(message, releases_only=releases_only)
        except Exception as error:  # the output's fault must not make us deaf
            log.warning("the output port does not answer (%s)", error)

    def _sent(self, message: Sequence[int]) -> None:
        self.echo.sent(time.perf_counter(), message)
        self._send(message)

    def _passed_on(self, message: Sequence[int]) -> None:
        self.echo.sent(time.perf_counter(), message, own=False)
        self._send(message)

    # What can be commanded, from any thread.

    def commands(self) -> dict[str, Callable[..., None]]:
        """What OSC can ask for besides the controls."""
        commands: dict[str, Callable[..., None]] = dict(self._triggers())
        if self._states is not None:
            commands |= {"save": self._save, "recall": self._recall, "delete": self._delete}
        if self._map is not None:
            commands |= {"learn": self._learn, "unlearn": self._unlearn}
        return commands

    def queries(self) -> dict[str, Query]:
        """What OSC can ask about besides the controls."""

        names = self._states.names if self._states is not None else list[str]
        return {
            "state": lambda: [self.performer.state.value],
            "stats": lambda: [part for pair in self.stats().items() for part in pair],
            "states": lambda: _counted(names()),
        }

    def _triggers(self) -> Triggers:
        """The commands without arguments."""

        def panic() -> None:
            self._let_go(time.perf_counter())
            self._hush()
            self._later(self.performer.give_way)  # a solo would begin again at once
            self._quietly(self._sweep)

        def forget() -> None:
            self._let_go(time.perf_counter())
            self._later(self.performer.forget)

        return {
            "takeover": lambda: self._later(self.performer.takeover),
            "yield": lambda: self._later(self.performer.give_way),
            "forget": forget,
            "panic": panic,
        }

    def _later(self, method: Callable[[float], None]) -> None:
        """Has the performer's thread do it, with the time then."""
        self._inbox.put(lambda: method(time.perf_counter()))

    def _save(self, name: str) -> None:
        states = self._states
        assert states is not None
        states.check(name)

        def write(saved_state: SavedState) -> None:
            states.save(name, saved_state)
            self._say(f"saved {name}")

        def save(now: float) -> None:
            self._saving = [thread for thread in self._saving if thread.is_alive()]
            if len(self._saving) >= MOST_SAVING:
                self.fault("state", StateError(f"{name}: not saved, others are still being written"))
                return
            try:
                saved_state = self.performer.saved_state(now)
            except StateError as error:  # a standby holds a part of the state only
                self.fault("state", error)
                return
            thread = threading.Thread(target=self._reported, args=(lambda: write(saved_state),), daemon=True)
            thread.start()
            self._saving.append(thread)

        self._later(save)

    def _end_saving(self) -> None:
        for thread in self._saving:
            thread.join(SAVING)

    def _recall(self, name: str) -> None:
        assert self._states is not None
        self._recalled.append((name, self._states.load(name)))
        self._later(self._go_on_from)

    def _go_on_from(self, now: float) -> None:
        if self._recalled:  # else the performer was behind, and has gone on from a later one
            name, saved_state = self._recalled.pop()
            self.performer.recall(saved_state, now)
            self._say(f"recalled {name}")

    def _delete(self, name: str) -> None:
        assert self._states is not None
        self._states.delete(name)
        self._say(f"deleted {name}")

    def _learn(self, target: str) -> None:
        assert self._map is not None
        self._map.learn(target, time.perf_counter())
        self._say(f"learning {target}: move a controller within {LEARN_TIMEOUT:.0f} s")

    def _unlearn(self, target: str) -> None:
        assert self._map is not None
        count = self._map.unlearn(target)
        self._say(f"unlearnt {target}: {count} controller{'s' * (count != 1)} steered it")

    def _learnt(self, binding: Binding) -> None:
        self._say(f"learnt {binding.target}: {binding}")

    def _say(self, text: str) -> None:
        """Tells the log and whoever listens what was done."""
        log.info("%s", text)
        if self._osc is not None:
            self._osc.send_message(text)

    def _reported(self, action: Callable[[], None]) -> None:
        """Does it; a fault is for the log and the subscribers."""
        try:
            action()
        except Exception as error:
            self.fault("state", error)

    def fault(self, code: str, error: Exception) -> None:
        """Tells the log and whoever listens of a fault that the session survives."""
        self._faults += code == "engine"
        log.warning("%s", error)
        if self._osc is not None:
            self._osc.send_error(code, in_words(error))

    # The performer's thread.

    def run(self) -> None:
        """Performs until ``stop`` is called, from any thread or signal handler; leaves nothing sounding. Raises ``OscError``."""
        with ExitStack() as closing:
            closing.callback(self._end_saving)  # last of all
            if self._serve_osc:
                self._open_osc(closing)
            closing.callback(self._controls.on_change(lambda *_: self._inbox.wake()))  # a turned control wakes us
            player = PlayerThread(self.player, failed=lambda: self._later(self.performer.recover))
            closing.callback(self._silence)
            self._quietly(self._sweep)  # whatever an earlier, killed session left hanging
            player.start()
            closing.callback(player.stop)
            performing = threading.Thread(target=self._perform, name="performer", daemon=True)
            performing.start()
            self._on_listening()
            while self._goes_on():
                if self._map is not None:
                    self._map.expire(time.perf_counter())
                self._tell_tempo()
                self._tell_standby()
                stats = self.stats()
                self._on_stats(stats)
                if self._osc is not None:
                    self._osc.send_stats(stats)
            performing.join(JOIN_TIMEOUT)

    def stats(self) -> dict[str, float]:
        """Counters since the start: events played, late ones and the latest lateness (ms), events that no output took; faults of
        the engine and recoveries from them; echoes ignored; actions, commands and OSC packets left out in a flood. And how it
        stands: actions and commands that wait, whether a standby computes (1), events planned, the length of the history, beats
        a minute (0: no tempo).
        """
        player, lateness = self.player, self.player.lateness
        return {
            "played": player.played,
            "late": player.late,
            "lateness_ms": round(1000 * lateness[-1], 3) if lateness else 0.0,
            "unheard": player.unheard,
            "faults": self._faults,
            "recoveries": self._recoveries,
            "echoes": self.echo.echoes,
            "left_out": self._inbox.left_out + (self._osc.left_out if self._osc is not None else 0),
            "waiting": self._inbox.qsize(),
            "standby": float(on_standby(self._engine.runtime)),
            "planned": player.planned(),
            "history": self._engine.position,
            "bpm": round(self._bpm, 1),
        }

    def _tell_tempo(self) -> None:
        bpm = (self._beats.bpm if self._beats is not None else None) or 0.0
        if abs(bpm - self._bpm) > NOTICED * self._bpm:
            log.info("tempo: %s", f"{bpm:.1f} beats a minute" if bpm else "none")
            self._bpm = bpm

    def _tell_standby(self) -> None:
        standby = on_standby(self._engine.runtime)
        if standby != self._standby:
            self._standby = standby
            self._say("standby" if standby else "standby over")

    def _goes_on(self) -> bool:
        """Waits one report interval; False once stopped."""
        with suppress(queue.Empty):
            self._over.get(timeout=TELLING)
        return not self._stopping

    def stop(self) -> None:
        """From any thread or signal handler."""
        self._stopping = True
        self._over.put(None)
        self._inbox.put(None)

    def _open_osc(self, closing: ExitStack) -> None:
        osc = self._settings.osc
        where = osc.host, osc.port, osc.reply_port
        self._osc = OscServer(self._controls, self.commands(), *where, queries=self.queries(), allow=osc.allow)
        closing.callback(self._osc.close)
        log.info("OSC on %s:%d", self._osc.host, self._osc.port)

    def _perform(self) -> None:
        while not self._stopping:
            self._round()

    def _round(self) -> None:
        """One round of the performer: work if there is any, else wait for something to happen."""
        try:
            began = time.perf_counter()
            due = self.performer.work(began)
            if due is not None and due <= began:
                self.performer.took(time.perf_counter() - began)
            self._take(None if due is None else due - time.perf_counter())
        except Exception as error:
            log.exception("the engine failed; silent until it has recovered")
            self.fault("engine", error)
            self._recover()

    def _take(self, wait: float | None) -> None:
        """The next of what waits, after waiting ``wait`` seconds at most for it. One, however much there is: the machine's turn
        must go on in a flood, or what it has struck would hang.
        """
        item = self._next(wait)
        if isinstance(item, list):
            self.performer.hear(item)
        elif item is not None:
            item()

    def _next(self, wait: float | None) -> list[Played] | Callable[[], None] | None:
        """The next item, None if there is none in time or to stop. A GPU is kept warm meanwhile."""
        end, warm_for = None if wait is None else time.perf_counter() + wait, self._engine.runtime.warm_for
        while True:
            left = None if end is None else end - time.perf_counter()
            patience = left if warm_for is None else warm_for if left is None else min(left, warm_for)
            try:
                return self._inbox.get_nowait() if patience is not None and patience <= 0 else self._inbox.get(timeout=patience)
            except queue.Empty:
                if patience is left:
                    return None
                self._engine.runtime.keep_warm()

    def _recover(self) -> None:
        """Silence, and the memory computed again from what sounded; or, if it is itself at fault, a fresh one."""
        forget = time.perf_counter() < self._relapse_until
        while not self._stopping:
            try:
                (self.performer.forget if forget else self.performer.recover)(time.perf_counter())
                self._relapse_until = time.perf_counter() + RELAPSE
                self._recoveries += 1
                if forget:
                    time.sleep(RETRY)  # a model that is broken for good would fail again at once
                return
            except Exception:
                log.exception("the engine has not recovered yet")
                time.sleep(RETRY)

    def _entered(self, state: State) -> None:
        self._on_state(state)
        if self._osc is not None:
            self._osc.send_state(state.value)

    def _silence(self) -> None:
        self.player.end()
        self._quietly(self.ledger.reset)

    @staticmethod
    def _quietly(action: Callable[[], None]) -> None:
        """For what clears an output that is likely to be silent: one that is away is nothing to warn of."""
        try:
            action()
        except Exception as error:
            log.debug("the output port does not answer (%s)", error)


def _counted(names: list[str]) -> list[Value]:
    return [len(names), *names]
