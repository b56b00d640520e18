"""A live session: the parts put together, and the threads that they run in.

driver's callback     stamps, sorts, passes through, silences the machine at a key press (``reaction``)
performer's thread    absorbs, detects phrase ends, generates (``loop``)
player's thread       sends on time
osc's thread          sets controls, queues commands (``commands``)
the caller's          tells how it goes, until someone stops it

The model should be in a process of its own (`engine.remote`): only the performer's thread waits for it then.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from engine.engine import Engine
from engine.errors import in_words
from engine.remote.standby import on_standby
from perceivers_live.clock.midi_clock import Beats, MidiClock
from perceivers_live.controls.midi_map import MidiMap
from perceivers_live.controls.midi_map_file import Binding
from perceivers_live.controls.registry import Controls, Value
from perceivers_live.controls.settings import Settings
from perceivers_live.midi.echo import EchoGuard
from perceivers_live.osc.server import OscServer, Query
from perceivers_live.performer.performer import Performer
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.player.player import Player, PlayerThread
from perceivers_live.session.commands import StateCommands, map_commands, triggers
from perceivers_live.session.input import Hearing
from perceivers_live.session.loop import PerformerLoop
from perceivers_live.session.observers import Observer, Observers
from perceivers_live.session.output import Output
from perceivers_live.session.reaction import Reaction
from perceivers_live.session.saved_states import StateStore

log = logging.getLogger(__name__)
TELLING = 0.25  # seconds between two reports of how it goes
NOTICED = 0.01  # a change of tempo by more than this is worth a line


class Session:
    """Runs until ``stop``. ``send`` takes raw messages for the output; ``hear`` is the input's callback.

    ``beats``: another source of beats than the input's MIDI clock. ``states``: where musical states are kept, ``bindings``: the
    file of what the controllers are bound to; None = nowhere.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        controls: Controls,
        send: Callable[[Sequence[int]], None],
        *,
        beats: Beats | None = None,
        states: StateStore | None = None,
        bindings: Path | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.engine, self._settings, self._controls = engine, settings, controls
        self.observers = Observers(observers)
        self.echo = EchoGuard()
        clock = MidiClock() if settings.clock.source == "midi" else None
        self.beats, self._bpm = beats or clock, 0.0
        self.keys = HumanKeys(lambda: (int(controls.get("listen_low")), int(controls.get("listen_high"))))
        self.output = Output(send, controls, settings.midi.channel - 1, self.keys, self.echo)
        self.player = Player(self.output.ledger, self.observers)
        self.performer = Performer(
            engine,
            self.player,
            controls,
            settings.phrase,
            beats=self.beats,
            on_state=self.observers.state,
            on_countdown=self.observers.countdown,
        )
        self.loop = PerformerLoop(self.performer, self.player, engine.runtime, self.observers)
        self._reaction = Reaction(self.keys, self.performer, self.loop, self.output, controls, self.observers)
        triggered = triggers(self.performer, self.loop, self._reaction, self.output)
        self.midi_map = MidiMap(controls, triggered, bindings, on_learnt=self._learnt)
        self.midi_map.on_fault = lambda error: self.fault("learn", error)
        self._hearing = Hearing(settings.midi, controls, self.echo, clock=clock, midi_map=self.midi_map)
        self._commands: dict[str, Callable[..., None]] = {**triggered, **map_commands(self.midi_map, self._say)}
        self._states, self._saving = states, None
        if states is not None:
            self._saving = StateCommands(states, self.performer, self.loop, self.observers, self._say)
            self._commands |= self._saving.commands()
        self._osc: OscServer | None = None
        self._standby = False  # as last told
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()  # ``stop`` may come in a signal, amid waiting for it

    def commands(self) -> dict[str, Callable[..., None]]:
        """What can be commanded, from any thread."""
        return dict(self._commands)

    def queries(self) -> dict[str, Query]:
        """What can be asked about besides the controls, from any thread."""

        def states() -> list[Value]:
            names = self._states.names() if self._states is not None else []
            return [len(names), *names]

        return {
            "state": lambda: [self.performer.state.value],
            "stats": lambda: [part for pair in self.stats().items() for part in pair],
            "states": states,
        }

    def hear(self, now: float, message: Sequence[int]) -> None:
        """One raw message from the human, stamped by the caller. Never raises, never waits for the engine."""
        try:
            if not self.loop.stopping:
                self._reaction.take(self._hearing.feed(now, message))
        except Exception:
            log.exception("a message was not understood: %s", bytes(byte & 0xFF for byte in message[:16]).hex(" "))

    def input_lost(self, now: float) -> None:
        """The input has gone away: the keys that were held on it are up."""
        self.echo.forget()
        self._reaction.let_go(now)

    def output_back(self) -> None:
        """The output can be sent to again: what may hang on it is closed. The music goes on by itself."""
        self.output.sweep()

    def change_output(self, change: Callable[[], None]) -> None:
        """Silences the machine on the output as it is, has ``change`` make it another one, and lets the machine go on there.
        Nothing is sent in between.
        """
        with self.player.changed:
            plays = self.player.playing
            self.loop.hush()
            self.player.ledger.switch_output(change)
        self.output_back()
        if plays:
            self.loop.later(self.performer.takeover)

    def run(self) -> None:
        """Performs until ``stop`` is called, from any thread or signal handler; leaves nothing sounding. Raises ``OscError``."""
        with ExitStack() as closing:
            if self._saving is not None:
                closing.callback(self._saving.close)  # last of all
            if self._settings.osc.enabled:
                self._open_osc(closing)
            closing.callback(self._controls.on_change(lambda *_: self.loop.inbox.wake()))  # a turned control wakes us
            player = PlayerThread(self.player, on_fault=lambda: self.loop.later(self.performer.recover))
            closing.callback(self.silence)
            self.output.sweep()  # whatever an earlier, killed session left hanging
            player.start()
            closing.callback(player.stop)
            self.loop.start()
            self.observers.listening()
            while self._goes_on():
                self.midi_map.expire(time.perf_counter())
                self._tell_tempo()
                self._tell_standby()
                self.observers.stats(self.stats())
            self.loop.join()

    def stop(self) -> None:
        """From any thread or signal handler."""
        self.loop.stop()
        self._over.put(None)

    def silence(self) -> None:
        """Ends the plan and leaves the receiver silent."""
        self.player.end()
        self.output.reset()

    def stats(self) -> dict[str, float]:
        """Counters since the start: events played, late ones and the latest lateness (ms), events that no output took; faults of
        the engine and recoveries from them; echoes ignored; actions, commands and OSC packets left out in a flood. And how it
        stands: actions and commands that wait, whether a standby computes (1), events planned, the length of the history, beats
        a minute (0: no tempo).
        """
        player, lateness, loop = self.player, self.player.lateness, self.loop
        return {
            "played": player.played,
            "late": player.late,
            "lateness_ms": round(1000 * lateness[-1], 3) if lateness else 0.0,
            "unheard": player.unheard,
            "faults": loop.faults,
            "recoveries": loop.recoveries,
            "echoes": self.echo.echoes,
            "left_out": loop.inbox.left_out + (self._osc.left_out if self._osc is not None else 0),
            "waiting": loop.inbox.qsize(),
            "standby": float(on_standby(self.engine.runtime)),
            "planned": player.planned(),
            "history": self.engine.position,
            "bpm": round(self._bpm, 1),
        }

    def fault(self, kind: str, error: Exception) -> None:
        """Tells the log and the observers of a fault that the session survives."""
        log.warning("%s", error)
        self.observers.fault(kind, error)

    def _learnt(self, binding: Binding) -> None:
        self._say(f"learnt {binding.target}: {binding}")

    def _say(self, text: str) -> None:
        """Tells the log and the observers what was done."""
        log.info("%s", text)
        self.observers.message(text)

    def _tell_tempo(self) -> None:
        bpm = (self.beats.bpm if self.beats is not None else None) or 0.0
        if abs(bpm - self._bpm) > NOTICED * self._bpm:
            log.info("tempo: %s", f"{bpm:.1f} beats a minute" if bpm else "none")
            self._bpm = bpm

    def _tell_standby(self) -> None:
        standby = on_standby(self.engine.runtime)
        if standby != self._standby:
            self._standby = standby
            self._say("standby" if standby else "standby over")

    def _goes_on(self) -> bool:
        """Waits one report interval; False once stopped."""
        with suppress(queue.Empty):
            self._over.get(timeout=TELLING)
        return not self.loop.stopping

    def _open_osc(self, closing: ExitStack) -> None:
        settings = self._settings.osc
        where = settings.host, settings.port, settings.reply_port
        osc = OscServer(self._controls, self._commands, *where, queries=self.queries(), allow=settings.allow)
        self._osc = osc
        closing.callback(osc.close)
        closing.callback(
            self.observers.add(
                Observer(
                    state=lambda state: osc.send_state(state.value),
                    stats=osc.send_stats,
                    message=osc.send_message,
                    fault=lambda kind, error: osc.send_error(kind, in_words(error)),
                )
            )
        )
        log.info("OSC on %s:%d", osc.host, osc.port)
