"""The commands of the trainer: ``train``, ``evaluate``, ``export``. Their dependencies are imported when they run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from engine.errors import UserError, install
from engine.folders import cache_folder
from perceivers_live.commands.options import OUTPUT

if TYPE_CHECKING:
    import threading

NEEDED = ("torch", "tensorboard", "tqdm", "onnx", "onnxscript", "pooch", "PIL")  # packages of the extra `train`

DATA = (
    "DATA is a folder or an archive of MIDI files, a folder of packed data, or `maestro`, which downloads that dataset from its "
    "publisher."
)
CACHE = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=lambda: cache_folder() / "data",
    show_default="data, in the user's cache folder",
    help="Folder for downloads and packed data.",
)


@click.command(epilog=DATA)
@click.argument("data")
@click.option("--preset", type=click.Choice(["tiny", "small", "base", "large"]), default="small", show_default=True)
@click.option("--model", "model", multiple=True, metavar="NAME=VALUE", help="Change the preset, for example layers=12.")
@click.option(
    "--segmentation", multiple=True, metavar="NAME=VALUE", help="Change how examples are cut, for example draw=traditional."
)
@click.option(
    "--pedal", type=click.Choice(["events", "extend"]), default="events", show_default=True, help="How sustain is encoded."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/small"), show_default=True, help="Folder of the run.")
@CACHE
@click.option("--init", type=click.Path(path_type=Path), help="Checkpoint to start a new run from; layers may be added.")
@click.option("--steps", type=click.IntRange(1), default=4000, show_default=True, help="Optimizer steps in all.")
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Examples per step, over all processes.")
@click.option("--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Gradient-accumulation steps.")
@click.option("--learning-rate", type=click.FloatRange(0, 1), default=3e-3, show_default=True)
@click.option("--warmup", type=click.IntRange(0), default=50, show_default=True, help="Steps up to the full learning rate.")
@click.option(
    "--cooldown",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Fraction of the steps in which the learning rate decays.",
)
@click.option("--ema", type=click.FloatRange(0, 0.9999), default=0.0, show_default=True, help="Decay of averaged weights.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Precision of matrix products; auto: bf16 where the hardware is faster with it.",
)
@click.option("--compile/--no-compile", default=False, show_default=True, help="Compile with torch.compile.")
@click.option(
    "--parallel", type=click.Choice(["ddp", "fsdp"]), default="ddp", show_default=True, help="Parallelism under torchrun."
)
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Data loader processes.")
@click.option("--validate-every", type=click.IntRange(1), default=250, show_default=True, help="Steps between validations.")
@click.option(
    "--save-every",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Steps between saves; a kill loses at most these.",
)
@click.option(
    "--patience",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Stop after N validations without improvement; 0: never.",
)
@click.option(
    "--samples/--no-samples", default=True, show_default=True, help="Write MIDI samples of the model at every validation."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def train(
    data: str,
    preset: str,
    model: tuple[str, ...],
    segmentation: tuple[str, ...],
    pedal: str,
    out: Path,
    cache: Path,
    init: Path | None,
    device: str,
    **options: Any,
) -> None:
    """Train a model, or resume the run in an existing folder. For several GPUs or machines, start it with torchrun."""
    _check_installed()
    import threading

    from trainer.parallel import world
    from trainer.resume import existing_run, resumed_settings
    from trainer.segmentation import Segmentation
    from trainer.settings import Training, changed, model_config
    from trainer.train import train as run

    options |= {"preset": preset, "pedal": pedal}
    earlier = existing_run(out)
    if earlier is not None:
        config, pedal = earlier.config, earlier.pedal
        training = resumed_settings(earlier, options, _given(), model, segmentation)
    else:
        config = model_config(preset, model)
        how = changed(Segmentation.for_model(config), segmentation)
        training = Training(segmentation=how, **{name: value for name, value in options.items() if name != "pedal"})
    with world(device) as here:
        corpus = here.first_then_others(lambda: _corpus(data, cache, pedal))
        if here.first and earlier is not None and earlier.data != corpus.folder.name:
            _tell(f"{out}: the data has changed since this run was saved, and with it the examples and the validation pieces")
        stop = threading.Event()
        _stop_on_signals(stop, _tell if here.first else lambda _: None, out)
        step = run(corpus, out, training, stop, config=config, init=init, here=here).progress.step
        if here.first:
            end = "stopped; the same command resumes it" if stop.is_set() and step < training.steps else "done"
            _tell(f"{out}: saved at step {step} of {training.steps}, {end}")


def _check_installed() -> None:
    """Raises ``UserError`` if the extra `train` is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"training needs {', '.join(missing)}, which this installation lacks: {install('train')}")


def _given() -> set[str]:
    """Names of this command's parameters that the user set."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}


def _stop_on_signals(stop: threading.Event, tell: Callable[[str], None], out: Path) -> None:
    """SIGINT and SIGTERM end training after the current step; a second signal ends it at once."""

    def on_signal(number: int, _: object) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            tell(f"stopping at once; the last save is in {out}")
            signal.raise_signal(number)
            return
        stop.set()
        tell(f"stopping after this step and saving to {out}; once more: stop at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


def _tell(text: str) -> None:
    """Writes a line to standard error, unbuffered, since a signal handler must not use Python's buffers."""
    os.write(2, f"\n{text}\n".encode())


@click.command(epilog=DATA)
@click.argument("data")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Folder of a checkpoint; default: the bundled one.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "all"]),
    default="test",
    show_default=True,
    help="Pieces to evaluate; all: every file, for example your own.",
)
@CACHE
@click.option("--pieces", type=click.IntRange(1), help="Number of pieces, evenly spaced over the split; default: all.")
@click.option("--quick", is_flag=True, help="Likelihoods only: no shortened context, no continuations, no search for copies.")
@click.option(
    "--clips",
    type=click.IntRange(3),
    default=40,
    show_default=True,
    help="Number of continuations to compare with the real ones.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--json", "json_file", type=OUTPUT, help="Also write the figures to this file.")
def evaluate(data: str, checkpoint: Path | None, cache: Path, json_file: Path | None, **options: Any) -> None:
    """Measure a checkpoint: likelihood of held-out music, and similarity of its continuations to real music."""
    _check_installed()
    from engine.checkpoint import bundled
    from trainer.evaluate import report

    folder = checkpoint or bundled()
    report(_corpus(data, cache, _pedal(folder)), folder, json_file=json_file, **options)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", default="", help="Name of the training data, for the model card.")
@click.option("--licence", default="", help="Licence of the weights, for the model card.")
@click.option(
    "--figures", multiple=True, type=click.Path(path_type=Path), help="Output of `evaluate --json`, for the model card."
)
@click.option("--int8", "int8_data", metavar="DATA", help="Add int8 weights if the validation pieces of DATA show little loss.")
@CACHE
def export(
    run: Path, folder: Path, data: str, licence: str, figures: tuple[Path, ...], int8_data: str | None, cache: Path
) -> None:
    """Write a run's checkpoint as a bundle for the daemon, with a model card."""
    _check_installed()
    from trainer.export import export as write

    write(run, folder, data=data, licence=licence, figures=figures)
    if int8_data is not None:
        from trainer.int8 import add_int8

        click.echo(add_int8(folder, _corpus(int8_data, cache, _pedal(folder))))
    click.echo(f"{folder}: {sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.1f} MB")


def _pedal(checkpoint: Path) -> str:
    """How sustain was encoded in a checkpoint's training data."""
    from engine.checkpoint import read_config

    return str(read_config(checkpoint)[1].get("pedal", "events"))


def _corpus(data: str, cache: Path, pedal: str) -> Any:
    from trainer.data import Corpus, prepare
    from trainer.fetch import resolve

    return Corpus(prepare(resolve(data, cache), cache, pedal=pedal))
