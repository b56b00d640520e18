"""The learning curve of a training run: python -m benchmarks.curve RUN [-o PICTURE]

Prints the validation losses in the log of a run. With ``-o``, plots them and the training loss over the number of target events
seen, including those of earlier runs whose weights this run started from. The validation loss is that of the averaged weights, if
the run averages them, on music without augmentation. The training loss is smoothed; it is that of the current weights on the
examples of training, which may be augmented.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import click
from PIL import Image, ImageDraw

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT, SCALE = 720, 320, 52, 40, 30, 16, 2  # pixels; drawn larger and scaled down
GRID, TEXT, LOSS, VALIDATION = "#dddddd", "#222222", "#9db8d2", "#cc4400"
Point = tuple[float, float]  # million target events seen, nats per event


class LearningCurve(NamedTuple):
    """Losses of a run. ``million_events`` and ``hours`` include earlier runs; ``hours`` is the time of the optimizer
    steps, without validation and loading.
    """

    loss: list[Point]
    validation: list[Point]
    million_events: float
    hours: float


def read(run: Path) -> LearningCurve:
    """Reads the log of the run in a folder. If steps were repeated after a resume, the last repetition counts. Raises
    ``click.ClickException`` if the folder has no run, or if nothing is logged yet.
    """
    try:
        progress = json.loads((run / "config.json").read_text())["progress"]
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    except (OSError, KeyError, ValueError) as error:
        raise click.ClickException(f"{run}: not a training run with a log ({error})") from error
    if not rows or not progress["step"]:
        raise click.ClickException(f"{run}: nothing is logged yet")
    earlier, per_step = progress["earlier_events"] / 1e6, progress["events"] / progress["step"] / 1e6

    def points(name: str) -> list[Point]:
        return sorted({row["step"]: (earlier + row["step"] * per_step, row[name]) for row in rows if name in row}.values())

    hours = (progress["seconds"] + progress["earlier_seconds"]) / 3600
    return LearningCurve(points("loss"), points("validation"), earlier + progress["events"] / 1e6, hours)


def draw(curve: LearningCurve) -> Image.Image:
    """Plots the losses over the events; the axes span all points."""
    points = curve.loss + curve.validation
    low = math.floor(min(nats for _, nats in points) * 10) / 10
    high = max(math.ceil(max(nats for _, nats in points) * 10) / 10, low + 0.1)
    first, last = min(events for events, _ in points), max(events for events, _ in points)
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
    pen = ImageDraw.Draw(image)

    def at(point: Point) -> Point:
        across = (point[0] - first) / max(last - first, 1e-9)
        up = (point[1] - low) / (high - low)
        return (LEFT + across * (WIDTH - LEFT - RIGHT)) * SCALE, (HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)) * SCALE

    def text(where: Point, words: str, colour: str, anchor: str) -> None:
        pen.text((where[0] * SCALE, where[1] * SCALE), words, colour, anchor=anchor, font_size=12 * SCALE)

    for tenth in range(round(low * 10), round(high * 10) + 1):
        left, height = at((first, tenth / 10))
        pen.line((left, height, (WIDTH - RIGHT) * SCALE, height), GRID, SCALE)
        text((LEFT - 6, height / SCALE), f"{tenth / 10:.1f}", TEXT, "rm")
    spacing = next((step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if last - first <= 10 * step), 10000)
    for mark in range(math.ceil(first / spacing) * spacing, math.floor(last) + 1, spacing):
        across = at((mark, low))[0]
        pen.line((across, (HEIGHT - BOTTOM) * SCALE, across, (HEIGHT - BOTTOM + 5) * SCALE), TEXT, SCALE)
        text((across / SCALE, HEIGHT - BOTTOM + 14), str(mark), TEXT, "mm")
    text((WIDTH - RIGHT, HEIGHT - 10), "million target events seen", TEXT, "rm")
    text((LEFT, 14), "nats per event:", TEXT, "lm")
    text((LEFT + 100, 14), "training", LOSS, "lm")
    text((LEFT + 230, 14), "validation", VALIDATION, "lm")
    pen.line([at(point) for point in curve.loss], LOSS, SCALE, joint="curve")
    pen.line([at(point) for point in curve.validation], VALIDATION, 2 * SCALE, joint="curve")
    for across, height in map(at, curve.validation):
        pen.ellipse((across - 3 * SCALE, height - 3 * SCALE, across + 3 * SCALE, height + 3 * SCALE), VALIDATION)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Picture to write (.png, .webp).")
def main(run: Path, output: Path | None) -> None:
    curve = read(run)
    for events, nats in curve.validation:
        print(f"{events:8.2f} million events: validation {nats:.4f} nats per event")
    print(f"{curve.million_events:.2f} million target events in {curve.hours:.1f} hours, earlier runs included")
    if output is not None:
        draw(curve).save(output, lossless=True)


if __name__ == "__main__":
    main()
