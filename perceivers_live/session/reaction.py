"""What is done at once with what the human does, in the driver's thread; the performer hears of it later."""

from __future__ import annotations

from collections.abc import Sequence

from engine.events import Timed
from perceivers_live.clock.midi_clock import Transport
from perceivers_live.controls.registry import Controls
from perceivers_live.performer.performer import Performer
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.session.input import Received
from perceivers_live.session.loop import PerformerLoop
from perceivers_live.session.observers import Observers
from perceivers_live.session.output import Output


class Reaction:
    """Never waits for the engine."""

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

    def take(self, received: Received) -> None:
        """One message, sorted."""
        if received.music is not None:
            self._play(received.time, received.music)
        if received.takeover:
            self._loop.later(self._performer.takeover)
        if received.transport is not None:
            self._move(received.transport)

    def let_go(self, now: float) -> None:
        """What the human holds is up, for everybody, and for the receiver what was passed through."""
        with self._loop.atomic:
            actions = self._keys.release_all(now)
            self._loop.at_once(lambda: self._performer.adapt_plan(actions))
            self._output.ledger.release_thru()
        self._tell(actions)

    def _play(self, time: float, message: Sequence[int]) -> None:
        """One message of the human's music."""
        with self._loop.atomic:  # nobody may see the keys changed who does not yet see what follows from it
            actions = self._keys.feed(time, message)
            if actions:
                self._loop.at_once(lambda: self._performer.adapt_plan(actions))
            self._output.pass_on(message, releases_only=not self._controls.get("thru"))
        self._tell(actions)

    def _tell(self, actions: Sequence[Timed]) -> None:
        for one in actions:
            self._observers.human(one)

    def _move(self, change: Transport) -> None:
        if change is Transport.STOPPED:  # stop means silence, now
            self._loop.hush()
        self._loop.later(lambda now: self._performer.transport(change, now))
