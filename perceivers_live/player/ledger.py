"""The ledger of what sounds at the receiver, ours and what was passed through, and the only way to the output port."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from engine.events import NOTE_OFF, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import SUSTAIN, message_of, releases, releasing_controllers
from perceivers_live.controls.registry import ControlValues
from perceivers_live.player.human_keys import HumanKeys
from perceivers_live.player.passed import PassedThrough, is_channel_mode, is_release, is_strike

log = logging.getLogger(__name__)
Send = Callable[[Sequence[int]], None]
T = TypeVar("T")
PEDAL = 64  # CC 64 from here on is a pedal that is down, to a receiver


class Voicing(NamedTuple):
    """How our notes leave: moved by so many semitones, and louder (positive) or softer by a curve, -1..1."""

    transpose: int = 0
    loudness: float = 0.0

    @classmethod
    def of(cls, controls: ControlValues) -> Voicing:
        """As the controls stand."""
        return cls(int(controls["transpose"]), float(controls["loudness"]))

    def pitch(self, pitch: int) -> int:
        """What it sounds as; what would leave the range of MIDI stays at its end."""
        return min(max(pitch + self.transpose, 0), PITCHES - 1)

    def velocity(self, velocity: int) -> int:
        """``velocity`` 1..127 bent upwards or downwards; the ends stay where they are."""
        return min(max(round(127 * float((velocity / 127) ** 2.0**-self.loudness)), 1), 127)


class Sent(NamedTuple):
    """What the machine played: as the model has it, and as it left, transposed and voiced."""

    played: Timed
    sent: Timed


class Ledger:
    """Sends actions and keeps account of them: every note-on gets exactly one note-off.

    All methods may be called from any thread. ``send`` takes one raw MIDI message; what it raises is passed on by ``play``, after
    the account is settled: a note whose note-off could not be sent is remembered and closed by the next ``close``. Actions are in
    the model's pitches, messages in those that ``voicing`` makes of them. ``keys``: what the human holds; ``pass_on``: sends what
    is the human's, the same way as ``send`` by default.
    """

    def __init__(
        self,
        send: Send,
        *,
        channel: int = 0,
        voicing: Callable[[], Voicing] = Voicing,
        keys: HumanKeys | None = None,
        pass_on: Send | None = None,
    ) -> None:
        self._send, self._pass_on = send, pass_on or send
        self._channel, self._voicing = channel, voicing
        self.keys = keys or HumanKeys()
        self._lock = threading.RLock()
        self._notes: dict[int, int] = {}  # pitches that sound by our doing -> as what they were sent
        self._pedal = False
        self._passed = PassedThrough()

    @property
    def notes(self) -> frozenset[int]:
        """Pitches that sound by our doing."""
        with self._lock:
            return frozenset(self._notes)

    @property
    def pedal(self) -> bool:
        return self._pedal

    @property
    def barred(self) -> frozenset[int]:
        """Pitches that would strike a key which the human holds, or one that sounds as another pitch of ours."""
        with self._lock:
            shift = self._voicing().transpose
            taken = self.keys.held | self._passed.pitches(self._channel)
            taken |= {sent for pitch, sent in self._notes.items() if pitch != sent - shift}
            return frozenset(key - shift for key in taken if 0 <= key - shift < PITCHES)

    def make_room(self, one: Timed) -> list[Sent]:
        """For an action of the human's: if we hold that key, in the music or by what it sounds as, it is given up. Returns the
        releases sent.
        """
        with self._lock:
            ours: list[int] = []
            if one.action < NOTE_OFF:
                ours = [NOTE_OFF + pitch for pitch, sent in self._notes.items() if one.action in (pitch, sent)]
            elif one.action == SUSTAIN_UP and self._pedal and not self.keys.pedal:
                ours = [SUSTAIN_UP]  # one pedal: it comes up for both
            return self._release(one.time, ours)

    def play(self, action: int, velocity: int = 0, time: float = 0.0) -> Sent | None:
        """Sends one action unless it would break the account (a note-on for a sounding note or a key that the human holds, a
        note-off for a silent one) or lift the human's pedal; returns what was sent, as of ``time``.
        """
        with self._lock:
            one = sent = Timed(time, action, velocity)
            if action < NOTE_OFF:
                voicing = self._voicing()
                sent = one._replace(action=voicing.pitch(action), velocity=voicing.velocity(velocity))
                pitch = sent.action
                sounds = action in self._notes or pitch in self._notes.values()  # as another, if the transposition has changed
                if sounds or not self.keys.held.isdisjoint((action, pitch)) or self._passed.holds(self._channel, pitch):
                    return None
                self._notes[action] = pitch  # before it is sent: if sending fails half-way it is closed, at worst once too often
                self._send(message_of(pitch, sent.velocity, self._channel))
            elif action < NOTE_OFF + PITCHES:
                if action - NOTE_OFF not in self._notes:
                    return None
                pitch = self._notes[action - NOTE_OFF]
                sent = one._replace(action=NOTE_OFF + pitch)
                if not self._passed.holds(self._channel, pitch):  # a key the human holds is not ours to cut
                    self._send(message_of(sent.action, 0, self._channel))
                del self._notes[action - NOTE_OFF]
            elif action == SUSTAIN_DOWN:
                self._pedal = True
                self._send(message_of(action, 0, self._channel))
            elif action == SUSTAIN_UP and not self.keys.pedal:
                return self._lift(time)
            else:
                return None
            return Sent(one, sent)

    def _lift(self, time: float) -> Sent:
        """Our pedal comes up: to where the human's foot has it, where that was passed through."""
        foot = self._passed.pedal(self._channel)
        if foot < PEDAL:
            self._send((0xB0 | self._channel, SUSTAIN, foot))
        self._pedal = False
        up = Timed(time, SUSTAIN_UP)
        return Sent(up, up)

    def thru(self, message: Sequence[int], *, releases_only: bool = False) -> None:
        """Passes a channel message of the human's on, as it is; with ``releases_only`` just the end of what was passed on.

        What concerns a whole channel is carried out for the human's notes and controllers alone, where we play on it too.
        """
        with self._lock:
            if is_channel_mode(message):
                for end in self._passed.ended_by(message):
                    self._pass(end)
                if not releases_only and message[0] & 0x0F != self._channel:
                    self._pass_on(message)
                return
            passed = self._passed.end_of(message) if releases_only else message
            if passed is not None:
                self._pass(passed)

    def _pass(self, message: Sequence[int]) -> None:
        """Passes on one message, unless it would end what is ours, and keeps account of it."""
        ours = message[0] & 0x0F == self._channel and message[1] in self._notes.values()
        if is_strike(message):
            if ours and not self._passed.holds(self._channel, message[1]):  # not listened to, or it would have been given up
                self._send(message_of(NOTE_OFF + message[1], 0, self._channel))
            self._passed.take(message)  # before it is sent: if sending fails half-way it is ended, at worst once too often
            self._pass_on(message)
            return
        lifts = tuple(message[:2]) == (0xB0 | self._channel, SUSTAIN) and message[2] < PEDAL and self._pedal
        if not lifts and not (is_release(message) and ours):  # that one goes on sounding as ours, and we shall release it
            self._pass_on(message)
        self._passed.take(message)

    def end_thru(self) -> None:
        """The human's hands are gone: brings what was passed through to rest. Never raises: what could not be sent stays in the
        account, for the next time.
        """
        with self._lock:
            for message in self._passed.ends():
                self._try(self._pass, message)

    def close(self, now: float = 0.0) -> list[Sent]:
        """Releases every note and the pedal; returns what was sent, at ``now``. Never raises: what could not be released stays in
        the account, for the next time.
        """
        with self._lock:
            closed = self._release(now, [NOTE_OFF + pitch for pitch in sorted(self._notes)])
            if self._pedal:  # even under the human's foot
                closed += filter(None, [self._try(self._lift, now)])
            return closed

    def _release(self, now: float, actions: Sequence[int]) -> list[Sent]:
        """Plays these releases as far as the port takes them; returns what was sent."""
        return [sent for action in actions if (sent := self._try(self.play, action, 0, now))]

    def hand_over(self, change: Callable[[], None]) -> None:
        """Leaves the receiver silent, and has ``change`` make it another one before anything else is sent."""
        with self._lock:
            self.reset()
            self._notes.clear()  # what could not be released there is nothing that the next one knows
            self._passed = PassedThrough()
            self._pedal = False
            change()

    def reset(self) -> None:
        """Leaves the receiver silent whatever it heard before: our notes, those passed through, pedal, controllers."""
        with self._lock:
            channels = sorted({self._channel, *self._passed.pedalled})
            self.close()
            self.end_thru()
            for message in [message for channel in channels for message in releasing_controllers(channel)]:
                try:
                    self._send(message)
                except Exception as error:  # nothing is known to need it
                    log.debug("the output port does not take a controller (%s)", error)

    def sweep(self, send: Send) -> None:
        """The same, and releases every note there is on our channel, since some receivers know no other way. Raises what ``send``
        does: who waits for echoes of what is sent need not wait for these.
        """
        with self._lock:
            self.reset()
            for message in releases(self._channel):
                send(message)

    @staticmethod
    def _try(send: Callable[..., T], *what: object) -> T | None:
        """What sending returns; None if it failed. One message that fails must not keep the others from going out."""
        try:
            return send(*what)
        except Exception as error:
            log.warning("the output port does not take a release (%s)", error)
            return None
