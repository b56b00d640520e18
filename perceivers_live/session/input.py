"""Routes incoming MIDI messages: clock messages to the clock, bound controllers to their controls, everything else to the music.
Echoes are dropped. Runs in the MIDI driver's callback, so nothing here waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.midi import is_channel_message
from perceivers_live.clock.midi_clock import MidiClock, Transport
from perceivers_live.controls.midi_map import MidiMap
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import MidiSettings
from perceivers_live.midi.echo import EchoGuard


class Received(NamedTuple):
    """The content of one message: music, a bound controller, a transport change, or a takeover request. All fields empty:
    nothing.
    """

    music: Sequence[int] | None = None  # a channel message of the human
    time: float = 0.0  # time of the music in monotonic seconds, with ``input_offset_ms`` applied
    transport: Transport | None = None
    takeover: bool = False  # the takeover key was pressed
    bound: Sequence[int] | None = None  # of a bound controller; it ends what it began at the output before it was bound


NOTHING = Received()


class InputRouter:
    """Routes the messages of one input. Not thread-safe."""

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

    def feed(self, now: float, message: Sequence[int]) -> Received:
        """Routes one raw message that arrived at ``now`` (monotonic seconds)."""
        if message and message[0] >= 0xF0:
            change = self._clock.feed(now, message) if self._clock is not None else None
            return Received(transport=change) if change is not None else NOTHING
        if not is_channel_message(message):
            return NOTHING
        if self._echo.is_echo(now, message):
            return NOTHING
        if self._map is not None and self._map.feed(now, message):
            return Received(bound=message)
        channel = self._settings.input_channel
        if channel and message[0] & 0x0F != channel - 1:
            return NOTHING
        if self._is_takeover_key(message):
            return Received(takeover=message[0] & 0xF0 == 0x90 and message[2] > 0)
        return Received(message, now + float(self._controls.get("input_offset_ms")) / 1000)

    def _is_takeover_key(self, message: Sequence[int]) -> bool:
        return message[0] & 0xF0 in (0x80, 0x90) and message[1] == self._settings.takeover_key
