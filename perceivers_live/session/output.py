"""The output of a session: the ledger, the echo guard told of what it sends, and what clears the receiver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from perceivers_live.controls.registry import Controls
from perceivers_live.midi.echo import EchoGuard
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.player.ledger import Ledger, Voicing

log = logging.getLogger(__name__)


class Output:
    """``send`` takes raw messages and may raise; nothing here does."""

    def __init__(
        self, send: Callable[[Sequence[int]], None], controls: Controls, channel: int, keys: HumanKeys, echo: EchoGuard
    ) -> None:
        self._send, self._echo = send, echo
        self.ledger = Ledger(
            self._sent,
            channel=channel,
            voicing=lambda: Voicing.from_controls(controls.snapshot()),
            keys=keys,
            send_thru=self._passed_on,
        )

    def _sent(self, message: Sequence[int]) -> None:
        self._echo.sent(time.perf_counter(), message)
        self._send(message)

    def _passed_on(self, message: Sequence[int]) -> None:
        self._echo.sent(time.perf_counter(), message, own=False)
        self._send(message)

    def pass_on(self, message: Sequence[int], *, releases_only: bool) -> None:
        """A message of the human's."""
        try:
            self.ledger.thru(message, releases_only=releases_only)
        except Exception as error:  # the output's fault must not make us deaf
            log.warning("the output port does not answer (%s)", error)

    def reset(self) -> None:
        """Leaves the receiver silent, as far as is known what sounds there."""
        self._quietly(self.ledger.reset)

    def sweep(self) -> None:
        """The same, whatever sounds there."""
        self._quietly(lambda: self.ledger.reset_channel(self._send))

    @staticmethod
    def _quietly(action: Callable[[], None]) -> None:
        """For an output that is likely to be silent: one that is away is nothing to warn of."""
        try:
            action()
        except Exception as error:
            log.debug("the output port does not answer (%s)", error)
