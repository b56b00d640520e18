"""How closely replies follow the controls: python -m benchmarks.controls DATA [--calls 20] [--seeds 3] [--only density]

DATA is a folder of MIDI files, or a cache made from one by ``trainer.data.prepare``. The machine replies to held-out calls on a
virtual clock, as in a live session, while one control at a time is set to values across its range. It also plays takeovers and
solos without a call, from an empty memory. Rates, velocities and lengths are relative to the call's. ``collapsed``: share of
replies that degenerate into a trill, a spray of notes or silence although the call does not.

--out FILE.png plots the requested values and the replies; --json FILE writes every figure.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.calls import cut_calls, open_corpus
from benchmarks.heard import Heard, collapsed, ending, heard
from engine.adjustment import CallStatistics, Target
from engine.checkpoint import bundled, read_config
from engine.engine import Engine
from engine.errors import UserError
from engine.events import PITCHES, Timed
from engine.folders import cache_folder
from engine.runtimes.choose import open_runtime
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.session.offline import render
from trainer.data import SPLITS

SWEEPS: Mapping[str, Sequence[float]] = {  # control -> the values that it is set to
    "density": (-1.0, -0.5, 0.0, 0.5, 1.0),
    "pace": (0.0, 2.0),
    "dynamics": (-1.0, -0.5, 0.0, 0.5, 1.0),
    "response_length": (0.5, 1.0, 2.0),
    "max_polyphony": (1, 2, 4),
    "variety": (0.0, 1.0, 3.0),
}
EXTREMES: Mapping[str, Sequence[float]] = {"temperature": (0.5, 0.6, 1.4, 1.5)}
REGISTERS = ((21, 108), (48, 72), (36, 47), (84, 108), (60, 62))
EMPTY_SECONDS = 12.0  # length of a solo from an empty memory
MIN_RATE, MAX_RATE = 2.0, 12.0  # notes per second; the range expected from an empty memory
MIN_SECONDS = 2.0  # the shortest length that is requested of a reply
LENGTH_LIMIT = 0.20  # relative error


class Asked(NamedTuple):
    """One row of the table: the control, its value as text, and all settings that differ from their defaults. ``empty``: the
    machine plays from an empty memory, without a call.
    """

    control: str
    value: str
    settings: Mapping[str, object]
    empty: bool = False


def rows(only: Sequence[str]) -> list[Asked]:
    """All rows of the table; if ``only`` is not empty, those whose ``control`` is in it."""
    made = [Asked(name, f"{value:g}", {name: value}) for name, values in {**SWEEPS, **EXTREMES}.items() for value in values]
    for low, high in REGISTERS:
        limits = {"register_low": low, "register_high": high}
        made.append(Asked("register", f"{low}-{high}", limits))
        made.append(Asked("empty, takeover", f"{low}-{high}", limits, empty=True))
        made.append(Asked("empty, solo", f"{low}-{high}", {**limits, "mode": "solo"}, empty=True))
    return [row for row in made if not only or row.control in only]


class Job(NamedTuple):
    """One reply to be rendered; ``row``: index of its row in the table."""

    row: int
    asked: Asked
    call: Sequence[Timed]
    seed: int


_engine: Engine | None = None  # of a worker process


def _open(checkpoint: Path, runtime: str) -> None:
    global _engine
    _engine = Engine(open_runtime(runtime, checkpoint, threads=1))


def _reply(job: Job) -> tuple[list[Timed], float]:
    """Renders a reply; returns it and the seconds that this took."""
    assert _engine is not None
    _engine.forget()
    began = time.perf_counter()
    controls = Controls(job.asked.settings)
    return (
        render(_engine, job.call, controls, PhraseSettings(), seed=job.seed, seconds=EMPTY_SECONDS),
        time.perf_counter() - began,
    )


def measured(job: Job, reply: Sequence[Timed]) -> Heard:
    """The properties of a reply (see ``heard``), those of its call with names ``call ...``, and those of its ending with
    ``end ...``.
    """
    call = {f"call {name}": value for name, value in heard(job.call).items()}
    end = {f"end {name}": value for name, value in ending(reply).items()}
    low, high = (
        int(str(job.asked.settings.get(f"register_{side}", limit))) for side, limit in (("low", 0), ("high", PITCHES - 1))
    )
    return {**heard(reply), **call, **end, "collapsed": float(collapsed(reply, job.call, high - low + 1))}


def summary(asked: Asked, found: Sequence[Heard]) -> dict[str, Any]:
    """The cells of a row: medians over its replies, shares of replies within limits, and extremes."""
    with_notes = [reply for reply in found if "rate" in reply]
    values = {name: np.array([reply.get(name, np.nan) for reply in with_notes]) for name in set().union(*with_notes)}
    if not with_notes:
        return {"replies": len(found), "collapsed": 1.0}
    row: dict[str, Any] = {"replies": len(found), "collapsed": float(np.mean([reply["collapsed"] for reply in found]))}
    row["rate"] = _median(values["rate"])
    row["2 to 12"] = _share((values["rate"] >= MIN_RATE) & (values["rate"] <= MAX_RATE), values["rate"])
    row["low"], row["high"], row["held"] = values["low"].min(), values["high"].max(), values["held"].max()
    if not asked.empty:
        setting = {name: float(str(value)) for name, value in asked.settings.items()}
        factor = values["rate"] / values["call rate"]
        targets = [Target.of(CallStatistics(rate, None), setting.get("density", 0.0), 0.0) for rate in values["call rate"]]
        requested = np.array([target.factor for target in targets])
        row["rate, x call"] = _median(factor)
        row["rate error"] = _median(np.abs(factor / requested - 1))
        proportional = values["call note length"] / factor
        row["length, x proportional"] = _median(values["note length"] / proportional)
        moved = values["velocity"] - values["call velocity"]
        row["velocity moved"] = _median(moved)
        row["velocity error"] = _median(np.abs(moved - 24 * setting.get("dynamics", 0.0)))
        row["spread"] = _median(values["spread"] / np.maximum(values["call spread"], 0.1))
        requested_seconds = np.maximum(values["call seconds"] * setting.get("response_length", 1.0), MIN_SECONDS)
        row["seconds, x asked"] = _median(values["seconds"] / requested_seconds)
        row["within 20 %"] = _share(np.abs(values["seconds"] / requested_seconds - 1) <= LENGTH_LIMIT, values["seconds"])
    return row


def _median(values: np.ndarray) -> float:
    """Median of the finite values; NaN if there are none."""
    kept = values[np.isfinite(values)]
    return float(np.median(kept)) if len(kept) else float("nan")


def _share(condition: np.ndarray, values: np.ndarray) -> float:
    """Share of the finite values for which the condition holds; NaN if there are none."""
    return float(np.mean(condition[np.isfinite(values)])) if np.isfinite(values).any() else float("nan")


COLUMNS = {  # heading -> key of ``summary`` and format
    "rate/s": ("rate", "7.1f"),
    "x call": ("rate, x call", "8.2f"),
    "r. error": ("rate error", "9.0%"),
    "length": ("length, x proportional", "8.2f"),
    "moved": ("velocity moved", "+7.1f"),
    "v. error": ("velocity error", "9.1f"),
    "spread": ("spread", "7.2f"),
    "seconds": ("seconds, x asked", "8.2f"),
    "in 20 %": ("within 20 %", "8.0%"),
    "2..12": ("2 to 12", "7.0%"),
    "low": ("low", "5.0f"),
    "high": ("high", "5.0f"),
    "held": ("held", "5.0f"),
    "collapsed": ("collapsed", "10.0%"),
}


def table(found: Sequence[tuple[Asked, Mapping[str, Any]]]) -> str:
    """The table of all rows. ``length``: length of the notes relative to the call's notes scaled by the change of the rate."""
    lines = [f"{'':16}{'asked':>8}" + "".join(f"{name:>{_width(form)}}" for name, (_, form) in COLUMNS.items())]
    for asked, row in found:
        cells = "".join(
            f"{row[key]:{form}}" if np.isfinite(row.get(key, np.nan)) else "-".rjust(_width(form))
            for key, form in COLUMNS.values()
        )
        lines.append(f"{asked.control:16}{asked.value:>8}{cells}")
    return "\n".join(lines)


def _width(form: str) -> int:
    return int(form.lstrip("+").partition(".")[0])


def endings(groups: Mapping[str, Sequence[Heard]]) -> str:
    """A table of how replies end, compared with real phrase ends and with the same music cut at arbitrary times."""
    lines = [f"{'ends':16}{'n':>6}{'held, x gap':>13}{'on harmony':>12}{'pedal up after, s':>19}"]
    for name, ends in groups.items():
        values = {key: np.array([end.get(key, np.nan) for end in ends if end]) for key in ("hold", "on harmony", "pedal after")}
        held, after = _median(values["hold"]), _median(values["pedal after"])
        pedal = "-" if np.isnan(after) else f"{after:.2f}"
        lines.append(f"{name:16}{len(ends):6}{held:13.2f}{float(np.nanmean(values['on harmony'])):12.0%}{pedal:>19}")
    return "\n".join(lines)


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--checkpoint", type=click.Path(path_type=Path), default=bundled())
@click.option("--cache", type=click.Path(path_type=Path), default=cache_folder() / "data", show_default=True)
@click.option("--split", type=click.Choice(SPLITS), default="validation", show_default=True)
@click.option("--calls", "count", default=20, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--seconds", default=6.0, show_default=True, help="Length of a call.")
@click.option("--only", multiple=True, help="Only this control, or `empty, solo`; may be repeated.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
@click.option("--runtime", default="onnx", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path))
def main(
    data: Path, checkpoint: Path, cache: Path, split: str, count: int, seeds: int, seconds: float, only: Sequence[str],
    workers: int, runtime: str, json_file: Path | None, out: Path | None,
) -> None:  # fmt: skip
    try:
        read_config(checkpoint)
        calls = cut_calls(open_corpus(data, cache), split, count, seconds, 0)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    asked = rows(only)
    jobs = [
        Job(i, row, () if row.empty else call.call, seed)
        for i, row in enumerate(asked)
        for call in calls[: 1 if row.empty else None]
        for seed in range(seeds)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_open, initargs=(checkpoint, runtime)) as pool:
        replies = list(pool.map(_reply, jobs))
    found: dict[int, list[Heard]] = defaultdict(list)
    for job, (reply, _) in zip(jobs, replies, strict=True):
        found[job.row].append(measured(job, reply))
    summaries = [(row, summary(row, found[i])) for i, row in enumerate(asked)]
    print(f"{count} calls of {seconds:g} s, {seeds} seeds, {split} split; {len(jobs)} replies")
    print(table(summaries))
    ends = {
        "replies": [ending(reply) for job, (reply, _) in zip(jobs, replies, strict=True) if not job.asked.empty],
        "real phrases": [{**ending(call.call), "pedal after": math.nan} for call in calls],  # it was cut: see ``Call``
        "cut anywhere": [ending(call.call, call.call[0].time + 0.7 * (call.call[-1].time - call.call[0].time)) for call in calls],
    }
    if ends["replies"]:
        print(endings(ends))
    if json_file:
        flat = [{"control": row.control, "value": row.value, **figures} for row, figures in summaries]
        json_file.write_text(json.dumps({"rows": flat, "replies": [found[i] for i in range(len(asked))]}, indent=1))
    if out:
        from benchmarks.controls_picture import draw

        draw([(row.control, row.value, found[i]) for i, row in enumerate(asked)]).save(out)


if __name__ == "__main__":
    main()
