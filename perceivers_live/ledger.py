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
            released = action - NOTE_OFF if NOTE_OFF <= action < NOTE_OFF + PITCHES else None
            if released is None or (self._channel, released) not in self._thru:  # a key the human holds is not ours to cut
                self._send(message_of(action, velocity, self._channel))
            if released is not None:
                self._notes.discard(released)
            elif action == SUSTAIN_UP:
                self._pedal = False
            return True

    def thru(self, message: Sequence[int], *, releases_only: bool = False) -> None:
        """Passes a channel message of the human's on, as it is; with ``releases_only`` just the end of what was passed on."""
        with self._lock:
            kind, channel = message[0] & 0xF0, message[0] & 0x0F
            key = (channel, message[1])
            strike, release = kind == 0x90 and message[2] > 0, kind in (0x80, 0x90)
            pedal = kind == 0xB0 and message[1] == SUSTAIN
            if strike and not releases_only:
                self._thru.add(key)
            elif pedal and not releases_only:
                self._thru_pedals.add(channel)
            ends = (release and not strike and key in self._thru) or (pedal and message[2] < 64 and channel in self._thru_pedals)
            if releases_only and not ends:
                return
            if release and not strike and channel == self._channel and message[1] in self._notes:
                self._thru.discard(key)  # it goes on sounding as ours, and we shall release it
                return
            self._send(message)
            if release and not strike:
                self._thru.discard(key)

    def close(self, now: float = 0.0) -> list[Timed]:
        """Releases every note and the pedal; returns what was sent, as actions at ``now``. Never raises: what could not be
        released stays in the account, for the next time.
        """
        with self._lock:
            actions = [NOTE_OFF + pitch for pitch in sorted(self._notes)] + ([SUSTAIN_UP] if self._pedal else [])
            return [Timed(now, action) for action in actions if self._try(self.play, action)]

    def reset(self) -> None:
        """Leaves the receiver silent whatever it heard before: our notes, those passed through, pedal, controllers."""
        with self._lock:
            self.close()
            self._thru = {key for key in sorted(self._thru) if not self._try(self._send, (0x80 | key[0], key[1], 64))}
            for channel in sorted({self._channel, *self._thru_pedals}):
                controllers = [(0xB0 | channel, number, 0) for number in (SUSTAIN, ALL_NOTES_OFF, RESET_CONTROLLERS)]
                done = [self._try(self._send, message) for message in controllers]
                if all(done):
                    self._thru_pedals.discard(channel)

    @staticmethod
    def _try(send: Callable[..., object], what: object) -> bool:
        """Whether sending worked. One message that fails must not keep the others from going out."""
        try:
            send(what)
        except Exception as error:
            log.warning("the output port does not take a release (%s)", error)
            return False
        return True
