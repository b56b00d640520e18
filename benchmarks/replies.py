"""Replies to held-out calls, in figures: python -m benchmarks.replies FOLDER_OF_MIDI [--out FOLDER]

Cuts calls out of the test split, has each answered offline, and prints call and reply side by side: notes a second, mean and
spread of velocity, pitch range, notes held at once, share of time with the pedal down, share of the four most frequent
pitches (a trill or a stuck texture comes near 1). With --out, both parts are written as MIDI to look at and listen to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from engine.checkpoint import bundled
from engine.engine import Engine
from engine.events import NOTE_OFF, PITCHES, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import MessageReader, message_of, write_file
from engine.runtimes.choose import open_runtime
from perceivers_live.controls.registry import CONTROLS, Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.session.offline import recent, render
from trainer.data import Corpus, prepare

HEADER = f"{'':22}{'notes':>6}{'/s':>6}{'velocity':>13}{'pitches':>9}{'held':>6}{'pedal':>7}{'top 4':>7}"


def figures(timed: Sequence[Timed]) -> dict[str, float]:
    """Of a part that is not empty: what the table shows."""
    strikes = [one for one in timed if one.action < NOTE_OFF]
    length = max(timed[-1].time - timed[0].time, 0.01)
    velocity = [one.velocity for one in strikes] or [0]
    pitches = [one.action for one in strikes] or [0]
    held, weighted, down, before = 0, 0.0, 0.0, timed[0].time
    pedal = False
    for one in timed:
        weighted += held * (one.time - before)
        down += pedal * (one.time - before)
        before = one.time
        held += (one.action < NOTE_OFF) - (NOTE_OFF <= one.action < NOTE_OFF + PITCHES)
        pedal = one.action == SUSTAIN_DOWN or (pedal and one.action != SUSTAIN_UP)
    common = sum(count for _, count in Counter(pitches).most_common(4)) / len(pitches)
    return {
        "notes": len(strikes),
        "rate": len(strikes) / length,
        "velocity": float(np.mean(velocity)),
        "spread": float(np.std(velocity)),
        "low": min(pitches),
        "high": max(pitches),
        "held": weighted / length,
        "pedal": down / length,
        "common": common,
    }


def released(timed: list[Timed]) -> list[Timed]:
    """With everything let go at the end, as a player who hands over does."""
    reader, end = MessageReader(), timed[-1].time
    for one in timed:
        reader.feed(one.time, message_of(one.action, one.velocity))
    return timed + reader.close(end)


def line(name: str, of: dict[str, float]) -> str:
    pitches = f"{of['low']:.0f}-{of['high']:.0f}"
    spread = f"{of['velocity']:.0f} +- {of['spread']:.0f}"
    return (
        f"{name:22}{of['notes']:6.0f}{of['rate']:6.1f}{spread:>13}{pitches:>9}"
        f"{of['held']:6.1f}{of['pedal']:7.2f}{of['common']:7.2f}"
    )


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--checkpoint", type=click.Path(path_type=Path), default=bundled())
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/data"))
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--count", default=10, help="Calls.")
@click.option("--seconds", default=15.0, help="Length of a call.")
@click.option("--temperature", default=1.0)
@click.option("--pace", default=float(str(CONTROLS["pace"].default)), show_default=True)
@click.option("--seed", default=0)
def main(
    data: Path,
    checkpoint: Path,
    cache: Path,
    out: Path | None,
    count: int,
    seconds: float,
    temperature: float,
    pace: float,
    seed: int,
) -> None:
    corpus = Corpus(prepare(data, cache))
    pieces = corpus.split("test")
    rng = np.random.default_rng(seed)
    controls = Controls({"temperature": temperature, "pace": pace})
    runtime = open_runtime("auto", checkpoint)
    print(HEADER)
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    for i, piece in enumerate(rng.choice(pieces, count, replace=False)):
        times, actions, velocities = corpus.actions(int(piece))
        end = float(rng.uniform(min(seconds, times[-1]), times[-1]))
        call = [Timed(float(t), int(a), int(v)) for t, a, v in zip(times, actions, velocities, strict=True) if t <= end]
        call = released(recent(call, seconds))
        reply = render(Engine(runtime), call, controls, PhraseSettings(), seed=seed + i)
        if not reply:
            print(f"call {i}: no reply")
            continue
        rows.append((figures(call), figures(reply)))
        print(line(f"call {i}", rows[-1][0]))
        print(line("  reply", rows[-1][1]))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_file(out / f"reply-{i}.mid", [("you", call), ("machine", reply)])
    for part, name in ((0, "mean of calls"), (1, "mean of replies")):
        print(line(name, {key: float(np.mean([row[part][key] for row in rows])) for key in rows[0][part]}))
    ratios = np.percentile([reply["rate"] / call["rate"] for call, reply in rows], [10, 50, 90])
    print("notes a second, reply over call: median {1:.2f}, from {0:.2f} to {2:.2f} in four fifths of them".format(*ratios))


if __name__ == "__main__":
    main()
