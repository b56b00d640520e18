"""The driver's thread: each message is sorted, reacted to at once and passed through; the performer hears of it later."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from perceivers_live.clock.midi_clock import Transport
from perceivers_live.controls.registry import Controls
from perceivers_live.performer.performer import Performer
from perceivers_live.session.input import Hearing
from perceivers_live.session.loop import PerformerLoop
from perceivers_live.session.observers import Observers
from perceivers_live.session.output import Output

log = logging.getLogger(__name__)


class Reaction:
    """``hearing`` sorts what comes in."""

    def __init__(
        self,
        hearing: Hearing,
        performer: Performer,
        loop: PerformerLoop,
        output: Output,
        controls: Controls,
        observers: Observers,
    ) -> None:
        self._hearing, self._performer, self._loop = hearing, performer, loop
        self._output, self._controls, self._observers = output, controls, observers

    def hear(self, now: float, message: Sequence[int]) -> None:
        """One raw message from the human, stamped by the caller. Never raises, never waits for the engine."""
        try:
            if self._loop.stopping:
                return
            heard = self._hearing.feed(now, message)
            if heard.actions:
                self._loop.at_once(lambda: self._performer.react(heard.actions))
            if heard.thru:
                self._output.pass_on(message, releases_only=not self._controls.get("thru"))
            for one in heard.actions:
                self._observers.human(one)
            if heard.takeover:
                self._loop.later(self._performer.takeover)
            if heard.transport is not None:
                self._moved(heard.transport)
        except Exception:
            log.exception("a message was not understood: %s", bytes(byte & 0xFF for byte in message[:16]).hex(" "))

    def input_lost(self, now: float) -> None:
        """The input has gone away: the keys that were held on it are up."""
        actions = self._hearing.close(now)
        self._loop.at_once(lambda: self._performer.react(actions))
        self._output.ledger.end_thru()
        for one in actions:
            self._observers.human(one)

    def _moved(self, change: Transport) -> None:
        if change is Transport.STOPPED:  # stop means silence, now
            self._loop.hush()
        self._loop.later(lambda now: self._performer.transport(change, now))
