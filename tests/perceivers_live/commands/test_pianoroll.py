import re

import mido
import pytest

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from perceivers_live.commands.demo import bundled_call
from perceivers_live.commands.liveroll import LiveRoll
from perceivers_live.commands.pianoroll import Note, Part, draw, notes_of
from tools import compose_calls as compose

BUNDLED = bundled_call().parent
YOU = Part("you", [Note(0, 1, 60, 40), Note(1, 2, 64, 100)], [(0.0, 2.0)])
MACHINE = Part("machine", [Note(2, 3, 67, 80), Note(3, 4, 72, 80)], [(2.0, 2.9), (3.0, 4.0)])


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def row_of(picture, label):
    return next(line for line in plain(picture).splitlines() if line.strip().startswith(label))


# --- notes_of ------------------------------------------------------------------------------------------------------


def test_note_ons_are_paired_with_their_note_offs():
    timed = [
        Timed(0.0, NOTE_ON + 60, 50),
        Timed(0.1, SUSTAIN_DOWN),
        Timed(0.5, NOTE_ON + 64, 70),
        Timed(1.0, NOTE_OFF + 60),
        Timed(1.5, NOTE_OFF + 64),
        Timed(2.0, SUSTAIN_UP),
    ]
    assert notes_of(timed) == ([Note(0.0, 1.0, 60, 50), Note(0.5, 1.5, 64, 70)], [(0.1, 2.0)])


def test_hanging_notes_and_pedal_end_with_the_last_action():
    timed = [Timed(0.0, NOTE_ON + 60, 50), Timed(1.0, SUSTAIN_DOWN), Timed(2.0, NOTE_ON + 64, 50), Timed(3.0, NOTE_OFF + 64)]
    assert notes_of(timed) == ([Note(0.0, 3.0, 60, 50), Note(2.0, 3.0, 64, 50)], [(1.0, 3.0)])


def test_repeated_note_on_ends_the_first_note():
    timed = [Timed(0.0, NOTE_ON + 60, 50), Timed(1.0, NOTE_ON + 60, 90), Timed(2.0, NOTE_OFF + 60)]
    assert notes_of(timed)[0] == [Note(0.0, 1.0, 60, 50), Note(1.0, 2.0, 60, 90)]


def test_stray_note_offs_and_pedal_ups_are_ignored():
    assert notes_of([Timed(0.0, NOTE_OFF + 60), Timed(1.0, SUSTAIN_UP)]) == ([], [])


# --- draw ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("unicode", [False, True])
@pytest.mark.parametrize("width", [24, 60, 200])
def test_lines_do_not_exceed_the_width(width, unicode, color):
    picture = draw([YOU, MACHINE], width, color=color, unicode=unicode)
    assert max(len(line) for line in plain(picture).splitlines()) <= width


def test_the_axes_are_labelled():
    picture = draw([YOU, MACHINE], 80, color=False)
    assert [line.split("┤")[0].strip() for line in picture.splitlines() if "┤" in line] == ["C5", "C4"]
    assert picture.splitlines()[-1].split(" s")[:3] == [" " * 8 + "0", "      0.5", "    1"]


def test_time_axis_starts_at_the_first_note():
    picture = draw([Part("you", [Note(61.2, 64, 60, 80)])], 80, color=False)
    assert picture.splitlines()[-1].split()[0] == "61"


def test_the_range_fits_the_notes():
    low = [line for line in draw([YOU], 60, color=False).splitlines() if "│" in line or "┤" in line]
    wide = [
        line for line in draw([YOU, Part("m", [Note(0, 1, 84, 80)])], 60, color=False).splitlines() if "│" in line or "┤" in line
    ]
    assert len(low) == 3 + 1  # C4..E4 at two semitones a row, and a pedal line
    assert len(wide) == 13 + 2


def test_a_note_is_drawn_at_its_pitch_and_time():
    picture = draw([Part("y", [Note(0, 1, 60, 80), Note(3, 4, 62, 80)])], 45, color=False)  # ten columns a second
    assert row_of(picture, "C4┤")[5:] == "▄" * 10 + "┈" * 30
    assert picture.splitlines()[1] == "    │" + " " * 30 + "▄" * 10  # D4, in the lower half of its row


def test_semitones_share_a_row_as_halves():
    picture = draw([Part("y", [Note(0, 2, 60, 80), Note(0, 4, 61, 80)])], 45, color=False)
    assert row_of(picture, "C4┤")[5:] == "█" * 20 + "▀" * 20


def test_repeated_notes_are_drawn_separately():
    once = draw([Part("y", [Note(0, 4, 60, 80)])], 45, color=False)
    twice = draw([Part("y", [Note(0, 2, 60, 80), Note(2, 4, 60, 80)])], 45, color=False)
    assert row_of(once, "C4┤")[5:] == "▄" * 40
    assert row_of(twice, "C4┤")[5:] == "▄" * 19 + "▖" + "▄" * 20


@pytest.mark.parametrize(("unicode", "glyphs"), [(True, "▄⣤"), (False, "#o")])
def test_parts_are_distinguishable_without_colour(unicode, glyphs):
    parts = [Part("you", [Note(0, 1, 60, 80)]), Part("machine", [Note(1, 2, 60, 80)])]
    row = row_of(draw(parts, 48, color=False, unicode=unicode), "C4")[8:]
    assert row == glyphs[0] * 20 + glyphs[1] * 20


def test_colours_distinguish_parts_and_velocities():
    def code(part_index, velocity):
        parts = [Part("you", []), Part("machine", [])]
        parts[part_index] = Part("x", [Note(0, 1, 60, velocity)])
        picture = draw(parts, 60, color=True)
        return re.search(r"\x1b\[38;5;(\d+)m▄", picture)[1]

    assert len({code(0, 30), code(0, 100), code(1, 30), code(1, 100)}) == 4


def test_without_colour_there_are_no_escape_sequences():
    assert "\x1b" not in draw([YOU, MACHINE], 80, color=False)


def test_without_unicode_only_ascii_is_written():
    assert draw([YOU, MACHINE], 80, color=True, unicode=False).isascii()


def test_each_part_has_a_pedal_line_that_shows_changes():
    picture = draw([YOU, MACHINE], 48, color=False)
    assert row_of(picture, "you│")[8:] == "━" * 20
    assert row_of(picture, "machine│")[8:] == " " * 20 + "━" * 9 + " " + "━" * 10
    changed_at_once = Part("you", YOU.notes, [(0.0, 1.0), (1.0, 2.0)])
    assert row_of(draw([changed_at_once], 45, color=False), "you│")[5:] == "━" * 19 + "╸" + "━" * 20


def test_the_legend_names_the_parts():
    legend = draw([YOU, MACHINE], 80, color=False).splitlines()[0]
    assert "██ you, 2 notes" in legend
    assert "⣿⣿ machine, 2 notes" in legend


def test_height_limits_the_lines():
    wide = Part("you", [Note(0, 1, 21, 80), Note(1, 2, 108, 80)])
    for height in (12, 20, 40):
        picture = draw([wide, MACHINE], 80, height=height, color=False)
        assert len(picture.splitlines()) <= height
        assert row_of(picture, "C8┤")


def test_part_without_notes_shows_no_notes():
    assert "(no notes)" in draw([Part("you", [])], 80, color=False)


def test_very_short_note_is_drawn():
    picture = draw([Part("y", [Note(0, 100, 60, 80), Note(50, 50, 61, 80)])], 45, color=False)
    assert any(glyph in row_of(picture, "C4┤") for glyph in "▙▟")


# --- LiveRoll ------------------------------------------------------------------------------------------------------


def live(width=120, color=False, **options):
    lines = []
    return LiveRoll(lines.append, width, color, **options), lines


def test_nothing_is_written_before_the_first_note():
    roll, lines = live()
    for tenth in range(100):
        roll.advance(tenth / 10)
    assert lines == []


def test_a_row_is_written_per_tenth_of_a_second():
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


def test_a_note_shorter_than_a_row_is_shown():
    roll, lines = live()
    roll.advance(0.0)
    roll.note_on(0, 60, 80)
    roll.note_off(0, 60)
    roll.advance(0.3)
    column = lines[1].index("C4")
    assert [row[column] for row in lines[2:]] == ["▀", "┊", "┊"]  # in the first half of the first row


def test_live_parts_are_distinguishable():
    roll, lines = live()
    roll.advance(0.0)
    roll.note_on(0, 60, 80)
    roll.note_on(1, 72, 80)
    roll.advance(0.1)
    assert lines[2][lines[1].index("C4")] == "█"
    assert lines[2][lines[1].index("C5")] == "⣿"


@pytest.mark.parametrize("width", [20, 40, 52, 80, 98, 200])
@pytest.mark.parametrize("unicode", [False, True])
def test_the_keyboard_fits_the_width(width, unicode):
    roll, lines = live(width, unicode=unicode, names=("a", "b"))
    roll.advance(0.0)
    for pitch in (0, 21, 60, 108, 127):
        roll.note_on(0, pitch, 80)
    for part in (0, 1):
        roll.pedal(part, True)
    roll.advance(0.2)
    assert max(len(line.rstrip("\n")) for line in lines[1:]) <= max(width, 21)
    assert unicode or "".join(lines).isascii()


def test_the_pedal_is_shown_for_each_part():
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


def test_rows_pause_in_silence_and_resume_with_a_new_header():
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


def test_rows_do_not_depend_on_how_often_time_advances():
    def play(step):
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


def test_the_clock_starts_with_the_first_advance():
    roll, lines = live()
    roll.advance(98765.4)
    roll.note_on(0, 60, 80)
    roll.advance(98765.6)
    assert lines[1].startswith("  0:00 ")


def test_held_notes_fade_in_colour():
    roll, lines = live(color=True)
    roll.advance(0.0)
    roll.note_on(0, 60, 110)
    roll.advance(3.0)
    codes = [re.search(r"\x1b\[38;5;(\d+)[;m0-9]*█", line)[1] for line in lines[2:]]
    assert codes[0] != codes[-1]


# --- the bundled calls ---------------------------------------------------------------------------------------------


def read(name):
    now, timed = 0.0, []
    for message in mido.MidiFile(BUNDLED / name):
        now += message.time
        if message.type == "note_on":
            timed.append(Timed(now, NOTE_ON + message.note, message.velocity))
        elif message.type == "note_off":
            timed.append(Timed(now, NOTE_OFF + message.note))
        elif message.is_cc(64):
            timed.append(Timed(now, SUSTAIN_DOWN if message.value >= 64 else SUSTAIN_UP))
    return timed


def test_bundled_files_match_the_script_output(tmp_path):
    for path in compose.write(tmp_path):
        assert path.read_bytes() == (BUNDLED / path.name).read_bytes()


@pytest.mark.parametrize("piece", compose.CALLS.values(), ids=compose.CALLS)
def test_every_bar_is_full(piece):
    for bar in piece.bars:
        assert compose.length_of(bar.melody) == piece.beats
        assert all(compose.length_of(text) <= piece.beats for text in (bar.inner, bar.bass))


@pytest.mark.parametrize(("name", "shortest", "longest"), [("call.mid", 10, 12), ("call-original.mid", 8, 10)])
def test_a_call_is_a_well_formed_performance(name, shortest, longest):
    midi = mido.MidiFile(BUNDLED / name)
    assert (midi.type, midi.ticks_per_beat, len(midi.tracks)) == (1, 480, 2)
    timed = read(name)
    assert shortest < timed[-1].time < longest
    held, pedal = set(), False
    for _, action, velocity in timed:
        if action < NOTE_OFF:
            assert action not in held
            assert 20 <= velocity <= 110
            held.add(action)
        elif action < SUSTAIN_DOWN:
            held.remove(action - NOTE_OFF)
        else:
            assert pedal == (action == SUSTAIN_UP)
            pedal = not pedal
    assert not held
    assert not pedal


@pytest.mark.parametrize("name", compose.CALLS)
def test_melody_is_louder_than_its_accompaniment(name):
    piece = compose.CALLS[name]
    melody = {(note.pitch, note.voice == "melody") for note in compose.score(piece)}
    notes, _ = notes_of(read(name))

    def mean(top):
        found = [note.velocity for note in notes if (note.pitch, top) in melody and (note.pitch, not top) not in melody]
        return sum(found) / len(found)

    assert mean(True) > mean(False) + 12


def test_schumanns_melody_has_the_original_pitches():
    melody = [note for note in compose.score(compose.VON_FREMDEN_LAENDERN) if note.voice == "melody"]
    names = "B4 G5 F#5 E5 D5 B4 G5 F#5 E5 D5 B4 G5 E5 D5 C5 A4 D5 B4"
    assert [note.pitch for note in melody] == [compose.pitch_of(name) for name in names.split()]


def test_pitch_names():
    assert [compose.pitch_of(name) for name in ("C4", "Bb3", "F#5", "B4", "C-1")] == [60, 58, 78, 71, 0]
