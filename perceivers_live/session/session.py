"""A live session: creates its parts and starts its threads.

MIDI driver's thread   routes input, passes it through, silences the machine at a key press (``input``, ``reaction``)
performer's thread     feeds the model, detects phrase ends, generates (``loop``)
player's thread        sends events on time
OSC thread             sets controls, queues commands (``commands``)
calling thread         reports statistics until the session is stopped

The model should run in another process (``engine.remote``), so that only the performer's thread waits for it.
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
from perceivers_live.controls.control import Value
from perceivers_live.controls.midi_map import MidiMap
from perceivers_live.controls.midi_map_file import Binding
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import Settings
from perceivers_live.midi.echo import EchoGuard
from perceivers_live.osc.server import OscServer, Query
from perceivers_live.performer.performer import Performer
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.player.player import Player, PlayerThread
from perceivers_live.session.commands import StateCommands, map_commands, triggers
from perceivers_live.session.input import InputRouter
from perceivers_live.session.loop import PerformerLoop
from perceivers_live.session.observers import Observer, Observers
from perceivers_live.session.output import Output
from perceivers_live.session.reaction import Reaction
from perceivers_live.session.saved_states import StateStore

log = logging.getLogger(__name__)
REPORT_INTERVAL = 0.25  # seconds between two reports of the statistics
STANDBY_BEGINS = "the model does not answer: the standby on this computer's CPU plays"
STANDBY_ENDS = "the model plays again, in place of the standby"
TEMPO_CHANGE = 0.01  # relative change of the tempo that is logged


class Session:
    """Performs from ``run`` until ``stop``. ``send`` sends a raw message to the output; ``receive`` is the input's callback.

    ``beats``: a source of beats that replaces the input's MIDI clock. ``states``: store of musical states; None: the state
    commands are not available. ``bindings``: file of the controller bindings; None: they are not saved.
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
        self._clock = MidiClock() if settings.clock.source == "midi" else None
        self.beats, self._bpm = beats or self._clock, 0.0
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
        self.midi_map = MidiMap(controls, triggered, bindings, on_learnt=self._on_learnt)
        self.midi_map.on_fault = lambda error: self.fault("learn", error)
        self._router = InputRouter(settings.midi, controls, self.echo, clock=self._clock, midi_map=self.midi_map)
        self._commands: dict[str, Callable[..., None]] = {**triggered, **map_commands(self.midi_map, self._report)}
        self._states, self._saving = states, None
        if states is not None:
            self._saving = StateCommands(states, self.performer, self.loop, self.observers, self._report)
            self._commands |= self._saving.commands()
        self._osc: OscServer | None = None
        self._standby = False  # as last reported
        self._stopped: queue.SimpleQueue[None] = queue.SimpleQueue()  # reentrant: a signal handler may call ``stop`` during a get

    def commands(self) -> dict[str, Callable[..., None]]:
        """The commands by name; they may be called from any thread."""
        return dict(self._commands)

    def queries(self) -> dict[str, Query]:
        """The queries by name; they may be called from any thread."""

        def state() -> list[Value]:
            """The state of the machine: listening or playing."""
            return [self.performer.state.value]

        def stats() -> list[Value]:
            """Tempo, lateness and counters: name and value of each."""
            return [part for pair in self.stats().items() for part in pair]

        def states() -> list[Value]:
            """The number of saved states, and their names."""
            names = self._states.names() if self._states is not None else []
            return [len(names), *names]

        return {"state": state, "stats": stats, "states": states}

    def receive(self, now: float, message: Sequence[int]) -> None:
        """Handles one raw message that arrived at ``now`` (monotonic seconds). Never raises, never waits for the engine."""
        try:
            if not self.loop.stopping:
                self._reaction.handle(self._router.feed(now, message))
        except Exception:
            log.exception("cannot handle the MIDI message %s", bytes(byte & 0xFF for byte in message[:16]).hex(" "))

    def set_input_resolution(self, seconds: float) -> None:
        """Sets the interval to which the times of input messages are quantized; 0: unknown."""
        if self._clock is not None:
            self._clock.set_resolution(seconds)

    def input_lost(self, now: float) -> None:
        """Releases the keys held on an input that was disconnected. The beats of its MIDI clock are unknown from then on."""
        if self._clock is not None and self._clock.lost():
            log.warning("the beats of the MIDI clock are unknown until the sequencer starts again")
        self.source_lost(now)

    def source_lost(self, now: float) -> None:
        """Releases the keys held on the input: one of its sources was disconnected, and it is not known which keys it held."""
        self.echo.forget()
        self._reaction.release_all(now)

    def input_replaced(self, now: float) -> None:
        """Another input was chosen: releases the keys held on the former one. If that one's MIDI clock was stopped, the machine
        may play again.
        """
        self.input_lost(now)
        self.loop.submit(self.performer.clear_stop)

    def output_restored(self) -> None:
        """Releases what the machine holds, and notes that may hang on an output that was connected again. Its turn goes on."""
        with self.player.changed:
            self.loop.run_now(lambda: self.performer.release_all(time.perf_counter()))
            self.output.reset_channel()

    def change_output(self, change: Callable[[], None]) -> None:
        """Releases what sounds, and calls ``change``, which replaces the output. The machine's turn and its plan go on there.
        Nothing is sent in between.
        """
        with self.player.changed:
            self.loop.run_now(lambda: self.performer.release_all(time.perf_counter()))
            self.player.ledger.switch_output(change)
            self.output_restored()

    def run(self) -> None:
        """Performs until ``stop`` is called. Leaves no note sounding. Raises ``ListenError``."""
        with ExitStack() as closing:
            if self._saving is not None:
                closing.callback(self._saving.close)  # runs last
            if self._settings.osc.enabled:
                self._open_osc(closing)
            closing.callback(self._controls.on_change(lambda *_: self.loop.inbox.wake()))  # wakes the performer
            player = PlayerThread(self.player, on_fault=lambda: self.loop.submit(self.performer.recover))
            closing.callback(self.silence)
            self.output.reset_channel()  # ends hanging notes of an earlier, killed session
            player.start()
            closing.callback(player.stop)
            self.loop.start()
            self.observers.started()
            while self._wait_for_report():
                self.midi_map.expire(time.perf_counter())
                self.output.ledger.send_unsent()
                self._report_tempo()
                self._report_standby()
                self.observers.stats(self.stats())
            self.loop.join()

    def stop(self) -> None:
        """Ends ``run``. May be called from any thread or signal handler."""
        self.loop.stop()
        self._stopped.put(None)

    def silence(self) -> None:
        """Ends the plan and silences the receiver."""
        self.player.end()
        self.output.reset()

    def stats(self) -> dict[str, float]:
        """Counters since the start: events played; events that were late, and the lateness of the last event (ms); events sent
        while no output was connected (``unsent``); engine faults and recoveries; ignored echoes; actions, commands and OSC
        packets dropped during overload (``dropped``). Current values: queued actions and commands (``waiting``), whether a
        standby computes (1), planned events, length of the history, tempo in beats per minute (0: none).
        """
        player, lateness, loop = self.player, self.player.lateness, self.loop
        return {
            "played": player.played,
            "late": player.late,
            "lateness_ms": round(1000 * lateness[-1], 3) if lateness else 0.0,
            "unsent": player.unsent,
            "faults": loop.faults,
            "recoveries": loop.recoveries,
            "echoes": self.echo.echoes,
            "dropped": loop.inbox.dropped + (self._osc.dropped if self._osc is not None else 0),
            "waiting": loop.inbox.qsize(),
            "standby": float(on_standby(self.engine.runtime)),
            "planned": player.planned(),
            "history": self.engine.position,
            "bpm": round(self._bpm, 1),
        }

    def fault(self, kind: str, error: Exception) -> None:
        """Reports a fault to the log and the observers. The session continues."""
        log.warning("%s", error)
        self.observers.fault(kind, error)

    def _on_learnt(self, binding: Binding) -> None:
        self._report(f"learnt {binding.target}: {binding}")

    def _report(self, text: str) -> None:
        """Sends a message to the log and the observers."""
        log.info("%s", text)
        self.observers.message(text)

    def _report_tempo(self) -> None:
        bpm = (self.beats.bpm if self.beats is not None else None) or 0.0
        if abs(bpm - self._bpm) > TEMPO_CHANGE * self._bpm:
            log.info("tempo: %s", f"{bpm:.1f} beats per minute" if bpm else "none")
            self._bpm = bpm

    def _report_standby(self) -> None:
        standby = on_standby(self.engine.runtime)
        if standby != self._standby:
            self._standby = standby
            self._report(STANDBY_BEGINS if standby else STANDBY_ENDS)

    def _wait_for_report(self) -> bool:
        """Waits one report interval; False once stopped."""
        with suppress(queue.Empty):
            self._stopped.get(timeout=REPORT_INTERVAL)
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
