"""Immediate reaction to the human's input, on the MIDI driver's thread. The performer's thread processes the same input later."""

from __future__ import annotations

from collections.abc import Sequence

from engine.events import Timed
from engine.midi import MessageReader
from perceivers_live.clock.midi_clock import Transport
from perceivers_live.controls.registry import Controls
from perceivers_live.performer.performer import Performer
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.session.input import Received
from perceivers_live.session.loop import PerformerLoop
from perceivers_live.session.observers import Observers
from perceivers_live.session.output import Output


class Reaction:
    """Handles routed input. Never waits for the engine."""

    def __init__(
        self,
        keys: HumanKeys,
        performer: Performer,
        loop: PerformerLoop,
        output: Output,
        controls: Controls,
        observers: Observers,
    ) -> None:
        self._keys, self._performer, self._loop = keys, performer, loop
        self._output, self._controls, self._observers = output, controls, observers
        self._reader = MessageReader()  # for the observers, of all keys, also those outside the range the machine listens to

    def handle(self, received: Received) -> None:
        """Handles one routed message."""
        if received.music is not None:
            self._handle_music(received.time, received.music)
        if received.bound is not None:
            self._output.pass_on(received.bound, releases_only=True)
        if received.takeover:
            self._loop.submit(self._performer.takeover)
        if received.transport is not None:
            self._handle_transport(received.transport)

    def release_all(self, now: float) -> None:
        """Releases the keys and the pedal that the human holds, and on the output those that were passed through."""
        with self._loop.lock:
            actions = self._keys.release_all(now)
            self._loop.run_now(lambda: self._performer.adapt_plan(actions))
            self._output.ledger.release_thru()
            released = self._reader.close(now)
        self._notify(released)

    def _handle_music(self, time: float, message: Sequence[int]) -> None:
        """Updates the held keys, lets the player react, and passes the message through."""
        with self._loop.lock:  # other threads see the changed keys and the shortened plan together
            actions = self._keys.feed(time, message)
            if actions:
                self._loop.run_now(lambda: self._performer.adapt_plan(actions))
            self._output.pass_on(message, releases_only=not self._controls.get("thru"))
            played = self._reader.feed(time, message)
        self._notify(played)

    def _notify(self, actions: Sequence[Timed]) -> None:
        for one in actions:
            self._observers.human(one)

    def _handle_transport(self, change: Transport) -> None:
        if change is Transport.MOVED:  # the beats have moved already; a scrubbed sequencer sends many of these
            self._loop.inbox.wake()
            return
        if change is Transport.STOPPED:  # the transport's stop silences immediately
            self._loop.silence()
        self._loop.submit(lambda now: self._performer.transport(change, now))
