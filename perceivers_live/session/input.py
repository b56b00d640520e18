"""What comes in at the MIDI port, sorted: beats to the clock, controllers to what they are bound to, echoes to nowhere, and the
rest is music. Runs in the driver's callback, so nothing here waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.events import NOTE_OFF, NOTE_ON, PITCHES, SUSTAIN_UP, Timed
from engine.midi import SUSTAIN, MessageReader, is_channel_message
from perceivers_live.clock.midi_clock import MidiClock, Transport
from perceivers_live.controls.midi_map import MidiMap
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import MidiSettings
from perceivers_live.midi.echo import EchoGuard


class Received(NamedTuple):
    """What one message meant: music, and what of it may be passed on; a change of the transport; a wish to hand over."""

    actions: Sequence[Timed] = ()
    thru: bool = False  # the message may be passed on as it is
    transport: Transport | None = None
    takeover: bool = False


NOTHING = Received()


class Hearing:
    """Fed by one thread."""

    def __init__(
        self,
        settings: MidiSettings,
        controls: Controls,
        echo: EchoGuard,
        *,
        clock: MidiClock | None = None,
        midi_map: MidiMap | None = None,
    ) -> None:
        self._settings, self._controls, self._echo = settings, controls, echo
        self._clock, self._map = clock, midi_map
        self._reader = MessageReader()
        self._heard: set[int] = set()  # keys that are down and within the range that is listened to

    def feed(self, now: float, message: Sequence[int]) -> Received:
        """One raw message at a time in monotonic seconds."""
        if message and message[0] >= 0xF0:
            change = self._clock.feed(now, message) if self._clock is not None else None
            return Received(transport=change) if change is not None else NOTHING
        if not is_channel_message(message):
            return NOTHING
        if self._is_echo(now, message) or (self._map is not None and self._map.feed(now, message)):
            return NOTHING
        channel = self._settings.input_channel
        if channel and message[0] & 0x0F != channel - 1:
            return NOTHING
        if self._is_trigger(message):
            return Received(takeover=message[0] & 0xF0 == 0x90 and message[2] > 0)
        at = now + float(self._controls.get("input_offset_ms")) / 1000
        return Received([one for one in self._reader.feed(at, message) if self._is_listened_to(one)], thru=True)

    def close(self, now: float) -> list[Timed]:
        """The input is gone: whatever is still held is let go."""
        released = [one for one in self._reader.close(now) if one.action == SUSTAIN_UP or self._is_listened_to(one)]
        self._heard.clear()
        return released

    def _is_echo(self, now: float, message: Sequence[int]) -> bool:
        kind, number, reader = message[0] & 0xF0, message[1], self._reader
        if kind in (0x80, 0x90):
            strike = kind == 0x90 and message[2] > 0
            doubtful = not strike and number in reader.held  # the human lets go of a key
        elif kind == 0xB0 and number == SUSTAIN:
            doubtful = message[2] < 64 and reader.pedal
        else:
            doubtful = True  # passed through a moment ago, and on its way back: a wheel, a fader, a pressure
        return self._echo.is_echo(now, message, doubtful=doubtful)

    def _is_trigger(self, message: Sequence[int]) -> bool:
        return message[0] & 0xF0 in (0x80, 0x90) and message[1] == self._settings.takeover_key

    def _is_listened_to(self, one: Timed) -> bool:
        if one.action < NOTE_OFF:
            pitch = one.action - NOTE_ON
            low, high = sorted((int(self._controls.get("listen_low")), int(self._controls.get("listen_high"))))
            if low <= pitch <= high:
                self._heard.add(pitch)
            return low <= pitch <= high
        if one.action < NOTE_OFF + PITCHES:
            pitch = one.action - NOTE_OFF
            was = pitch in self._heard
            self._heard.discard(pitch)
            return was
        return True
