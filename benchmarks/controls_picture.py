"""Plots what the controls request and what the replies have: one panel per control, one dot per reply."""

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
    """One control. ``heard`` maps a reply to the measured quantity, ``asked`` maps a value of the control to the requested
    quantity; both are in ``unit``. The axis runs from ``low`` to ``high``.
    """

    control: str
    unit: str
    heard: Callable[[Heard], float]
    asked: Callable[[float], float]
    low: float
    high: float


PANELS = (
    Panel("density", "rate / call's rate, log2", lambda reply: math.log2(reply["rate"] / reply["call rate"]), lambda d: d, -3, 3),
    Panel(
        "dynamics",
        "velocity - call's velocity",
        lambda reply: reply["velocity"] - reply["call velocity"],
        lambda d: 24 * d,
        -50,
        50,
    ),
    Panel("response_length", "length / call's length", lambda reply: reply["seconds"] / reply["call seconds"], lambda d: d, 0, 3),
    Panel("max_polyphony", "keys held", lambda reply: reply["held"], lambda d: d, 0, 8),
)


def draw(rows: Sequence[Row]) -> Image.Image:
    """Draws the panels of the controls that the rows have, side by side."""
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
        quantities = [panel.heard(reply) for reply in replies if "rate" in reply]
        for j, quantity in enumerate(value for value in quantities if math.isfinite(value)):
            x, y = (middle + JITTER * math.sin(7 * j)) * SCALE, height(quantity)
            pen.ellipse((x - DOT * SCALE, y - DOT * SCALE, x + DOT * SCALE, y + DOT * SCALE), "#2266aa")
        pen.text((middle * SCALE, (bottom + 14) * SCALE), value, "black", anchor="mm", font_size=10 * SCALE)
