"""Receivers of the machine's messages and reports for the tests, and checks of what they received."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from engine.events import Timed
from engine.midi import SUSTAIN
from perceivers_live.player.ledger import Sent
from perceivers_live.player.player import Planned, PlayerObserver

Message = tuple[int, ...]


class PortError(Exception):
    """The simulated port fails."""


class Synthesizer:
    """Simulates the output port and the synthesizer connected to it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.fails: Callable[[Message], bool] = lambda _: False

    def send(self, message: Sequence[int]) -> None:
        if self.fails(tuple(message)):
            raise PortError("the port is gone")
        self.messages.append(tuple(message))

    @property
    def sounding(self) -> set[tuple[int, int]]:
        """(channel, pitch) of each note-on without a later note-off. Controllers do not count as note-offs."""
        held: set[tuple[int, int]] = set()
        for status, first, second in (m for m in self.messages if len(m) == 3):
            if status & 0xF0 == 0x90 and second:
                held.add((status & 0x0F, first))
            elif status & 0xF0 in (0x80, 0x90):
                held.discard((status & 0x0F, first))
        return held

    @property
    def pedals(self) -> set[int]:
        """Channels with the pedal down."""
        values = {m[0] & 0x0F: m[2] for m in self.messages if len(m) == 3 and m[0] & 0xF0 == 0xB0 and m[1] == SUSTAIN}
        return {channel for channel, value in values.items() if value >= 64}

    @property
    def silent(self) -> bool:
        return not self.sounding and not self.pedals

    @property
    def note_ons(self) -> list[int]:
        return [m[1] for m in self.messages if m[0] & 0xF0 == 0x90 and m[2]]


def unbalanced(messages: Iterable[Message]) -> list[str]:
    """Unbalanced note-ons and note-offs: pressed while sounding, released while silent, never released."""
    held: set[tuple[int, int]] = set()
    faults = []
    for status, pitch, velocity in messages:
        key = (status & 0x0F, pitch)
        if status & 0xF0 == 0x90 and velocity:
            faults += [f"{pitch} struck while it sounds"] if key in held else []
            held.add(key)
        elif status & 0xF0 in (0x80, 0x90):
            faults += [] if key in held else [f"{pitch} released while it is silent"]
            held.discard(key)
    return faults + [f"{pitch} never released" for _, pitch in sorted(held)]


class RecordingObserver(PlayerObserver):
    """Receives what the machine plays, in the model's pitches; ``plan``: the reported plan, with what has sounded."""

    def __init__(self, on_sounded: Callable[[Timed], object] = lambda _: None) -> None:
        self._on_sounded = on_sounded
        self.plan: list[Planned] = []
        self.dropped_count = 0  # number of planned events that were dropped

    def sounded(self, one: Sent) -> None:
        self._on_sounded(one.played)

    def planned(self, events: Sequence[Planned]) -> None:
        self.plan += events

    def dropped(self, first: int) -> None:
        stays = [one for one in self.plan if one.serial < first]
        self.dropped_count += len(self.plan) - len(stays)
        self.plan = stays
