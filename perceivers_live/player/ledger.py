"""The ledger: which notes sound at the receiver, the machine's and those passed through. The only sender to the output port."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from engine.events import NOTE_OFF, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.keys import PEDAL_DOWN
from engine.midi import SUSTAIN, message_of, releases, releasing_controllers
from engine.midi_state import Message, MidiState, is_channel_mode, is_note_off, is_note_on
from perceivers_live.controls.registry import ControlValues
from perceivers_live.player.human_keys import HumanKeys

log = logging.getLogger(__name__)
Send = Callable[[Sequence[int]], None]


class Voicing(NamedTuple):
    """Changes to the machine's notes at the output. ``transpose``: semitones. ``loudness``: -1..1, positive is louder."""

    transpose: int = 0
    loudness: float = 0.0

    @classmethod
    def from_controls(cls, controls: ControlValues) -> Voicing:
        """The current values of the controls."""
        return cls(int(controls["transpose"]), float(controls["loudness"]))

    def pitch(self, pitch: int) -> int:
        """The transposed pitch, clamped to 0..127."""
        return min(max(pitch + self.transpose, 0), PITCHES - 1)

    def velocity(self, velocity: int) -> int:
        """``velocity`` (1..127) after the loudness curve, which keeps 127."""
        return min(max(round(127 * float((velocity / 127) ** 2.0**-self.loudness)), 1), 127)


class Sent(NamedTuple):
    """An action of the machine: as decided by the model, and as sent, with transposition and loudness. ``fault``: the error if
    the output port did not take it.
    """

    played: Timed
    sent: Timed
    fault: Exception | None = None


class Ledger:
    """Sends actions and tracks which notes sound, so that each note-on gets exactly one note-off.

    All methods may be called from any thread. ``send`` takes one raw MIDI message and may raise; a release that fails is sent
    again with the next message, and by ``send_unsent``. ``notes`` and ``pedal``, and with them the model's history, are
    the same whether or not the output works. Actions have the model's pitches, messages those after ``voicing``. ``keys``: what
    the human holds. ``send_thru``: sends the human's messages; default: ``send``.
    """

    def __init__(
        self,
        send: Send,
        *,
        channel: int = 0,
        voicing: Callable[[], Voicing] = Voicing,
        keys: HumanKeys | None = None,
        send_thru: Send | None = None,
    ) -> None:
        self._send, self._send_thru = send, send_thru or send
        self._channel, self._voicing = channel, voicing
        self.keys = keys or HumanKeys()
        self._lock = threading.RLock()
        self._notes: dict[int, int] = {}  # sounding pitch of the machine -> pitch as sent
        self._pedal = False
        self._unsent: set[int] = set()  # releases that failed: actions, with pitches as sent
        self._thru = MidiState()
        self._unsent_thru: set[Message] = set()  # releases that could not be passed through

    @property
    def notes(self) -> frozenset[int]:
        """The machine's pitches that sound, if the output works."""
        with self._lock:
            return frozenset(self._notes)

    @property
    def pedal(self) -> bool:
        """Whether the machine holds the pedal."""
        return self._pedal

    @property
    def forbidden(self) -> frozenset[int]:
        """Keys that the human holds, and pitches that would sound as one of them or as another sounding pitch of the machine."""
        with self._lock:
            shift = self._voicing().transpose
            taken = self.keys.held | self._thru.pitches(self._channel)
            taken |= {sent for pitch, sent in self._notes.items() if pitch != sent - shift}
            return self.keys.held | {key - shift for key in taken if 0 <= key - shift < PITCHES}

    def release_for(self, timed: Timed) -> list[Sent]:
        """Before an action of the human: releases the machine's note with the same pitch, as decided or as sent, or its pedal.
        Returns the releases.
        """
        with self._lock:
            releases: list[int] = []
            self.send_unsent()
            if timed.action < NOTE_OFF:
                releases = [NOTE_OFF + pitch for pitch, sent in self._notes.items() if timed.action in (pitch, sent)]
            elif timed.action == SUSTAIN_UP and self._pedal and not self.keys.pedal:
                releases = [SUSTAIN_UP]  # the receiver has one pedal for both
            return self._release(timed.time, releases)

    def play(self, action: int, velocity: int = 0, time: float = 0.0) -> Sent | None:
        """Sends one action and returns it, with ``time``; also if the output port fails (``Sent.fault``). Returns None and sends
        nothing for: a note-on of a sounding note or of a key that the human holds, a note-off of a silent note, and the release
        of a pedal that the human holds.
        """
        with self._lock:
            self.send_unsent()
            one = sent = Timed(time, action, velocity)
            if action < NOTE_OFF:
                voicing = self._voicing()
                sent = one._replace(action=voicing.pitch(action), velocity=voicing.velocity(velocity))
                pitch = sent.action
                sounds = action in self._notes or pitch in self._notes.values()  # also after a change of transposition
                if sounds or not self.keys.held.isdisjoint((action, pitch)) or self._thru.holds(self._channel, pitch):
                    return None
                self._notes[action] = pitch
                self._unsent.discard(NOTE_OFF + pitch)
                return Sent(one, sent, self._attempt(message_of(pitch, sent.velocity, self._channel)))
            if action < NOTE_OFF + PITCHES:
                if action - NOTE_OFF not in self._notes:
                    return None
                release = NOTE_OFF + self._notes.pop(action - NOTE_OFF)
                return Sent(one, one._replace(action=release), self._send_release(release))
            if action == SUSTAIN_DOWN:
                self._pedal = True
                self._unsent.discard(SUSTAIN_UP)
                return Sent(one, one, self._attempt(message_of(action, 0, self._channel)))
            return self._release_pedal(time) if action == SUSTAIN_UP and not self.keys.pedal else None

    def _release_pedal(self, time: float) -> Sent:
        self._pedal = False
        up = Timed(time, SUSTAIN_UP)
        return Sent(up, up, self._send_release(SUSTAIN_UP))

    def _send_release(self, action: int) -> Exception | None:
        """Ends a note or the pedal at the receiver, unless it goes on for the human. Returns the error of the output port; the
        release is then sent again later.
        """
        fault = None
        if action == SUSTAIN_UP:
            value = self._thru.pedal(self._channel)  # of the human's passed-through pedal
            if value < PEDAL_DOWN:
                fault = self._attempt((0xB0 | self._channel, SUSTAIN, value))
        elif not self._thru.holds(self._channel, action - NOTE_OFF):
            fault = self._attempt(message_of(action, 0, self._channel))
        (self._unsent.discard if fault is None else self._unsent.add)(action)
        return fault

    def send_unsent(self) -> None:
        """Sends releases again that failed, except of what the human holds now. Never raises."""
        with self._lock:
            for action in sorted(self._unsent):
                if action - NOTE_OFF not in self.keys.held and (action != SUSTAIN_UP or not self.keys.pedal):
                    self._send_release(action)
            unsent, self._unsent_thru = self._unsent_thru, set()
            for message in sorted(unsent):
                if self._thru.release_of(message) is not None:  # nothing else has ended it since
                    with suppress(Exception):  # it is in the set again
                        self._pass_through(message)

    def _attempt(self, message: Sequence[int]) -> Exception | None:
        """Sends a message; returns the error of the output port."""
        try:
            self._send(message)
        except Exception as error:
            return error
        return None

    def thru(self, message: Sequence[int], *, releases_only: bool = False) -> None:
        """Passes through a channel message of the human. ``releases_only``: only what ends earlier ones.

        A channel mode message on the machine's channel is replaced by messages for the human's notes and controllers only.
        """
        with self._lock:
            self.send_unsent()
            if is_channel_mode(message):
                faults = []
                for end in self._thru.releases_after(message):
                    try:
                        self._pass_through(end)
                    except Exception as error:
                        faults.append(error)
                if faults:
                    raise faults[0]
                if not releases_only and message[0] & 0x0F != self._channel:
                    self._send_thru(message)
                return
            passed = self._thru.release_of(message) if releases_only else message
            if passed is not None:
                self._pass_through(passed)

    def _pass_through(self, message: Sequence[int]) -> None:
        """Sends one message, unless it would end a note or the pedal of the machine, and tracks it."""
        own = message[0] & 0x0F == self._channel and message[1] in self._notes.values()
        if is_note_on(message):
            if own and not self._thru.holds(self._channel, message[1]):  # ``release_for`` does not see keys out of range
                self._send(message_of(NOTE_OFF + message[1], 0, self._channel))
            self._thru.apply(message)  # before sending: a message that fails half-way is released later
            self._unsent_thru.discard(_note_off(message))
            self._send_thru(message)
            return
        releases_pedal = tuple(message[:2]) == (0xB0 | self._channel, SUSTAIN) and message[2] < PEDAL_DOWN and self._pedal
        if not releases_pedal and not (is_note_off(message) and own):  # a note of the machine goes on sounding
            try:
                self._send_thru(message)
            except Exception:
                release = self._thru.release_of(message)
                if release is not None:
                    self._unsent_thru.add(_note_off(message) if is_note_off(message) else release)
                raise
        self._thru.apply(message)

    def release_thru(self) -> None:
        """Ends all notes and controllers that were passed through. Never raises: what could not be sent stays in the ledger."""
        with self._lock:
            for message in self._thru.rest_messages():
                try:
                    self._pass_through(message)
                except Exception as error:
                    _warn(error)

    def release_machine(self, now: float = 0.0) -> list[Sent]:
        """Releases all notes and the pedal of the machine; returns these releases, with time ``now``. Never raises."""
        with self._lock:
            self.send_unsent()
            closed = self._release(now, [NOTE_OFF + pitch for pitch in sorted(self._notes)])
            if self._pedal:  # even if the human holds it
                closed.append(self._release_pedal(now))
            for fault in {str(sent.fault): sent.fault for sent in closed if sent.fault is not None}.values():
                _warn(fault)
            return closed

    def _release(self, now: float, actions: Sequence[int]) -> list[Sent]:
        return [sent for action in actions if (sent := self.play(action, 0, now))]

    def switch_output(self, change: Callable[[], None]) -> None:
        """Silences the receiver, then calls ``change``, which connects another one. Nothing is sent in between."""
        with self._lock:
            self.reset()
            self._unsent.clear()
            self._unsent_thru.clear()  # what could not be released does not sound at the new receiver
            self._thru = MidiState()
            change()

    def reset(self) -> None:
        """Silences the receiver: ends all notes, controllers and pedals of machine and human, and resets controllers."""
        with self._lock:
            channels = sorted({self._channel, *self._thru.pedal_channels})
            self.release_machine()
            self.release_thru()
            for message in [message for channel in channels for message in releasing_controllers(channel)]:
                try:
                    self._send(message)
                except Exception as error:  # some receivers have no such controller
                    log.debug("sending a controller to the output port failed (%s)", error)

    def reset_channel(self, send: Send) -> None:
        """Like ``reset``, and sends a note-off for each of the 128 notes of the channel, since some receivers ignore channel mode
        messages. These bypass the echo guard if ``send`` does. Raises what ``send`` raises.
        """
        with self._lock:
            self.reset()
            for message in releases(self._channel):
                send(message)


def _note_off(message: Sequence[int]) -> Message:
    """The note-off of a note-on's or note-off's key."""
    return 0x80 | message[0] & 0x0F, message[1], 64


def _warn(fault: Exception) -> None:
    log.warning("sending a release to the output port failed (%s)", fault)
