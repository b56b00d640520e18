"""The piano roll that is written while the music plays."""

from __future__ import annotations

import re
from typing import Any

import pytest

from perceivers_live.commands.live_roll import LiveRoll


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def live(width: int = 120, color: bool = False, **options: Any) -> tuple[LiveRoll, list[str]]:
    lines: list[str] = []
    return LiveRoll(lines.append, width, color, **options), lines


def test_nothing_is_written_before_the_first_note() -> None:
    roll, lines = live()
    for tenth in range(100):
        roll.advance(tenth / 10)
    assert lines == []


def test_a_row_is_written_per_tenth_of_a_second() -> None:
    roll, lines = live()
    roll.advance(0.0)
    roll.note_on(0, 60, 80)
    roll.advance(1.0)
    legend, header, *rows = lines
    assert "you" in legend
    assert "machine" in legend
    assert header.split() == ["0:00", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8"]
    assert len(rows) == 10
    assert all(line.endswith("\n") for line in lines)
    assert rows[0].startswith("  0:00 ")
    column = header.index("C4")
    assert [row[column] for row in rows] == ["█"] * 10


def test_a_note_shorter_than_a_row_is_shown() -> None:
    roll, lines = live()
    roll.advance(0.0)
    roll.note_on(0, 60, 80)
    roll.note_off(0, 60)
    roll.advance(0.3)
    column = lines[1].index("C4")
    assert [row[column] for row in lines[2:]] == ["▀", "┊", "┊"]  # in the first half of the first row


def test_live_parts_are_distinguishable() -> None:
    roll, lines = live()
    roll.advance(0.0)
    roll.note_on(0, 60, 80)
    roll.note_on(1, 72, 80)
    roll.advance(0.1)
    assert lines[2][lines[1].index("C4")] == "█"
    assert lines[2][lines[1].index("C5")] == "⣿"


@pytest.mark.parametrize("width", [20, 40, 52, 80, 98, 200])
@pytest.mark.parametrize("unicode", [False, True])
def test_the_keyboard_fits_the_width(width: int, unicode: bool) -> None:
    roll, lines = live(width, unicode=unicode, names=("a", "b"))
    roll.advance(0.0)
    for pitch in (0, 21, 60, 108, 127):
        roll.note_on(0, pitch, 80)
    for part in (0, 1):
        roll.pedal(part, True)
    roll.advance(0.2)
    assert max(len(line.rstrip("\n")) for line in lines[1:]) <= max(width, 21)
    assert unicode or "".join(lines).isascii()


def test_the_pedal_is_shown_for_each_part() -> None:
    roll, lines = live(color=False)
    roll.advance(0.0)
    roll.note_on(0, 60, 80)
    roll.pedal(1, True)
    roll.advance(0.1)
    roll.pedal(0, True)
    roll.advance(0.2)
    roll.pedal(0, False)
    roll.pedal(1, False)
    roll.advance(0.3)
    assert [row.rstrip("\n")[-2:] for row in lines[2:4]] == [" ┃", "┃┃"]
    assert "┃" not in lines[4]


def test_rows_pause_in_silence_and_resume_with_a_new_header() -> None:
    roll, lines = live(quiet_seconds=1.0)
    roll.advance(0.0)
    roll.note_on(0, 60, 80)
    roll.advance(1.0)
    roll.note_off(0, 60)
    roll.advance(5.0)
    before = len(lines)
    roll.advance(3600.0)
    assert len(lines) == before <= 2 + 10 + 12
    roll.note_on(1, 60, 80)
    roll.advance(3600.5)
    assert lines[before].startswith(" 60:00 ")  # a new header
    assert len(lines) == before + 1 + 5


def test_rows_do_not_depend_on_how_often_time_advances() -> None:
    def play(step: float) -> list[str]:
        roll, lines = live()
        for count in range(int(2 / step) + 1):
            now = count * step
            roll.advance(now)
            if abs(now - 0.5) < 1e-9:
                roll.note_on(0, 60, 80)
            if abs(now - 1.0) < 1e-9:
                roll.note_off(0, 60)
        return lines

    assert play(0.5) == play(0.01)


def test_the_clock_starts_with_the_first_advance() -> None:
    roll, lines = live()
    roll.advance(98765.4)
    roll.note_on(0, 60, 80)
    roll.advance(98765.6)
    assert lines[1].startswith("  0:00 ")


def test_held_notes_fade_in_colour() -> None:
    roll, lines = live(color=True)
    roll.advance(0.0)
    roll.note_on(0, 60, 110)
    roll.advance(3.0)
    codes = re.findall(r"\x1b\[38;5;(\d+)[;m0-9]*█", "".join(lines[2:]))
    assert codes[0] != codes[-1]
