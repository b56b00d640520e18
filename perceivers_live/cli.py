"""The command line. Each command imports its own dependencies, so ``--help`` and ``ports`` start fast, without PyTorch."""

from __future__ import annotations

import dataclasses
import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import UserError
from perceivers_live.commands import logs, train
from perceivers_live.commands.options import OUTPUT, control_options, engine_options, osc_options, page_options, remote_option
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.settings import Settings, default_toml, load, settings_toml

if TYPE_CHECKING:
    from engine.remote.address import Address

log = logging.getLogger("perceivers_live")
IDLE_TIMEOUT = 600.0  # seconds without a message after which `serve` ends; its client sends one every few seconds
INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT, as in shells
PORT_DEFAULT = "required on Windows" if sys.platform == "win32" else "default: a virtual port"


class _Group(click.Group):
    """Prints expected errors and Ctrl-C as one line instead of a traceback (unless ``--debug``)."""

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files and ports can have any characters
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("\nstopped", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            if isinstance(error, UserError):
                raise click.ClickException(str(error)) from None
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError) and error.strerror:
                where = "the output cannot be written" if error.filename is None else error.filename
                raise click.ClickException(f"{where}: {error.strerror}") from None
            raise


def _settings(config_file: Path | None, options: dict[str, Any]) -> Settings:
    """The settings of the file and the command line; the command line has priority. Raises ``ConfigError``."""
    keys = {"in_": "midi.in", "out": "midi.out", "checkpoint": "engine.checkpoint", "runtime": "engine.runtime"}
    keys |= {
        "engine": "engine.remote",
        "threads": "engine.threads",
        "osc_port": "osc.port",
        "osc_host": "osc.host",
        "osc_allow": "osc.allow",
        "page_host": "page.host",
        "page_allow": "page.allow",
        "page_port": "page.port",
        "page_enabled": "page.enabled",
    }
    keys |= {name: f"controls.{name}" for name in CONTROLS}
    given = {keys[name]: value for name, value in options.items() if name in keys and value is not None}
    return load(config_file, {key: str(value) if isinstance(value, Path) else value for key, value in given.items()})


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.option("--in", "in_", metavar="NAME", help=f"Input port, or a part of its name; {PORT_DEFAULT}.")
@click.option("--out", metavar="NAME", help=f"Output port, or a part of its name; {PORT_DEFAULT}.")
@remote_option
@engine_options
@osc_options
@page_options
@control_options
@click.option("--debug", is_flag=True, help="Log debug messages, and show the traceback of an error that ends the program.")
@click.option("--log-json", is_flag=True, help="Log one JSON object per line.")
@click.version_option(package_name="perceivers-live")
@click.pass_context
def main(ctx: click.Context, /, config_file: Path | None, debug: bool, log_json: bool, **options: Any) -> None:
    """A duet partner for pianists: listens to a MIDI port, and plays on when your phrase ends.

    Without a command it performs with the bundled checkpoint until Ctrl-C. All other settings are in the settings file: `config
    --default` prints one.
    """
    logs.begin(debug=debug, as_json=log_json)
    if ctx.invoked_subcommand is None:
        _perform(_settings(config_file, options))
    elif config_file or any(value is not None for value in options.values()):
        raise click.UsageError(f"only --debug and --log-json may precede {ctx.invoked_subcommand}; put other options after it")


def _perform(settings: Settings, *, show_page: bool = False) -> None:
    importing = threading.Thread(target=import_module, args=("perceivers_live.commands.perform",))
    importing.start()  # takes as long as the model's process needs to start
    engine = _engine(settings)
    importing.join()
    from perceivers_live.commands.perform import perform

    perform(settings, engine, _checkpoint(settings), show_page=show_page)


def _checkpoint(settings: Settings) -> Path:
    from engine.checkpoint import bundled
    from engine.folders import expanded

    return expanded(settings.engine.checkpoint) if settings.engine.checkpoint else bundled()


def _engine(settings: Settings) -> Any:
    """An engine whose model runs in another process, on this or another computer. Raises ``UserError``."""
    from engine.engine import Engine
    from engine.remote.standby import open_runtime_at

    checkpoint = _checkpoint(settings)
    wanted = settings.engine
    runtime = open_runtime_at(_address(settings), checkpoint, threads=wanted.threads, fallback=wanted.runtime == "auto")
    log.info("checkpoint %s, runtime %s", checkpoint.name, runtime.name)
    return Engine(runtime)


def _address(settings: Settings) -> Address:
    """The address of the process that runs the model. Raises ``AddressError``."""
    from engine.remote.address import parse, this_computer

    wanted = settings.engine
    if wanted.remote:
        return parse(wanted.remote, wanted.runtime, wanted.threads)
    return this_computer(wanted.runtime, _checkpoint(settings), wanted.threads)


@contextmanager
def _local_engine(settings: Settings) -> Iterator[Any]:
    """An engine whose model runs in this process: deterministic, for commands without real-time deadlines."""
    from engine.engine import Engine
    from engine.runtimes.choose import open_runtime

    if settings.engine.runtime == "tensorrt":
        _compile(settings)  # otherwise the runtime uses CUDA graphs until compilation ends
    runtime = open_runtime(settings.engine.runtime, _checkpoint(settings), threads=settings.engine.threads, steady=True)
    try:
        yield Engine(runtime)
    finally:
        runtime.close()


@main.command(short_help="Play in the browser: no keyboard, DAW or MIDI system is needed.")
@click.option("--in", "in_", metavar="NAME", default="page", show_default=True, help="Input port, or a part of its name.")
@click.option("--out", metavar="NAME", default="page", show_default=True, help="Output port, or a part of its name.")
@remote_option
@engine_options
@osc_options
@page_options
@control_options
def page(config_file: Path | None, **options: Any) -> None:
    """Play in the browser: the page is keyboard and sound. Prints its address, and opens it if there is a desktop."""
    _perform(_settings(config_file, {**options, "page_enabled": True}), show_page=True)


@main.command()
def ports() -> None:
    """List the MIDI inputs and outputs."""
    from perceivers_live.midi.ports import list_ports

    for kind, names in zip(("inputs", "outputs"), list_ports(), strict=True):
        click.echo(f"{kind}:")
        click.echo("\n".join(f"  {name}" for name in names) or f"  none ({PORT_DEFAULT})")


@main.command()
@click.option("--in", "in_", metavar="NAME", help="Input port, or a part of its name.")
@click.option("--out", metavar="NAME", help="Output port, or a part of its name.")
@remote_option
@click.option("--loopback", is_flag=True, help="Measure the delay from the output to the input; connect them first.")
@click.option("--json", "json_file", type=OUTPUT, help="Also write the findings to this file.")
@engine_options
def doctor(loopback: bool, json_file: Path | None, config_file: Path | None, **options: Any) -> None:
    """Check ports, timing, model, GPU and settings, and print advice."""
    from perceivers_live.commands import doctor

    settings = _settings(config_file, options)
    address = _address(settings) if settings.engine.remote else None
    if not doctor.report(doctor.checks(settings, _checkpoint(settings), address, loopback=loopback), json_file):
        sys.exit(1)


@main.command(short_help="Run the model for `perceivers-live --engine` on another computer, which starts this command.")
@engine_options
def serve(config_file: Path | None, **options: Any) -> None:
    """Run the model for `perceivers-live --engine`, which is connected to standard input and output of this command."""
    from engine.remote.serve import ignore_terminal, serve, standard_streams, start_log
    from engine.runtimes.choose import open_runtime

    if sys.stdin.isatty():
        raise click.UsageError("serve reads a binary protocol, not a terminal: `perceivers-live --engine ssh://HOST` starts it")
    settings = _settings(config_file, options)
    checkpoint, runtime, threads = _checkpoint(settings), settings.engine.runtime, settings.engine.threads
    ignore_terminal()
    start_log(logging.getLogger("engine").level)
    serve(standard_streams(IDLE_TIMEOUT), lambda: open_runtime(runtime, checkpoint, threads=threads), checkpoint)


@main.command()
@click.argument("midi_file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=OUTPUT, required=True, help="MIDI file to write: the call and the reply.")
@click.option("--reply-only", is_flag=True, help="Write the reply without the call.")
@click.option("--last", type=click.FloatRange(0, min_open=True), help="Use only the last N seconds of the file.")
@engine_options
@control_options
def render(midi_file: Path, output: Path, reply_only: bool, last: float | None, config_file: Path | None, **options: Any) -> None:
    """Reply to a MIDI file offline; the same seed gives the same reply.

    `--mode respond` replies to the whole file, for about its length, at most a minute. `--mode duet` plays along. `--mode solo`
    continues it for a minute.
    """
    from engine.midi_file import MidiFileError, read_file, write_file
    from perceivers_live.controls.registry import Controls
    from perceivers_live.session.offline import has_notes, recent, render

    settings = _with_seed(_settings(config_file, options))
    whole = read_file(midi_file)
    if not has_notes(whole):
        raise click.ClickException(f"{midi_file}: contains no notes (drums do not count)")
    call = recent(whole, last)
    if not has_notes(call):
        raise click.ClickException(f"{midi_file}: no note begins in its last {last:g} seconds; choose a larger --last")
    _check_not_call(midi_file, output)
    controls = Controls(settings.controls)
    if controls.get("mode") == "listen" or controls.get("hold"):
        raise click.ClickException("mode listen and hold play nothing: choose another --mode, or --no-hold")
    with _local_engine(settings) as engine:
        reply = render(engine, call, controls, settings.phrase)
    try:
        write_file(output, [("machine", reply)] if reply_only else [("human", call), ("machine", reply)])
    except OSError as error:
        raise MidiFileError(f"{output}: cannot be written ({error.strerror})") from error
    notes = sum(one.action < 128 for one in reply)
    length = reply[-1].time - reply[0].time if reply else 0.0
    seconds = call[-1].time - call[0].time
    click.echo(f"{output}: {notes} notes in {length:.1f} s in reply to {seconds:.1f} s (--seed {controls.get('seed')})")


def _with_seed(settings: Settings) -> Settings:
    """The settings, with a random seed if none is set. Commands print the seed, so that the result can be reproduced."""
    import secrets

    if int(str(settings.controls["seed"])) >= 0:
        return settings
    return dataclasses.replace(settings, controls={**settings.controls, "seed": secrets.randbelow(1 << 31)})


def _check_not_call(call: Path, output: Path) -> None:
    """Raises ``ClickException`` if the output file is the call itself."""
    if output.exists() and call.exists() and output.samefile(call):
        raise click.ClickException(f"{output}: this is the call itself; choose another output file")


@main.command(short_help="Play a bundled call and the reply to it; needs no keyboard or DAW.")
@click.option("--call", "call_file", type=click.Path(path_type=Path), help="MIDI file to reply to; default: a bundled one.")
@click.option("-o", "--output", type=OUTPUT, default=Path("demo.mid"), show_default=True, help="MIDI file to write.")
@click.option("--fast", is_flag=True, help="Do not wait for real time.")
@click.option("--out", metavar="NAME", help="Output port to play it on, or a part of its name; default: none.")
@engine_options
@control_options
def demo(call_file: Path | None, output: Path, fast: bool, out: str | None, config_file: Path | None, **options: Any) -> None:
    """Play a bundled call and the reply to it without keyboard or DAW, draw both in the terminal, and write a MIDI file."""
    from perceivers_live.commands.demo import bundled_call, run

    if fast and out:
        raise click.UsageError("--fast is not in real time and cannot be combined with --out")
    settings = _with_seed(_settings(config_file, options))
    call_file = call_file or bundled_call()
    _check_not_call(call_file, output)
    with _local_engine(settings) as engine, ExitStack() as opened:
        port = None
        if out:
            from perceivers_live.midi.ports import OutputPort

            port = opened.enter_context(closing(OutputPort(out)))
        run(engine, settings, call_file, output, fast=fast, send=port.send if port is not None else None)


@main.command("compile", short_help="Compile a checkpoint's TensorRT plans ahead of time.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Folder of a checkpoint; default: the bundled one.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file; see `config`.")
def compile_(config_file: Path | None, **options: Any) -> None:
    """Compile a checkpoint's TensorRT plans ahead of time, for the tensorrt runtime."""
    click.echo(f"the plans are in {_compile(_settings(config_file, options))}")


def _compile(settings: Settings) -> Path:
    """Compiles missing TensorRT plans; returns their folder. Raises ``RuntimeUnavailable``."""
    from engine.runtimes.pytorch import SIZES
    from engine.runtimes.tensorrt.cache import PlanCache, plans_folder
    from engine.runtimes.tensorrt.compile_process import compile_missing
    from engine.runtimes.tensorrt.runtime import PRECISION

    cache = PlanCache(plans_folder())
    compile_missing(_checkpoint(settings), PRECISION, SIZES, cache)
    return cache.folder


@main.command(short_help="Measure this computer: latency, start-up and memory, against budgets.")
@click.option(
    "--history",
    type=click.IntRange(1),
    multiple=True,
    help="Number of past events to measure with; default: 1024, 8192 and 32768.",
)
@click.option("--count", type=click.IntRange(10), default=400, show_default=True, help="Number of measurements of a step.")
@click.option("--json", "json_file", type=OUTPUT, help="Also write the figures to this file.")
@click.option("--probe", is_flag=True, hidden=True)
@engine_options
def bench(
    history: tuple[int, ...], count: int, json_file: Path | None, probe: bool, config_file: Path | None, **options: Any
) -> None:
    """Measure this computer: latency of steps, events, takeovers and start-up, against budgets and memory bandwidth."""
    from itertools import chain

    from perceivers_live.commands import bench

    settings = _settings(config_file, options)
    if settings.engine.runtime == "tensorrt":
        _compile(settings)
    engine = _engine(settings)
    if probe:
        bench.probe(engine, settings)
        return
    given = {"--config": config_file, **{f"--{name}": value for name, value in options.items()}}
    arguments = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    rows = chain(bench.start_up(arguments), bench.measure(engine, settings, history or bench.HISTORIES, count))
    bench.report(rows, engine.runtime, json_file)


@main.command(short_help="Check and print the current settings, or print the defaults.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file to check.")
@click.option("--default", is_flag=True, help="Print a settings file with every default.")
def config(config_file: Path | None, default: bool) -> None:
    """Check and print the current settings; with --default, print a settings file to start from."""
    if default:
        click.echo(default_toml(), nl=False)
        return
    from perceivers_live.commands.addresses import check_addresses

    settings = load(config_file)
    check_addresses(settings, osc_port=0, page_port=0)  # a daemon may be using the ports
    click.echo(settings_toml(settings), nl=False)


@main.command(short_help="List recordings of sessions, or copy the newest, even while it is being made.")
@click.option("-o", "--output", type=OUTPUT, help="MIDI file to copy the newest recording to.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file; see `config`.")
def recordings(output: Path | None, config_file: Path | None) -> None:
    """List recordings of sessions. With -o, copy the newest; of a running session, what has been played so far."""
    from perceivers_live.commands import recordings

    folder = recordings.sessions_folder(load(config_file))
    if output is not None:
        click.echo(f"{output}: copy of {recordings.copy_newest(folder, output)}")
        return
    for path in recordings.recordings(folder):
        click.echo(f"{path}{'  (session not ended)' if path.suffix == recordings.JOURNAL else ''}")


for command in (train.train, train.evaluate, train.export):
    main.add_command(command)


if __name__ == "__main__":
    main()
