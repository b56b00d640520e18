"""Quality of replies in figures: python -m benchmarks.listening DATA [--calls N] [--set temperature=0.9] [--json FILE]

DATA is a folder of MIDI files, or a cache made from one by ``trainer.data.prepare``. Calls are cut out of held-out performances;
the machine answers each on a virtual clock, as in a live session. Reply and call are compared measure by measure (``likeness``).
The real continuation has score 1, the continuation of another piece score 0. Faults (``faults``) are counted in the replies and,
as a check, in the real continuations.

--beside FIGURES.json, from a run with the same calls, prints the differences with their intervals. --out FOLDER writes the music
as MIDI and as piano rolls, and the scores as a picture.
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
from engine.checkpoint import bundled
from engine.engine import Engine
from engine.events import NOTE_OFF, Timed
from engine.folders import cache_folder
from engine.runtimes.choose import open_runtime
from perceivers_live.controls.control import ControlError
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.session.offline import render
from trainer.data import SPLITS, DataError

KINDS = ("reply", "other", "real")  # what a call is compared with

_engine: Engine | None = None  # of a worker process


def _open(checkpoint: Path, runtime: str) -> None:
    global _engine
    _engine = Engine(open_runtime(runtime, checkpoint, threads=1))


def _answer(call: Call, seed: int, controls: Mapping[str, object]) -> list[Timed]:
    assert _engine is not None
    _engine.forget()
    return render(_engine, call.call, Controls(controls), PhraseSettings(), seed=seed)


def answers(
    calls: Sequence[Call], checkpoint: Path, controls: Mapping[str, object], *, seed: int, workers: int = 1, runtime: str = "onnx"
) -> list[list[Timed]]:
    """The machine's replies. Each depends only on its call, the seed and the controls, not on the number of processes."""
    work = partial(_answer, seed=seed, controls=dict(controls))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_open, initargs=(checkpoint, runtime)) as pool:
        return list(pool.map(work, calls))


def figures(calls: Sequence[Call], replies: Sequence[Sequence[Timed]], seconds: float) -> dict[str, Any]:
    """Distances of every call by measure, and the faults of every reply and every real continuation."""
    heard = [passage(one.call) for one in calls]
    ours = [passage(reply, _heard_seconds(reply, seconds)) for reply in replies]
    real = [passage(one.continuation, seconds) for one in calls]
    measured = measure(heard, [one.piece for one in calls], ours, real)
    return {
        "names": [one.name for one in calls],
        "distances": {
            name: {**{kind: getattr(one, kind).tolist() for kind in KINDS}, "apart": one.apart} for name, one in measured.items()
        },
        "faults": [faults(reply, call) for reply, call in zip(ours, heard, strict=True)],
        "faults_real": [faults(reply, call) for reply, call in zip(real, heard, strict=True)],
    }


def _heard_seconds(reply: Sequence[Timed], seconds: float) -> float:
    """How much of a reply is compared: as much as of the call, but not the silence after its end. Calls have gaps at their
    begin, and a reply is as long as what was played.
    """
    onsets = [one.time for one in reply if one.action < NOTE_OFF]
    return min(seconds, reply[-1].time - onsets[0]) if onsets else seconds


def scores_of(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Resampled scores by measure, and their ``mean``, from ``figures``."""
    return resampled({name: _distances_of(one) for name, one in found["distances"].items()})


def _distances_of(one: Mapping[str, Any]) -> Distances:
    reply, other, real = (np.array(one[kind]) for kind in KINDS)
    return Distances(reply, other, real, one["apart"])


def table(found: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """A table of scores and faults; with figures ``before`` of the same calls, also the differences."""
    drawn, old = scores_of(found), scores_of(before) if before else {}
    change = f"{'change':>9}{'95 %':>16}" if old else ""
    lines = [f"{'':20}{'reply':>8}{'other':>8}{'real':>8}{'apart':>7}{'score':>8}{'95 %':>14}{change}"]
    for name, values in drawn.items():
        line = f"{name:20}{_distances(found, name):31}{_with_interval(values, 8, 14, '.2f', '-')}"
        lines.append(line + (_with_interval(values - old[name], 9, 16, "+.3f", "..") if old else ""))
    lines.append(f"{'faults, % of':20}{'replies':>8}{'real':>8}" + (f"{'before':>8}" if before else ""))
    counted = [found["faults"], found["faults_real"], *([before["faults"]] if before else [])]
    lines += [f"{name:20}" + "".join(f"{100 * share(one, name):8.1f}" for one in counted) for name in (*FAULTS, "any")]
    return "\n".join(lines)


def _distances(found: Mapping[str, Any], name: str) -> str:
    of = found["distances"].get(name)
    return "".join(f"{np.mean(of[kind]):8.3f}" for kind in KINDS) + f"{of['apart']:7.2f}" if of else ""


def _with_interval(values: np.ndarray, width: int, room: int, form: str, dash: str) -> str:
    one = score(values)
    return f"{one.value:{form}}".rjust(width) + f"{one.low:{form}}{dash}{one.high:{form}}".rjust(room)


def share(of: Sequence[Sequence[str]], name: str) -> float:
    """Share of replies that have the fault ``name``, or ``any``."""
    return float(np.mean([bool(one) if name == "any" else name in one for one in of]))


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
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A control, such as temperature=0.9.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
@click.option("--runtime", default="onnx", show_default=True)
@click.option("--beside", type=click.Path(exists=True, path_type=Path), help="Figures of an earlier run on the same calls.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path))
def main(
    data: Path, checkpoint: Path, cache: Path, split: str, count: int, seconds: float, seed: int, settings: Sequence[str],
    workers: int, runtime: str, beside: Path | None, json_file: Path | None, out: Path | None,
) -> None:  # fmt: skip
    controls = dict(_setting(text) for text in settings)
    try:
        Controls(controls)
        calls = cut_calls(open_corpus(data, cache), split, count, seconds, seed)
    except (ControlError, DataError) as error:
        raise click.ClickException(str(error)) from error
    before = json.loads(beside.read_text()) if beside else None
    if before and before["names"] != [one.name for one in calls]:
        raise click.ClickException(f"{beside} was made with other calls: use the same --split, --calls, --seconds and --seed")
    replies = answers(calls, checkpoint, controls, seed=seed, workers=workers, runtime=runtime)
    asked = {"split": split, "calls": count, "seconds": seconds, "seed": seed}
    found = {**asked, "controls": controls, **figures(calls, replies, seconds)}
    scores = {name: score(values) for name, values in scores_of(found).items()}
    print(f"{count} calls of {seconds:g} s, {split} split, seed {seed}{''.join(f', {text}' for text in settings)}")
    print(table(found, before))
    if json_file:
        found["scores"] = {name: dataclasses.asdict(one) for name, one in scores.items()}
        json_file.write_text(json.dumps(found, indent=1))
    if out:
        from benchmarks.pictures import write

        write(out, calls, replies, scores, found["faults"])


if __name__ == "__main__":
    main()
