"""The piano roll of a whole performance in a terminal."""

from __future__ import annotations

import re

import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.commands.piano_roll import Note, Part, draw, notes_of

YOU = Part("you", [Note(0, 1, 60, 40), Note(1, 2, 64, 100)], [(0.0, 2.0)])
MACHINE = Part("machine", [Note(2, 3, 67, 80), Note(3, 4, 72, 80)], [(2.0, 2.9), (3.0, 4.0)])


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def row_of(picture: str, label: str) -> str:
    return next(line for line in plain(picture).splitlines() if line.strip().startswith(label))


# --- notes_of ------------------------------------------------------------------------------------------------------


def test_note_ons_are_paired_with_their_note_offs() -> None:
    timed = [
        Timed(0.0, NOTE_ON + 60, 50),
        Timed(0.1, SUSTAIN_DOWN),
        Timed(0.5, NOTE_ON + 64, 70),
        Timed(1.0, NOTE_OFF + 60),
        Timed(1.5, NOTE_OFF + 64),
        Timed(2.0, SUSTAIN_UP),
    ]
    assert notes_of(timed) == ([Note(0.0, 1.0, 60, 50), Note(0.5, 1.5, 64, 70)], [(0.1, 2.0)])


def test_hanging_notes_and_pedal_end_with_the_last_action() -> None:
    timed = [Timed(0.0, NOTE_ON + 60, 50), Timed(1.0, SUSTAIN_DOWN), Timed(2.0, NOTE_ON + 64, 50), Timed(3.0, NOTE_OFF + 64)]
    assert notes_of(timed) == ([Note(0.0, 3.0, 60, 50), Note(2.0, 3.0, 64, 50)], [(1.0, 3.0)])


def test_repeated_note_on_ends_the_first_note() -> None:
    timed = [Timed(0.0, NOTE_ON + 60, 50), Timed(1.0, NOTE_ON + 60, 90), Timed(2.0, NOTE_OFF + 60)]
    assert notes_of(timed)[0] == [Note(0.0, 1.0, 60, 50), Note(1.0, 2.0, 60, 90)]


def test_stray_note_offs_and_pedal_ups_are_ignored() -> None:
    assert notes_of([Timed(0.0, NOTE_OFF + 60), Timed(1.0, SUSTAIN_UP)]) == ([], [])


# --- draw ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("unicode", [False, True])
@pytest.mark.parametrize("width", [24, 60, 200])
def test_lines_do_not_exceed_the_width(width: int, unicode: bool, color: bool) -> None:
    picture = draw([YOU, MACHINE], width, color=color, unicode=unicode)
    assert max(len(line) for line in plain(picture).splitlines()) <= width


def test_the_axes_are_labelled() -> None:
    picture = draw([YOU, MACHINE], 80, color=False)
    assert [line.split("┤")[0].strip() for line in picture.splitlines() if "┤" in line] == ["C5", "C4"]
    assert picture.splitlines()[-1].split(" s")[:3] == [" " * 8 + "0", "      0.5", "    1"]


def test_time_axis_starts_at_the_first_note() -> None:
    picture = draw([Part("you", [Note(61.2, 64, 60, 80)])], 80, color=False)
    assert picture.splitlines()[-1].split()[0] == "61"


def test_the_range_fits_the_notes() -> None:
    low = [line for line in draw([YOU], 60, color=False).splitlines() if "│" in line or "┤" in line]
    wide = [
        line for line in draw([YOU, Part("m", [Note(0, 1, 84, 80)])], 60, color=False).splitlines() if "│" in line or "┤" in line
    ]
    assert len(low) == 3 + 1  # C4..E4 at two semitones a row, and a pedal line
    assert len(wide) == 13 + 2


def test_a_note_is_drawn_at_its_pitch_and_time() -> None:
    picture = draw([Part("y", [Note(0, 1, 60, 80), Note(3, 4, 62, 80)])], 45, color=False)  # ten columns a second
    assert row_of(picture, "C4┤")[5:] == "▄" * 10 + "┈" * 30
    assert picture.splitlines()[1] == "    │" + " " * 30 + "▄" * 10  # D4, in the lower half of its row


def test_semitones_share_a_row_as_halves() -> None:
    picture = draw([Part("y", [Note(0, 2, 60, 80), Note(0, 4, 61, 80)])], 45, color=False)
    assert row_of(picture, "C4┤")[5:] == "█" * 20 + "▀" * 20


def test_repeated_notes_are_drawn_separately() -> None:
    once = draw([Part("y", [Note(0, 4, 60, 80)])], 45, color=False)
    twice = draw([Part("y", [Note(0, 2, 60, 80), Note(2, 4, 60, 80)])], 45, color=False)
    assert row_of(once, "C4┤")[5:] == "▄" * 40
    assert row_of(twice, "C4┤")[5:] == "▄" * 19 + "▖" + "▄" * 20


@pytest.mark.parametrize(("unicode", "glyphs"), [(True, "▄⣤"), (False, "#o")])
def test_parts_are_distinguishable_without_colour(unicode: bool, glyphs: str) -> None:
    parts = [Part("you", [Note(0, 1, 60, 80)]), Part("machine", [Note(1, 2, 60, 80)])]
    row = row_of(draw(parts, 48, color=False, unicode=unicode), "C4")[8:]
    assert row == glyphs[0] * 20 + glyphs[1] * 20


def test_colours_distinguish_parts_and_velocities() -> None:
    def code(part_index: int, velocity: int) -> str:
        parts = [Part("you", []), Part("machine", [])]
        parts[part_index] = Part("x", [Note(0, 1, 60, velocity)])
        picture = draw(parts, 60, color=True)
        found, *_ = re.findall(r"\x1b\[38;5;(\d+)m▄", picture)
        return str(found)

    assert len({code(0, 30), code(0, 100), code(1, 30), code(1, 100)}) == 4


def test_without_colour_there_are_no_escape_sequences() -> None:
    assert "\x1b" not in draw([YOU, MACHINE], 80, color=False)


def test_without_unicode_only_ascii_is_written() -> None:
    assert draw([YOU, MACHINE], 80, color=True, unicode=False).isascii()


def test_each_part_has_a_pedal_line_that_shows_changes() -> None:
    picture = draw([YOU, MACHINE], 48, color=False)
    assert row_of(picture, "you│")[8:] == "━" * 20
    assert row_of(picture, "machine│")[8:] == " " * 20 + "━" * 9 + " " + "━" * 10
    changed_at_once = Part("you", YOU.notes, [(0.0, 1.0), (1.0, 2.0)])
    assert row_of(draw([changed_at_once], 45, color=False), "you│")[5:] == "━" * 19 + "╸" + "━" * 20


def test_the_legend_names_the_parts() -> None:
    legend = draw([YOU, MACHINE], 80, color=False).splitlines()[0]
    assert "██ you, 2 notes" in legend
    assert "⣿⣿ machine, 2 notes" in legend


def test_height_limits_the_lines() -> None:
    wide = Part("you", [Note(0, 1, 21, 80), Note(1, 2, 108, 80)])
    for height in (12, 20, 40):
        picture = draw([wide, MACHINE], 80, height=height, color=False)
        assert len(picture.splitlines()) <= height
        assert row_of(picture, "C8┤")


def test_part_without_notes_shows_no_notes() -> None:
    assert "(no notes)" in draw([Part("you", [])], 80, color=False)


def test_very_short_note_is_drawn() -> None:
    picture = draw([Part("y", [Note(0, 100, 60, 80), Note(50, 50, 61, 80)])], 45, color=False)
    assert any(glyph in row_of(picture, "C4┤") for glyph in "▙▟")
