"""A live session: ports, performer, player and OSC, each in the thread it belongs to.

driver's callback     stamps, passes through, silences the machine at a key press, hands over to the performer
performer's thread    absorbs, detects phrase ends, generates        (the caller's)
player's thread       sends on time
osc's thread          sets controls, queues commands
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from engine.engine import Engine
from engine.events import NOTE_OFF, Timed
from engine.midi import MessageReader, is_channel_message
from perceivers_live.config import Settings
from perceivers_live.controls import Controls
from perceivers_live.ledger import Ledger
from perceivers_live.osc import OscServer
from perceivers_live.performer import Performer, State
from perceivers_live.player import Player, PlayerThread

log = logging.getLogger(__name__)
RETRY = 0.2  # seconds between two attempts to revive the engine
Heard = Callable[[Timed], None]


class Played(NamedTuple):
    """What the human did, and what the machine was made to drop for it."""

    actions: list[Timed]
    interruption: tuple[int | None, list[Timed]] | None


class Session:
    """Runs until ``stop``. ``send`` takes raw messages for the output; ``hear`` is the input's callback.

    ``on_human`` and ``on_machine`` are told of everything that sounds, on the driver's and the player's thread.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        controls: Controls,
        send: Callable[[Sequence[int]], None],
        *,
        on_human: Heard = lambda _: None,
        on_machine: Heard = lambda _: None,
        on_state: Callable[[State], None] = lambda _: None,
        osc: bool = True,
    ) -> None:
        self._settings, self._controls = settings, controls
        self._engine = engine
        self._on_human, self._on_state = on_human, on_state
        self._inbox: queue.SimpleQueue[Played | Callable[[], None] | None] = queue.SimpleQueue()
        self._reader = MessageReader()
        self._stopping = threading.Event()
        self.ledger = Ledger(send, channel=settings.midi.channel - 1)
        self.player = Player(self.ledger, on_machine)
        self.performer = Performer(engine, self.player, controls, settings.phrase, on_state=self._entered)
        self._serve_osc = osc and settings.osc.enabled
        self._osc: OscServer | None = None

    def hear(self, now: float, message: Sequence[int]) -> None:
        """One raw message from the human, stamped by the caller. Never raises, never waits for the engine."""
        try:
            channel = self._settings.midi.input_channel
            if self._stopping.is_set() or not is_channel_message(message) or (channel and message[0] & 0x0F != channel - 1):
                return
            controls = self._controls.snapshot()
            now += float(controls["input_offset_ms"]) / 1000
            actions = self._reader.feed(now, message)
            struck = any(one.action < NOTE_OFF for one in actions)
            interruption = self.player.interrupt(now) if struck and self.performer.state is State.REPLYING else None
            self._pass_on(message, releases_only=not controls["thru"])
            if actions:
                self._inbox.put(Played(actions, interruption))
                for one in actions:
                    self._on_human(one)
        except Exception:
            log.exception("a message was not understood: %s", bytes(byte & 0xFF for byte in message[:16]).hex(" "))

    def _pass_on(self, message: Sequence[int], *, releases_only: bool) -> None:
        try:
            self.ledger.thru(message, releases_only=releases_only)
        except Exception as error:  # the output's fault must not make us deaf
            log.warning("the output port does not answer (%s)", error)

    def commands(self) -> dict[str, Callable[..., None]]:
        """What OSC can ask for besides the controls."""

        def later(method: Callable[[float], None]) -> Callable[[], None]:
            return lambda: self._inbox.put(lambda: method(time.perf_counter()))

        def panic() -> None:
            self._inbox.put(Played([], self.player.interrupt(time.perf_counter())))
            self.ledger.reset()

        performer = self.performer
        return {
            "takeover": later(performer.takeover),
            "yield": later(performer.give_way),
            "forget": later(performer.forget),
            "panic": panic,
        }

    def run(self) -> None:
        """Performs until ``stop`` is called, from any thread or signal handler; leaves nothing sounding. Raises ``OscError``."""
        with ExitStack() as closing:
            if self._serve_osc:
                osc = self._settings.osc
                self._osc = OscServer(self._controls, self.commands(), osc.host, osc.port, osc.reply_port)
                closing.callback(self._osc.close)
                log.info("OSC on %s:%d", self._osc.host, self._osc.port)
            closing.callback(self._controls.on_change(lambda *_: self._inbox.put(lambda: None)))  # a turned control wakes us
            player = PlayerThread(self.player)
            closing.callback(self._silence)
            self._quietly(self.ledger.reset)  # whatever an earlier, killed session left hanging
            player.start()
            closing.callback(player.stop)
            log.info("listening; play, and pause to hear the answer")
            while not self._stopping.is_set():
                self._turn()

    def stop(self) -> None:
        self._stopping.set()
        self._inbox.put(None)

    def _turn(self) -> None:
        """One round of the performer: work if there is any, else wait for something to happen."""
        try:
            due = self.performer.work(time.perf_counter())
            wait = None if due is None else due - time.perf_counter()
            self._take(wait)
        except Exception as error:
            log.exception("the engine failed; silent until it has recovered")
            self._recover(error)

    def _take(self, wait: float | None) -> None:
        """Everything in the inbox, after waiting ``wait`` seconds at most for the first of it; notes are absorbed together."""
        try:
            item = self._inbox.get_nowait() if wait is not None and wait <= 0 else self._inbox.get(timeout=wait)
        except queue.Empty:
            return
        played: list[Played] = []
        while True:
            if isinstance(item, Played):
                played.append(item)
            elif item is not None:
                self._heard(played)
                played = []
                item()
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                break
        self._heard(played)

    def _heard(self, played: list[Played]) -> None:
        if played:
            interruption = next((one.interruption for one in played if one.interruption is not None), None)
            self.performer.hear([action for one in played for action in one.actions], interruption)

    def _recover(self, error: Exception) -> None:
        """Silence, and a fresh memory: better to have forgotten than to be stuck."""
        if self._osc is not None:
            self._osc.send_error("engine", f"{type(error).__name__}: {error}")
        while not self._stopping.is_set():
            try:
                self.performer.forget(time.perf_counter())
                return
            except Exception:
                log.exception("the engine has not recovered yet")
                self._stopping.wait(RETRY)

    def _entered(self, state: State) -> None:
        self._on_state(state)
        if self._osc is not None:
            self._osc.send_state(state.value)

    def _silence(self) -> None:
        self.player.end()
        self._quietly(self.ledger.reset)
        played = self.player.played
        log.info("closed: %d events played, %d of them late", played, self.player.late)

    @staticmethod
    def _quietly(action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            log.warning("the output port does not answer (%s)", error)
