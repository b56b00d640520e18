"""The losses of a training run are read from its log and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

pytest.importorskip("PIL")

from PIL import ImageColor

from benchmarks.curve import HEIGHT, VALIDATION, WIDTH, draw, read

LOG = [
    {"step": 25, "seconds": 10, "loss": 5.0, "rate": 0.1},
    {"step": 50, "seconds": 20, "loss": 4.8, "rate": 0.1},
    {"step": 50, "seconds": 20, "validation": 4.75},
    {"step": 50, "seconds": 21, "loss": 4.7, "rate": 0.1},  # resumed from step 25
    {"step": 50, "seconds": 21, "validation": 4.65},
    {"step": 100, "seconds": 40, "loss": 4.5, "rate": 0.1},
    {"step": 100, "seconds": 40, "validation": 4.45},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    progress = {"step": 100, "events": 2_000_000, "seconds": 3600, "earlier_events": 3_000_000, "earlier_seconds": 1800}
    (tmp_path / "config.json").write_text(json.dumps({"progress": progress}))
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LOG))
    return tmp_path


def test_events_include_earlier_runs_and_a_repeated_step_counts_once(run: Path) -> None:
    course = read(run)
    assert course.loss == [(3.5, 5.0), (4.0, 4.7), (5.0, 4.5)]
    assert course.validation == [(4.0, 4.65), (5.0, 4.45)]
    assert (course.million_events, course.hours) == (5.0, 1.5)


def test_the_validation_curve_in_the_picture_falls_to_the_right(run: Path) -> None:
    picture = draw(read(run))
    assert picture.size == (WIDTH, HEIGHT)
    colour = ImageColor.getrgb(VALIDATION)
    below_the_title = picture.crop((0, 30, WIDTH, HEIGHT))
    places = [
        (x, y)
        for y in range(below_the_title.height)
        for x in range(below_the_title.width)
        if below_the_title.getpixel((x, y)) == colour
    ]
    left, right = min(places), max(places)
    assert left[0] == pytest.approx(WIDTH / 3, abs=WIDTH / 10)  # step 50, and the axis begins at 25
    assert right[0] > 0.95 * WIDTH
    assert right[1] > left[1] + 50


def test_a_folder_without_a_log_is_refused_in_one_line(run: Path) -> None:
    (run / "log.jsonl").write_text("")
    with pytest.raises(click.ClickException, match="nothing is logged yet"):
        read(run)
    (run / "log.jsonl").unlink()
    with pytest.raises(click.ClickException, match="not a training run with a log"):
        read(run)
