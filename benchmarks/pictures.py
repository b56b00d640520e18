"""Writes replies as MIDI files and piano rolls, and a bar chart of the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.calls import Call
from benchmarks.scores import Score
from engine.events import Timed
from engine.midi_file import write_file
from trainer.samples import COLOURS
from trainer.samples import picture as piano_roll

SHEET, COLUMNS, MARGIN = 10, 2, 6  # piano rolls per sheet, columns, pixels between them
NAME, UNIT, ROW, BAR = 130, 240, 22, 12  # pixels: width of names and of a score of 1, height of a row and of its bar
SCALE = 2  # drawn larger and scaled down, for anti-aliasing
MAX_SCORE = 1.6  # bars of higher scores end here


def write(
    folder: Path,
    calls: Sequence[Call],
    replies: Sequence[Sequence[Timed]],
    scores: Mapping[str, Score],
    faults: Sequence[list[str]],
) -> None:
    """Writes ``reply-N.mid``; ``rolls-N.png``, sheets of piano rolls with the names of the faults; and ``scores.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    rolls = []
    for i, (call, reply, names) in enumerate(zip(calls, replies, faults, strict=True)):
        write_file(folder / f"reply-{i}.mid", [("human", call.call), ("machine", reply)])
        rolls.append(piano_roll([call.call, reply], width=900, row=2))
        ImageDraw.Draw(rolls[-1]).text((4, 2), f"{i}  {call.name[-50:]}   {', '.join(names)}", "black")
    for first in range(0, len(rolls), SHEET):
        sheet(rolls[first : first + SHEET]).save(folder / f"rolls-{first // SHEET}.png")
    bars(scores).save(folder / "scores.png")


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Arranges pictures of the same size in columns."""
    width, height = pictures[0].size[0] + MARGIN, pictures[0].size[1] + MARGIN
    combined = Image.new("RGB", (COLUMNS * width, -(-len(pictures) // COLUMNS) * height), "grey")
    for i, picture in enumerate(pictures):
        combined.paste(picture, (i % COLUMNS * width, i // COLUMNS * height))
    return combined


def bars(scores: Mapping[str, Score]) -> Image.Image:
    """A bar chart of the scores with their intervals, and lines at 0 (another piece) and 1 (the real continuation)."""
    width, height = NAME + round(MAX_SCORE * UNIT) + 60, (len(scores) + 2) * ROW
    image = Image.new("RGB", (width * SCALE, height * SCALE), "white")
    pen = ImageDraw.Draw(image)

    def at(value: float) -> float:
        return (NAME + min(max(value, -0.1), MAX_SCORE) * UNIT) * SCALE

    for mark, text in ((0, "another piece"), (0.5, ""), (1, "real continuation")):
        pen.line((at(mark), ROW * SCALE, at(mark), height * SCALE), "#bbbbbb", SCALE)
        pen.text((at(mark), ROW * SCALE / 2), text, "black", anchor="mm", font_size=11 * SCALE)
    for row, (name, score) in enumerate(scores.items(), 1):
        middle = (row + 0.5) * ROW * SCALE
        half = BAR * SCALE / 2
        left, right = sorted((at(0), at(score.value)))
        pen.rectangle((left, middle - half, right, middle + half), COLOURS[1] if name != "mean" else COLOURS[0])
        pen.line((at(score.low), middle, at(score.high), middle), "black", SCALE)
        pen.text(((NAME - 8) * SCALE, middle), name, "black", anchor="rm", font_size=12 * SCALE)
        pen.text((width * SCALE - 8, middle), f"{score.value:.2f}", "black", anchor="rm", font_size=12 * SCALE)
    return image.resize((width, height), Image.Resampling.LANCZOS)
