"""Measures the quality of replies: python -m benchmarks.listening DATA [--calls N] [--set temperature=0.9] [--json FILE]

DATA is a folder of MIDI files, or a cache made from one by ``trainer.data.prepare``. Calls are cut out of held-out performances.
The machine replies to each on a virtual clock, as in a live session. Each reply is compared with its call by several measures
(``likeness``). By each measure the real continuation has score 1, the continuation of another piece score 0. Faults (``faults``)
are counted in the replies and, for comparison, in the real continuations.

--beside FIGURES.json, written by --json in an earlier run with the same calls, also prints the differences from that run with
their intervals. --out FOLDER writes the music as MIDI and as piano rolls, and a bar chart of the scores.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.calls import Call, cut_calls, open_corpus
from benchmarks.faults import FAULTS, faults
from benchmarks.likeness import passage
from benchmarks.scores import Distances, measure, resampled, score
from engine.checkpoint import bundled, read_config
from engine.engine import Engine
from engine.errors import UserError
from engine.events import NOTE_OFF, Timed
from engine.folders import cache_folder
from engine.runtimes.choose import open_runtime
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.session.offline import render
from trainer.data import SPLITS

KINDS = ("reply", "other", "real")  # the passages that a call is compared with

_engine: Engine | None = None  # of a worker process


def _open(checkpoint: Path, runtime: str) -> None:
    global _engine
    _engine = Engine(open_runtime(runtime, checkpoint, threads=1))


def _reply(call: Call, seed: int, controls: Mapping[str, object]) -> list[Timed]:
    assert _engine is not None
    _engine.forget()
    return render(_engine, call.call, Controls(controls), PhraseSettings(), seed=seed)


def replies_to(
    calls: Sequence[Call], checkpoint: Path, controls: Mapping[str, object], *, seed: int, workers: int = 1, runtime: str = "onnx"
) -> list[list[Timed]]:
    """Renders the machine's replies. Each depends only on its call, the seed and the controls, not on the number of processes."""
    work = partial(_reply, seed=seed, controls=dict(controls))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_open, initargs=(checkpoint, runtime)) as pool:
        return list(pool.map(work, calls))


def figures(calls: Sequence[Call], replies: Sequence[Sequence[Timed]], seconds: float) -> dict[str, Any]:
    """The names of the calls, their distances by measure, and the faults of every reply and every real continuation."""
    call_music = [passage(call.call) for call in calls]
    reply_music = [passage(reply, _compared_seconds(reply, seconds)) for reply in replies]
    real_music = [passage(call.continuation, seconds) for call in calls]
    measured = measure(call_music, [call.piece for call in calls], reply_music, real_music)
    return {
        "names": [call.name for call in calls],
        "distances": {
            name: {**{kind: getattr(found, kind).tolist() for kind in KINDS}, "apart": found.apart}
            for name, found in measured.items()
        },
        "faults": [faults(reply, call) for reply, call in zip(reply_music, call_music, strict=True)],
        "faults_real": [faults(reply, call) for reply, call in zip(real_music, call_music, strict=True)],
    }


def _compared_seconds(reply: Sequence[Timed], seconds: float) -> float:
    """The seconds of a reply that are compared: at most ``seconds``, and not the silence after its end. A reply can be shorter
    than ``seconds``, because the call has a gap at its start and the reply is as long as the playing in the call.
    """
    onsets = [action.time for action in reply if action.action < NOTE_OFF]
    return min(seconds, reply[-1].time - onsets[0]) if onsets else seconds


def scores_of(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Resampled scores by measure, and their ``mean``; ``found`` is from ``figures``."""
    return resampled({name: _distances_of(entry) for name, entry in found["distances"].items()})


def _distances_of(entry: Mapping[str, Any]) -> Distances:
    reply, other, real = (np.array(entry[kind]) for kind in KINDS)
    return Distances(reply, other, real, entry["apart"])


def table(found: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """A table of scores and faults. With the figures of an earlier run, ``before``, also the differences from it."""
    drawn, old = scores_of(found), scores_of(before) if before else {}
    change = f"{'change':>9}{'95 %':>16}" if old else ""
    lines = [f"{'':20}{'reply':>8}{'other':>8}{'real':>8}{'apart':>7}{'score':>8}{'95 %':>14}{change}"]
    for name, values in drawn.items():
        line = f"{name:20}{_distance_cells(found, name):31}{_with_interval(values, 8, 14, '.2f', '-')}"
        lines.append(line + (_with_interval(values - old[name], 9, 16, "+.3f", "..") if old else ""))
    lines.append(f"{'faults, % of':20}{'replies':>8}{'real':>8}" + (f"{'before':>8}" if before else ""))
    counted = [found["faults"], found["faults_real"], *([before["faults"]] if before else [])]
    lines += [
        f"{name:20}" + "".join(f"{100 * fault_share(faults_of, name):8.1f}" for faults_of in counted) for name in (*FAULTS, "any")
    ]
    return "\n".join(lines)


def _distance_cells(found: Mapping[str, Any], name: str) -> str:
    entry = found["distances"].get(name)
    return "".join(f"{np.mean(entry[kind]):8.3f}" for kind in KINDS) + f"{entry['apart']:7.2f}" if entry else ""


def _with_interval(values: np.ndarray, width: int, interval_width: int, form: str, dash: str) -> str:
    summary = score(values)
    return f"{summary.value:{form}}".rjust(width) + f"{summary.low:{form}}{dash}{summary.high:{form}}".rjust(interval_width)


def fault_share(faults_by_reply: Sequence[Sequence[str]], name: str) -> float:
    """Share of replies (0..1) with the fault ``name``; with ``any``: of replies with at least one fault."""
    return float(np.mean([bool(names) if name == "any" else name in names for names in faults_by_reply]))


def _setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        return name, value


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--checkpoint", type=click.Path(path_type=Path), default=bundled())
@click.option("--cache", type=click.Path(path_type=Path), default=cache_folder() / "data", show_default=True)
@click.option("--split", type=click.Choice(SPLITS), default="validation", show_default=True)
@click.option("--calls", "count", default=100, show_default=True)
@click.option("--seconds", default=12.0, show_default=True, help="Length of a call and of the passages compared with it.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Sets a control, such as temperature=0.9; may be repeated."
)
@click.option("--workers", default=1, show_default=True, help="Processes.")
@click.option("--runtime", default="onnx", show_default=True)
@click.option(
    "--beside",
    type=click.Path(exists=True, path_type=Path),
    help="Compare with the --json file of an earlier run on the same calls.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path))
def main(
    data: Path, checkpoint: Path, cache: Path, split: str, count: int, seconds: float, seed: int, settings: Sequence[str],
    workers: int, runtime: str, beside: Path | None, json_file: Path | None, out: Path | None,
) -> None:  # fmt: skip
    controls = dict(_setting(text) for text in settings)
    try:
        Controls(controls)
        read_config(checkpoint)
        calls = cut_calls(open_corpus(data, cache), split, count, seconds, seed)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    before = json.loads(beside.read_text()) if beside else None
    if before and before["names"] != [call.name for call in calls]:
        raise click.ClickException(f"{beside} was made with other calls: use the same --split, --calls, --seconds and --seed")
    replies = replies_to(calls, checkpoint, controls, seed=seed, workers=workers, runtime=runtime)
    options = {"split": split, "calls": count, "seconds": seconds, "seed": seed}
    found = {**options, "controls": controls, **figures(calls, replies, seconds)}
    scores = {name: score(values) for name, values in scores_of(found).items()}
    print(f"{count} calls of {seconds:g} s, {split} split, seed {seed}{''.join(f', {text}' for text in settings)}")
    print(table(found, before))
    if json_file:
        found["scores"] = {name: dataclasses.asdict(value) for name, value in scores.items()}
        json_file.write_text(json.dumps(found, indent=1))
    if out:
        from benchmarks.pictures import write

        write(out, calls, replies, scores, found["faults"])


if __name__ == "__main__":
    main()
