"""What the controls ask for beside what is heard, as a picture: a panel for each quantity, a dot for each reply."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.heard import Heard

PANEL, MARGIN, SCALE = 260, 44, 2  # pixels; drawn larger and scaled down, for anti-aliasing
DOT, JITTER = 2, 5  # radius, and sideways spread of the dots
Row = tuple[str, str, Sequence[Heard]]  # control, value, replies


class Panel(NamedTuple):
    """One control: what is heard of a reply, what is asked for by a value, both in ``unit``, and the range shown."""

    control: str
    unit: str
    heard: Callable[[Heard], float]
    asked: Callable[[float], float]
    low: float
    high: float


PANELS = (
    Panel("density", "octaves of the call's rate", lambda one: math.log2(one["rate"] / one["call rate"]), lambda d: d, -3, 3),
    Panel("dynamics", "velocity beside the call", lambda one: one["velocity"] - one["call velocity"], lambda d: 24 * d, -50, 50),
    Panel("response_length", "times the call", lambda one: one["seconds"] / one["call seconds"], lambda d: d, 0, 3),
    Panel("max_polyphony", "keys held", lambda one: one["held"], lambda d: d, 0, 8),
)


def draw(rows: Sequence[Row]) -> Image.Image:
    """The panels of those controls that were moved, side by side."""
    panels = [panel for panel in PANELS if any(control == panel.control for control, _, _ in rows)]
    image = Image.new("RGB", (max(len(panels), 1) * PANEL * SCALE, (PANEL + MARGIN) * SCALE), "white")
    for i, panel in enumerate(panels):
        _draw_panel(ImageDraw.Draw(image), i * PANEL, panel, [row for row in rows if row[0] == panel.control])
    return image.resize((image.width // SCALE, image.height // SCALE), Image.Resampling.LANCZOS)


def _draw_panel(pen: ImageDraw.ImageDraw, left: int, panel: Panel, rows: Sequence[Row]) -> None:
    top, bottom, right = MARGIN, PANEL, left + PANEL - 12

    def height(value: float) -> float:
        share = (min(max(value, panel.low), panel.high) - panel.low) / (panel.high - panel.low)
        return (bottom - share * (bottom - top)) * SCALE

    pen.text(((left + MARGIN) * SCALE, 8 * SCALE), f"{panel.control}: {panel.unit}", "black", font_size=11 * SCALE)
    for mark in np.linspace(panel.low, panel.high, 5):
        pen.line(((left + MARGIN) * SCALE, height(mark), right * SCALE, height(mark)), "#dddddd", SCALE)
        pen.text(((left + MARGIN - 6) * SCALE, height(mark)), f"{mark:g}", "black", anchor="rm", font_size=10 * SCALE)
    step = (right - left - MARGIN) / len(rows)
    for i, (_, value, replies) in enumerate(rows):
        middle = left + MARGIN + (i + 0.5) * step
        asked = height(panel.asked(float(value)))
        pen.line(((middle - step / 3) * SCALE, asked, (middle + step / 3) * SCALE, asked), "#cc4400", 2 * SCALE)
        found = [panel.heard(one) for one in replies if "rate" in one]
        for j, one in enumerate(one for one in found if math.isfinite(one)):
            x, y = (middle + JITTER * math.sin(7 * j)) * SCALE, height(one)
            pen.ellipse((x - DOT * SCALE, y - DOT * SCALE, x + DOT * SCALE, y + DOT * SCALE), "#2266aa")
        pen.text((middle * SCALE, (bottom + 14) * SCALE), value, "black", anchor="mm", font_size=10 * SCALE)
