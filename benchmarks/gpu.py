"""All GPU measurements: python -m benchmarks.gpu --all --json out.json [--preset base] [--history 32768] [--count 400]

    exactness    difference between streaming and the full forward in float32, after every ring has wrapped, for each runtime
    parity       KL divergence in nats between the next event's distributions in float32 and in half precision
    latency      ms per event, sampling included, for each runtime; floor: bytes of weights and rings divided by the bandwidth
    profile      the operators that take the most time of an event
    training     target events per second of whole training steps at three batch sizes

The runtimes are eager (one operator at a time), cuda (CUDA graphs), cuda-compiled (CUDA graphs of compiled kernels) and tensorrt
(TensorRT plans in CUDA graphs; they are compiled first). Weights are random, except for parity. Without ``--all``, only latency
is measured.

Every measurement runs in a separate process, and its result is written to the file immediately. If the run was interrupted, the
same command continues it, and repeats measurements that failed. Without an NVIDIA GPU, the CPU is measured; measurements that
need a GPU report that there is none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("eager", "cuda", "cuda-compiled", "tensorrt")  # runtimes, the least likely to fail first
LATENCY = tuple(f"latency {way}" for way in WAYS)
BATCHES = {"tiny": (1, 2, 4), "small": (32, 64, 128), "base": (32, 64, 96), "large": (16, 32, 48)}
Results = dict[str, dict[str, Any]]


def steps_of(preset: str) -> list[str]:
    """Names of all measurements, the most important first."""
    exactness = [f"exactness {way}" for way in WAYS]
    return [*exactness[:2], *LATENCY[:2], "parity", *exactness[2:], *LATENCY[2:], "profile", *training_steps(preset)]


def training_steps(preset: str) -> list[str]:
    """Names of the training measurements."""
    return [f"training {batch}" for batch in BATCHES[preset]]


def measured(step: str, options: dict[str, Any], limit: float) -> dict[str, Any]:
    """Runs a measurement for at most ``limit`` seconds; returns its result, or ``error`` with a message."""
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
    """The results of an earlier run, without failed ones. Raises ``click.ClickException`` if the file is of a run with other
    options or not a file of results.
    """
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
    """Writes the results and replaces the file atomically."""
    if path is not None:
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps({"options": options, "results": results}, indent=1))
        part.replace(path)


def table(results: Results) -> list[str]:
    """The lines of the printed table."""
    lines = [f"{'ms per event':24}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'floor':>9}"]
    for step, result in results.items():
        name, _, argument = step.partition(" ")
        if "error" in result:
            lines.append(f"{step:24}not here: {result['error']}")
        elif name == "latency":
            lines.append(f"{step:24}" + "".join(f"{result[field]:9.3f}" for field in ("p50", "p95", "p99", "max", "floor")))
        elif name == "exactness":
            lines.append(
                f"{step:24}largest difference {result['difference']:.1e} ({'exact' if result['exact'] else 'NOT EXACT'})"
            )
        elif name == "parity":
            lines.append(
                f"{step:24}{result['nats']:.6f} nats per event, {100 * result['error_of_hidden']:.3f} % of the hidden state"
            )
        elif name == "profile":
            lines += [f"{step:24}{row['ms']:9.3f} ms {row['calls']:6.0f} calls  {row['operator']}" for row in result["rows"]]
        elif name == "training":
            lines.append(f"{step:24}{result['events_a_second']:12,.0f} events/s {result['peak_mb']:9,.0f} MB (batch {argument})")
    return lines


@click.command()
@click.option("--all", "everything", is_flag=True, help="Run all measurements, not only latency.")
@click.option("--preset", type=click.Choice(list(BATCHES)), default="base", show_default=True)
@click.option("--history", default=32768, show_default=True, help="Events of history.")
@click.option("--count", default=400, show_default=True, help="Number of timed events.")
@click.option("--limit", default=600.0, show_default=True, help="Time limit of each measurement in seconds.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the results to this file; continue the run if it exists."
)
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
