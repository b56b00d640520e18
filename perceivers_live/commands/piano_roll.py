"""A piano roll of a whole performance in a terminal. ``live_roll`` draws one while the music plays.

A character cell is split into 2 x 2 quarters. In ``draw`` a text row shows two semitones, and a column two time steps.
The quarters come from Unicode's quadrants (``▞``) and, to tell a second part from the first without colour, from Braille
patterns of the same shape (``⢣``). With ``unicode=False`` only ASCII is written, and cells are not split.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.events import NOTE_OFF, SUSTAIN_DOWN, SUSTAIN_UP, Timed

QUADRANTS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"  # by mask: 1 upper left, 2 upper right, 4 lower left, 8 lower right
BRAILLE_QUARTERS = (0x03, 0x18, 0x44, 0xA0)  # the dots of each quarter, in the order of the mask's bits
DASHES = " ╸╺━"  # by mask: 1 left half, 2 right half
ASCII_PARTS = "#o+"

RAMPS = (  # 256-colour codes of each part, soft to loud
    (94, 130, 172, 208, 214, 221),
    (24, 31, 38, 45, 81, 123),
    (90, 127, 163, 170, 207, 219),
)
LEVELS = len(RAMPS[0])
GREY = 242


@dataclass(frozen=True)
class Note:
    """Seconds, MIDI key number, MIDI velocity."""

    start: float
    end: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """The notes of one player; ``pedal`` has the (down, up) times of the sustain pedal in seconds."""

    name: str
    notes: Sequence[Note]
    pedal: Sequence[tuple[float, float]] = ()


class Ink(NamedTuple):
    """The content of a quarter of a cell: index of a part and brightness, 0..LEVELS-1."""

    part: int
    level: int


Quarters = tuple[Ink | None, Ink | None, Ink | None, Ink | None]  # upper left, upper right, lower left, lower right


@dataclass(frozen=True)
class Style:
    color: bool
    unicode: bool = True

    @property
    def split(self) -> int:
        """Number of pieces of a cell in each direction."""
        return 2 if self.unicode else 1

    def paint(self, text: str, foreground: int, background: int | None = None) -> str:
        if not self.color:
            return text
        behind = "" if background is None else f";48;5;{background}"
        return f"\x1b[38;5;{foreground}{behind}m{text}\x1b[0m"

    def ink(self, text: str, ink: Ink, behind: Ink | None = None) -> str:
        return self.paint(text, _code(ink), None if behind is None else _code(behind))

    def sample(self, part: int) -> str:
        """The colours or the texture of a part, for the legend."""
        levels = range(LEVELS) if self.color else (LEVELS - 1, LEVELS - 1)
        return "".join(self.cell((Ink(part, level),) * 4) for level in levels)

    def cell(self, quarters: Quarters, empty: str = " ") -> str:
        """One character for four quarters; ``empty``, in grey, if all are empty."""
        count = Counter(ink for ink in quarters if ink is not None)
        if not count:
            return empty if empty == " " else self.paint(empty, GREY)
        front, *rest = (ink for ink, _ in count.most_common(2))
        if not self.unicode:
            return self.ink(ASCII_PARTS[front.part % len(ASCII_PARTS)], front)
        if rest and self.color and None not in quarters:  # two inks fill the cell: foreground and background
            mask = sum(1 << bit for bit, ink in enumerate(quarters) if ink == front)
            return self.ink(QUADRANTS[mask], front, rest[0])
        mask = sum(1 << bit for bit, ink in enumerate(quarters) if ink is not None)
        if self.color or front.part % 2 == 0:
            return self.ink(QUADRANTS[mask], front)
        return chr(0x2800 + sum(dots for bit, dots in enumerate(BRAILLE_QUARTERS) if mask >> bit & 1))


def _code(ink: Ink) -> int:
    return RAMPS[ink.part % len(RAMPS)][ink.level]


def level_of(velocity: float) -> int:
    """The brightness of a velocity. Velocities 24..104 span the levels; others are rare and clipped."""
    return min(max(int((velocity - 24) / 80 * LEVELS), 0), LEVELS - 1)


# --- from timed actions to notes -----------------------------------------------------------------------------------


def notes_of(timed: Iterable[Timed]) -> tuple[list[Note], list[tuple[float, float]]]:
    """Notes sorted by their start, and (down, up) times of the pedal, in seconds.

    A note-on for a sounding key ends the earlier note. Notes without a note-off end with the last action.
    """
    notes: list[Note] = []
    pedal: list[tuple[float, float]] = []
    sounding: dict[int, tuple[float, int]] = {}
    down: float | None = None
    last = 0.0

    def end_note(pitch: int, time: float) -> None:
        if pitch in sounding:
            start, velocity = sounding.pop(pitch)
            notes.append(Note(start, time, pitch, velocity))

    for time, action, velocity in timed:
        last = max(last, time)
        if action < NOTE_OFF:
            end_note(action, time)
            sounding[action] = (time, velocity)
        elif action < SUSTAIN_DOWN:
            end_note(action - NOTE_OFF, time)
        elif action == SUSTAIN_DOWN and down is None:
            down = time
        elif action == SUSTAIN_UP and down is not None:
            pedal.append((down, time))
            down = None
    for pitch in list(sounding):
        end_note(pitch, last)
    if down is not None:
        pedal.append((down, last))
    return sorted(notes, key=lambda note: (note.start, note.pitch)), pedal


# --- a whole performance -------------------------------------------------------------------------------------------


def draw(parts: Sequence[Part], width: int, *, height: int | None = None, color: bool, unicode: bool = True) -> str:
    """Draws several parts in one piano roll: time to the right in seconds, pitch upwards, a pedal line for each part, a legend.

    Lines have at most ``width`` characters (at least 24). The roll spans the pitches present, with half a row for a semitone.
    With ``height``, semitones share half rows so that the picture has at most that many lines, where possible. Colours are of
    ANSI's 256, brighter for louder notes.
    """
    style = Style(color, unicode)
    width = max(width, 24)
    legend = _legend(parts, width, style)
    notes = [note for part in parts for note in part.notes]
    if not notes:
        return "\n".join([*legend, "(no notes)"])
    gutter = min(max(4, *(len(part.name) for part in parts)), 12)
    pedals = [up_down for part in parts for up_down in part.pedal]
    first = math.floor(min([note.start for note in notes] + [down for down, _ in pedals]))
    end = max([note.end for note in notes] + [up for _, up in pedals])
    time = _Scale(first, max(end - first, 0.1), (width - gutter - 1) * style.split)
    overhead = len(legend) + len(parts) + 2
    rows = _roll(parts, gutter, time, None if height is None else height - overhead, style)
    lines = [_pedal_line(index, part, gutter, time, style) for index, part in enumerate(parts)]
    return "\n".join(line.rstrip() for line in [*legend, *rows, *lines, *_time_axis(gutter, time, style)])


class _Scale(NamedTuple):
    """Converts seconds to pieces of a column."""

    first: float
    seconds: float
    pieces: int

    def at(self, time: float) -> int:
        return min(max(int((time - self.first) / self.seconds * self.pieces), 0), self.pieces - 1)

    def span(self, start: float, end: float) -> tuple[int, int]:
        """The first piece and the one after the last; at least one piece."""
        begin = self.at(start)
        return begin, max(begin + 1, min(round((end - self.first) / self.seconds * self.pieces), self.pieces))


def _legend(parts: Sequence[Part], width: int, style: Style) -> list[str]:
    """Lines of the legend, with as many entries in each as fit."""
    entries = []
    for index, part in enumerate(parts):
        length = LEVELS if style.color else 2
        label = f" {part.name}, {len(part.notes)} notes"[: width - length]
        entries.append((length + len(label), style.sample(index) + label))
    dash = "━━" if style.unicode else "=="
    entries.append((len(dash) + 6, f"{style.paint(dash, GREY)} pedal"))
    if style.color:
        entries.append((len("brighter is louder"), style.paint("brighter is louder", GREY)))
    lines, room = [""], width
    for length, text in entries:
        if lines[-1] and room < length + 3:
            lines.append("")
            room = width
        elif lines[-1]:
            lines[-1] += "   "
            room -= 3
        lines[-1] += text
        room -= length
    return lines


def _roll(parts: Sequence[Part], gutter: int, time: _Scale, room: int | None, style: Style) -> Iterator[str]:
    pitches = [note.pitch for part in parts for note in part.notes]
    lowest = min(pitches) // 2 * 2  # from an even pitch, so that every C shares its row with the C sharp above
    semitones = max(pitches) + 1 - lowest
    step = 1  # semitones to a piece of a row
    while room is not None and math.ceil(semitones / (step * style.split)) > max(room, 1):
        step += 1
    rows = math.ceil(semitones / (step * style.split))
    grid = _grid(parts, time, lowest, step, rows * style.split)
    for row in reversed(range(rows)):
        inside = range(lowest + row * step * style.split, lowest + (row + 1) * step * style.split)
        label = next((f"C{pitch // 12 - 1}" for pitch in inside if pitch % 12 == 0), "")
        tick, guide = ("┤┈" if label else "│ ") if style.unicode else ("+." if label else "| ")
        upper, lower = grid[(row + 1) * style.split - 1], grid[row * style.split]
        cells = (
            style.cell((upper[left], upper[left + style.split - 1], lower[left], lower[left + style.split - 1]), guide)
            for left in range(0, time.pieces, style.split)
        )
        yield style.paint(f"{label:>{gutter}}{tick}", GREY) + "".join(cells)


def _grid(parts: Sequence[Part], time: _Scale, lowest: int, step: int, height: int) -> list[list[Ink | None]]:
    """Ink by half row (from below) and half column. If a key is struck again, the earlier note ends one piece before."""
    grid: list[list[Ink | None]] = [[None] * time.pieces for _ in range(height)]
    for index, part in enumerate(parts):
        next_start: dict[int, int] = {}
        for note in sorted(part.notes, key=lambda note: note.start, reverse=True):
            start, end = time.span(note.start, note.end)
            end = max(start + 1, min(end, next_start.get(note.pitch, end + 1) - 1))
            next_start[note.pitch] = start
            row = grid[(note.pitch - lowest) // step]
            row[start:end] = [Ink(index, level_of(note.velocity))] * (end - start)
    return grid


def _pedal_line(index: int, part: Part, gutter: int, time: _Scale, style: Style) -> str:
    pieces = [False] * time.pieces
    for down, up in part.pedal:
        start, end = time.span(down, up)
        pieces[start:end] = [True] * (end - start)
        if start:
            pieces[start - 1] = False  # so that even a quick pedal change is visible
    if style.unicode:
        text = "".join(DASHES[pieces[left] + 2 * pieces[left + 1]] for left in range(0, time.pieces, 2))
    else:
        text = "".join("=" if piece else " " for piece in pieces)
    tick = "│" if style.unicode else "|"
    return style.paint(f"{part.name[:gutter]:>{gutter}}{tick}", GREY) + style.ink(text, Ink(index, LEVELS // 2))


def _time_axis(gutter: int, time: _Scale, style: Style) -> list[str]:
    columns = time.pieces // style.split
    steps = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)
    widest = len(f"{time.first + time.seconds:.0f} s") + 3
    step = next((step for step in steps if step / time.seconds * columns >= widest), steps[-1])
    line = "─" if style.unicode else "-"
    axis, labels = [line] * columns, [" "] * columns
    for tick in range(int(time.seconds / step) + 1):
        column = int(tick * step / time.seconds * columns)
        label = f"{time.first + tick * step:g} s"
        if column < columns:
            axis[column] = "┴" if style.unicode else "+"
        if column + len(label) <= columns:
            labels[column : column + len(label)] = label
    corner = "└" if style.unicode else "+"
    return [style.paint(" " * gutter + corner + "".join(axis), GREY), " " * (gutter + 1) + "".join(labels)]
