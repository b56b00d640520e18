"""The output of a session. It sends through the ledger, reports sent messages to the echo guard, and silences the receiver."""

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
    """``send`` sends a raw message and may raise; the methods of this class do not raise."""

    def __init__(
        self, send: Callable[[Sequence[int]], None], controls: Controls, channel: int, keys: HumanKeys, echo: EchoGuard
    ) -> None:
        self._send, self._echo = send, echo
        self._failing = False  # whether the last message of the human could not be sent
        self.ledger = Ledger(
            self._send_machine,
            channel=channel,
            voicing=lambda: Voicing.from_controls(controls.snapshot()),
            keys=keys,
            send_thru=self._send_thru,
        )

    def _send_machine(self, message: Sequence[int]) -> None:
        self._echo.sent(time.perf_counter(), message)
        self._send(message)

    def _send_thru(self, message: Sequence[int]) -> None:
        self._echo.sent(time.perf_counter(), message, own=False)
        self._send(message)
        self._failing = False

    def pass_on(self, message: Sequence[int], *, releases_only: bool) -> None:
        """Passes a message of the human through to the output. The first of several failures in a row is logged."""
        try:
            self.ledger.thru(message, releases_only=releases_only)
        except Exception as error:  # a fault of the output must not stop the input
            if not self._failing:
                log.warning("cannot send to the output port (%s)", error)
            self._failing = True

    def reset(self) -> None:
        """Silences the receiver: releases the notes and pedals that are known to be on."""
        self._ignoring_faults(self.ledger.reset)

    def reset_channel(self) -> None:
        """Silences the receiver completely, including notes of earlier sessions."""
        self._ignoring_faults(lambda: self.ledger.reset_channel(self._send))

    @staticmethod
    def _ignoring_faults(action: Callable[[], None]) -> None:
        """Logs faults at debug level only: an output that is not connected is expected here."""
        try:
            action()
        except Exception as error:
            log.debug("cannot send to the output port (%s)", error)
