"""The ledger of what we made sound, and the only way to the output port."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from engine.events import NOTE_OFF, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import ALL_NOTES_OFF, RESET_CONTROLLERS, SUSTAIN, message_of

log = logging.getLogger(__name__)
Send = Callable[[Sequence[int]], None]


class Ledger:
    """Sends actions and keeps account of them: every note-on gets exactly one note-off.

    All methods may be called from any thread. ``send`` takes one raw MIDI message; what it raises is passed on by ``play``, after
    the account is settled: a note whose note-off could not be sent is remembered and closed by the next ``close``.
    """

    def __init__(self, send: Send, *, channel: int = 0) -> None:
        self._send = send
        self._channel = channel
        self._lock = threading.RLock()
        self._notes: set[int] = set()
        self._pedal = False
        self._thru: set[tuple[int, int]] = set()  # (channel, pitch) of the human's notes, passed through
        self._thru_pedals: set[int] = set()  # channels

    @property
    def notes(self) -> frozenset[int]:
        """Pitches that sound by our doing."""
        with self._lock:
            return frozenset(self._notes)

    @property
    def pedal(self) -> bool:
        return self._pedal

    def play(self, action: int, velocity: int = 0) -> bool:
        """Sends one action unless it would break the account (a note-on for a sounding note, a note-off for a silent one)."""
        with self._lock:
            if action < NOTE_OFF:
                if action in self._notes:
                    return False
                self._notes.add(action)  # before it is sent: if sending fails half-way it is closed, at worst once too often
            elif action < NOTE_OFF + PITCHES:
                if action - NOTE_OFF not in self._notes:
                    return False
            elif action == SUSTAIN_DOWN:
                self._pedal = True
            elif action != SUSTAIN_UP:
                return False
            self._send(message_of(action, velocity, self._channel))
            if NOTE_OFF <= action < NOTE_OFF + PITCHES:
                self._notes.discard(action - NOTE_OFF)
            elif action == SUSTAIN_UP:
                self._pedal = False
            return True

    def thru(self, message: Sequence[int]) -> None:
        """Passes a message of the player's on, as it is."""
        with self._lock:
            kind, key = message[0] & 0xF0, (message[0] & 0x0F, message[1] if len(message) > 1 else 0)
            if kind == 0x90 and message[2]:
                self._thru.add(key)
            elif kind in (0x80, 0x90):
                self._thru.discard(key)
            elif kind == 0xB0 and message[1] == SUSTAIN:
                self._thru_pedals.add(message[0] & 0x0F)
            self._send(message)

    def close(self, now: float = 0.0) -> list[Timed]:
        """Releases every note and the pedal; returns what was sent, as actions at ``now``. Never raises: what could not be
        released stays in the account, for the next time.
        """
        with self._lock:
            actions = [NOTE_OFF + pitch for pitch in sorted(self._notes)] + ([SUSTAIN_UP] if self._pedal else [])
            return [Timed(now, action) for action in actions if self._try(lambda action=action: self.play(action))]

    def reset(self) -> None:
        """Leaves the receiver silent whatever it heard before: our notes, those passed through, pedal, controllers."""
        with self._lock:
            self.close()
            messages = [(0x80 | channel, pitch, 64) for channel, pitch in sorted(self._thru)]
            for channel in sorted({self._channel, *self._thru_pedals}):
                messages += [(0xB0 | channel, number, 0) for number in (SUSTAIN, ALL_NOTES_OFF, RESET_CONTROLLERS)]
            self._thru.clear()
            self._thru_pedals.clear()
            for message in messages:
                self._try(lambda message=message: self._send(message))

    @staticmethod
    def _try(send: Callable[[], object]) -> bool:
        """Whether sending worked. One message that fails must not keep the others from going out."""
        try:
            send()
        except Exception as error:
            log.warning("the output port does not take a release (%s)", error)
            return False
        return True
