"""The first day on a GPU: python benchmarks/gpu.py --all --json out.json [--preset base] [--history 32768] [--count 400]

    exactness    streaming against the full forward in float32, past every ring's wrap, in every way
    parity       the next event's distribution in half precision against float32: divergence in nats
    latency      ms an event, sampling included, in every way, beside the floor: the bytes of weights and rings over the bandwidth
    profile      the operators that take most of the time of an event
    training     target events a second of whole steps at three batch sizes

The ways are eager (an operator at a time), cuda (captured as CUDA graphs), cuda-compiled (graphs of compiled kernels) and
tensorrt (plans inside CUDA graphs, compiled first). Weights are random, except for parity. Without ``--all``, only latency is
measured.

Every measurement is a process of its own. Its result is written to the file at once; the same command goes on where it was cut
off, and tries again what failed. Without an NVIDIA GPU, the CPU is measured, and what needs a GPU says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("eager", "cuda", "cuda-compiled", "tensorrt")  # in the order of what they risk
LATENCY = tuple(f"latency {way}" for way in WAYS)
BATCHES = {"tiny": (1, 2, 4), "small": (32, 64, 128), "base": (32, 64, 96), "large": (16, 32, 48)}
Results = dict[str, dict[str, Any]]


def steps_of(preset: str) -> list[str]:
    """All measurements, the most important first."""
    exactness = [f"exactness {way}" for way in WAYS]
    return [*exactness[:2], *LATENCY[:2], "parity", *exactness[2:], *LATENCY[2:], "profile", *training_steps(preset)]


def training_steps(preset: str) -> list[str]:
    return [f"training {batch}" for batch in BATCHES[preset]]


def measured(step: str, options: dict[str, Any], limit: float) -> dict[str, Any]:
    """The result of a measurement, or its ``error``."""
    command = [sys.executable, "-m", "benchmarks.gpu_steps", step, json.dumps(options)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {limit:g} s"}
    lines, errors = done.stdout.strip().splitlines(), done.stderr.strip().splitlines()
    if done.returncode == 0 and lines:
        result: dict[str, Any] = json.loads(lines[-1])
        return result
    click.echo(done.stderr[-4000:], err=True)
    return {"error": errors[-1][:300] if errors else f"ended with status {done.returncode}"}


def stored(path: Path | None, options: dict[str, Any]) -> Results:
    """The results of an earlier run with the same options. Raises ``click.ClickException`` for a file of another one."""
    if path is None or not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        if content["options"] != options:
            raise click.ClickException(f"{path}: written with other options ({content['options']}); name another file")
        results: Results = content["results"]
        return {step: result for step, result in results.items() if "error" not in result}
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{path}: not a file of this program ({error}); name another one") from error


def store(path: Path | None, options: dict[str, Any], results: Results) -> None:
    """Writes the results; a reader never sees half a file."""
    if path is not None:
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps({"options": options, "results": results}, indent=1))
        part.replace(path)


def table(results: Results) -> list[str]:
    """All results for people."""
    lines = [f"{'ms an event':24}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'floor':>9}"]
    for step, one in results.items():
        name, _, what = step.partition(" ")
        if "error" in one:
            lines.append(f"{step:24}not here: {one['error']}")
        elif name == "latency":
            lines.append(f"{step:24}" + "".join(f"{one[field]:9.3f}" for field in ("p50", "p95", "p99", "max", "floor")))
        elif name == "exactness":
            lines.append(f"{step:24}largest difference {one['difference']:.1e} ({'exact' if one['exact'] else 'NOT EXACT'})")
        elif name == "parity":
            lines.append(f"{step:24}{one['nats']:.6f} nats an event, {100 * one['error_of_hidden']:.3f} % of the hidden state")
        elif name == "profile":
            lines += [f"{step:24}{row['ms']:9.3f} ms {row['calls']:6.0f} calls  {row['operator']}" for row in one["rows"]]
        elif name == "training":
            lines.append(f"{step:24}{one['events_a_second']:12,.0f} events/s {one['peak_mb']:9,.0f} MB (batch {what})")
    return lines


@click.command()
@click.option("--all", "everything", is_flag=True, help="All measurements instead of latency only.")
@click.option("--preset", type=click.Choice(list(BATCHES)), default="base", show_default=True)
@click.option("--history", default=32768, show_default=True, help="Events of history.")
@click.option("--count", default=400, show_default=True, help="Events that are timed.")
@click.option("--limit", default=600.0, show_default=True, help="Seconds that a measurement may take.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the results here, and go on from them.")
def main(everything: bool, preset: str, history: int, count: int, limit: float, json_file: Path | None) -> None:
    options = {"preset": preset, "history": history, "count": count}
    results = stored(json_file, options)
    for step in ["machine", *(steps_of(preset) if everything else LATENCY)]:
        if step not in results:
            needs_gpu = step.partition(" ")[2] in WAYS[1:] and results["machine"].get("device") == "CPU"
            results[step] = {"error": "PyTorch finds no NVIDIA GPU"} if needs_gpu else measured(step, options, limit)
            store(json_file, options, results)
            click.echo(f"{step}: {'not here: ' + results[step]['error'] if 'error' in results[step] else 'done'}", err=True)
    about = results.pop("machine")
    click.echo(
        f"{about.get('machine', '')}; {about.get('device', about.get('error', ''))}; {preset}, {history} events of history"
    )
    click.echo("\n".join(table(results)))


if __name__ == "__main__":
    main()
