"""A piano roll in a terminal, drawn row by row while the music plays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from perceivers_live.commands.piano_roll import GREY, Ink, Style, level_of

LOWEST_KEY, KEYS = 21, 88  # a piano's A0, and how many keys there are


class LiveRoll:
    """A scrolling piano roll: time runs downwards, pitch from left to right. Every row is written once.

    Nothing is redrawn, so it also works in a pipe or a log. A row covers ``row_seconds`` (with Unicode, each half of it covers
    half of that). After ``quiet_seconds`` of silence no rows are written until the next note, which starts with a new line of
    octave names. ``write`` receives whole lines. Not thread-safe.
    """

    GUTTER = 7  # "  0:12 "
    LIFE = 2.4  # seconds in which a held note fades from the brightest to the darkest level

    def __init__(
        self,
        write: Callable[[str], None],
        width: int,
        color: bool,
        *,
        unicode: bool = True,
        names: Sequence[str] = ("you", "machine"),
        row_seconds: float = 0.1,
        quiet_seconds: float = 1.5,
    ) -> None:
        self.write = write
        self.style = Style(color, unicode)
        self.names = names
        self.slot_seconds = row_seconds / self.style.split
        self.quiet_slots = max(round(quiet_seconds / self.slot_seconds), 1)
        room = max(width - self.GUTTER - 1 - len(names), 11)
        self.split = 1 if room >= KEYS else self.style.split  # pieces per column
        self.keys = math.ceil(KEYS / (room * self.split))  # keys per piece
        self.columns = math.ceil(KEYS / (self.keys * self.split))
        self.origin: float | None = None
        self.slot = 0
        self.last_sound = -self.quiet_slots - 1
        self.held: dict[tuple[int, int], tuple[int, int]] = {}  # (part, pitch) -> (slot of the onset, velocity)
        self.struck: dict[tuple[int, int], tuple[int, int]] = {}  # the same for every onset within this slot
        self.pedals: dict[int, bool] = {}
        self.upper: dict[int, Ink] = {}
        self.said_legend = False

    def note_on(self, part: int, pitch: int, velocity: int) -> None:
        """``part`` is an index into ``names``. The note starts at the time of the last ``advance``."""
        self.held[part, pitch] = self.struck[part, pitch] = (self.slot, velocity)

    def note_off(self, part: int, pitch: int) -> None:
        self.held.pop((part, pitch), None)

    def pedal(self, part: int, down: bool) -> None:
        self.pedals[part] = down

    def advance(self, now_seconds: float) -> None:
        """Writes the rows that are complete at ``now_seconds``. The time of the first call is shown as 0:00."""
        if self.origin is None:
            self.origin = now_seconds
        target = math.floor((now_seconds - self.origin) / self.slot_seconds + 1e-6)
        while self.slot < target:
            if not self.held and not self.struck and self.slot - self.last_sound > self.quiet_slots:
                self.slot = target  # nothing to show
                self.upper = {}
            else:
                self._finish_slot()
                self.slot += 1

    def _finish_slot(self) -> None:
        inks = self._inks()
        if inks:
            if self.slot - self.last_sound > self.quiet_slots:
                self._write_header()
            self.last_sound = self.slot
        self.struck.clear()
        if self.style.unicode and self.slot % 2 == 0:
            self.upper = inks
        else:
            self._write_row(self.upper if self.style.unicode else inks, inks)
            self.upper = {}

    def _inks(self) -> dict[int, Ink]:
        """What sounds in this slot, by piece of the keyboard. In a shared piece the louder note is shown."""
        inks: dict[int, Ink] = {}
        fade = 80 / (self.LIFE / self.slot_seconds)
        for (part, pitch), (onset, velocity) in {**self.struck, **self.held}.items():
            ink = Ink(part, level_of(velocity - (self.slot - onset) * fade))
            piece = min(max(pitch - LOWEST_KEY, 0), KEYS - 1) // self.keys
            inks[piece] = max(inks.get(piece, ink), ink, key=lambda ink: ink.level)
        return inks

    def _write_row(self, upper: Mapping[int, Ink], lower: Mapping[int, Ink]) -> None:
        row = self.slot // self.style.split
        second = self._second(row)
        time = self._clock(row) if second != self._second(row - 1) else " " * self.GUTTER
        cells = []
        octaves = self._octaves()
        for column in range(self.columns):
            left, right = column * self.split, column * self.split + self.split - 1
            guide = " " if column not in octaves else "┊" if self.style.unicode else "."
            cells.append(self.style.cell((upper.get(left), upper.get(right), lower.get(left), lower.get(right)), guide))
        bar = "┃" if self.style.unicode else "|"
        pedals = (self.style.ink(bar, Ink(part, 2)) if self.pedals.get(part) else " " for part in range(len(self.names)))
        self.write((self.style.paint(time, GREY) + "".join(cells) + " " + "".join(pedals)).rstrip() + "\n")

    def _second(self, row: int) -> int:
        return math.floor(row * self.slot_seconds * self.style.split + 1e-6)

    def _clock(self, row: int) -> str:
        minutes, seconds = divmod(self._second(row), 60)
        return f"{minutes:3d}:{seconds:02d} "

    def _octaves(self) -> dict[int, str]:
        """The column of every C, with its name."""
        return {(pitch - LOWEST_KEY) // (self.keys * self.split): f"C{pitch // 12 - 1}" for pitch in range(24, 109, 12)}

    def _write_header(self) -> None:
        if not self.said_legend:
            self.said_legend = True
            samples = "   ".join(f"{self.style.sample(part)} {name}" for part, name in enumerate(self.names))
            self.write(f"{samples}   {'┃' if self.style.unicode else '|'} pedal\n")
        names = [" "] * (self.columns + 2)
        for column, name in self._octaves().items():
            names[column : column + 2] = name
        line = self._clock(self.slot // self.style.split) + "".join(names)
        self.write(self.style.paint(line.rstrip(), GREY) + "\n")
