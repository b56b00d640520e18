"""How closely notes follow a virtual clock with ``pulse``: python -m benchmarks.pulse DATA [--calls 10] [--bpm 120] [--json FILE]

The machine replies to held-out calls on a virtual clock with ``pulse`` at 0, 0.5 and 1. The calls are not in the clock's tempo.
``off``: mean distance of onsets (of a chord: its first) from the grid, the subdivision of the beat that the machine chose.
``chance``: the same for random onsets, a quarter of a subdivision. ``spread``: time from a chord's first onset to its last.
``nats``: negative log-likelihood of the reply under the model, per event: of the waits (``nats/wait``) and of all fields
(``/event``). Its increase is the cost of following the grid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.calls import Call, cut_calls, open_corpus
from benchmarks.heard import chord_spread, rate_of
from benchmarks.likeness import passage
from engine.checkpoint import bundled, load_model
from engine.codec import encode
from engine.engine import Engine
from engine.events import Timed
from engine.folders import cache_folder
from engine.model import PerceiverS
from engine.runtimes.choose import open_runtime
from perceivers_live.clock.midi_clock import Grid
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.pulse import Subdivision
from perceivers_live.session.offline import render
from trainer.data import SPLITS, DataError
from trainer.likelihood import piece_losses

STRENGTHS = (0.0, 0.5, 1.0)
TEMPI = (60.0, 90.0, 120.0, 180.0)


class Metronome:
    """A source of evenly spaced beats that never stops; implements ``Beats``."""

    running = True

    def __init__(self, bpm: float) -> None:
        self.bpm: float | None = bpm
        self._grid = Grid(0.0, 0.0, 60 / bpm)

    def position(self, now: float) -> float:
        return self._grid.position(now)

    def next_beat(self, after: float) -> float | None:
        return self._grid.next(after)

    def next_bar(self, after: float, beats: int) -> float | None:
        return self._grid.next(after, beats)


def cost(model: PerceiverS, call: Sequence[Timed], reply: Sequence[Timed]) -> tuple[float, float]:
    """Negative log-likelihood of a reply in nats per event: of its waits, and of all its fields."""
    before = len(encode(call))
    events = np.array(encode([*call, *reply]), np.int64)
    with torch.inference_mode():
        nats = piece_losses(model, events)[max(before - 1, 0) :]
    return float(nats[:, 0].mean()), float(nats.sum(1).mean())


def measured(engine: Engine, model: PerceiverS, call: Call, bpm: float, pulse: float, seed: int) -> dict[str, float]:
    """Renders a reply with this tempo and pulse, and measures it. ``off``, ``chance`` and ``spread`` are in ms."""
    engine.forget()
    metronome = Metronome(bpm)
    reply = render(engine, call.call, Controls({"pulse": pulse}), PhraseSettings(), seed=seed, beats=metronome)
    subdivision, nats = Subdivision(metronome), cost(model, call.call, reply)
    for action in call.call:
        subdivision.feed(action)
    parts, begin = subdivision.parts(), min(action.time for action in reply)
    onsets = np.array([chord[0].start for chord in passage(reply).chords()]) + begin
    positions = np.array([metronome.position(time) for time in onsets[1:]]) * parts  # without the first, which ignores the grid
    off = np.abs(positions - np.round(positions)) / parts * 60 / bpm
    return {
        "off": 1000 * float(off.mean()),
        "chance": 15_000 / bpm / parts,
        "spread": 1000 * chord_spread(passage(reply)),
        "rate": rate_of(reply),
        "wait nats": nats[0],
        "nats": nats[1],
    }


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--checkpoint", type=click.Path(path_type=Path), default=bundled())
@click.option("--cache", type=click.Path(path_type=Path), default=cache_folder() / "data", show_default=True)
@click.option("--split", type=click.Choice(SPLITS), default="validation", show_default=True)
@click.option("--calls", "count", default=10, show_default=True)
@click.option("--seconds", default=6.0, show_default=True, help="Length of a call.")
@click.option("--bpm", "tempi", multiple=True, type=float, default=TEMPI, show_default=True)
@click.option("--runtime", default="onnx", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    data: Path, checkpoint: Path, cache: Path, split: str, count: int, seconds: float, tempi: Sequence[float], runtime: str,
    json_file: Path | None,
) -> None:  # fmt: skip
    try:
        calls = cut_calls(open_corpus(data, cache), split, count, seconds, 0)
    except DataError as error:
        raise click.ClickException(str(error)) from error
    engine, model, rows = Engine(open_runtime(runtime, checkpoint, threads=1)), load_model(checkpoint), list[dict[str, Any]]()
    print(f"{count} calls of {seconds:g} s, {split} split")
    print(f"{'bpm':>5}{'pulse':>7}{'off, ms':>9}{'chance':>8}{'spread, ms':>12}{'rate/s':>8}{'nats/wait':>13}{'/event':>10}")
    for bpm in tempi:
        for pulse in STRENGTHS:
            found = [measured(engine, model, call, bpm, pulse, seed) for seed, call in enumerate(calls)]
            row = {name: float(np.nanmean([reply[name] for reply in found])) for name in found[0]}
            rows.append({"bpm": bpm, "pulse": pulse, **row})
            print(
                f"{bpm:5g}{pulse:7g}{row['off']:9.1f}{row['chance']:8.1f}{row['spread']:12.1f}{row['rate']:8.1f}"
                f"{row['wait nats']:13.3f}{row['nats']:10.3f}",
                flush=True,
            )
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
