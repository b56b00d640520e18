"""The command line. Each command imports what it needs itself: ``--help`` and ``ports`` stay fast and free of torch."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import UserError
from engine.runtimes import NAMES as RUNTIMES
from perceivers_live.commands import logs, train
from perceivers_live.commands.options import OUTPUT
from perceivers_live.controls.registry import CONTROLS
from perceivers_live.controls.settings import Settings, default_toml, in_force, load

if TYPE_CHECKING:
    from engine.remote.address import Address

log = logging.getLogger("perceivers_live")
IDLE = 600.0  # seconds without a word after which `serve` ends: whoever began it asks every few seconds
INTERRUPTED = 130  # exit status, as shells count: 128 + SIGINT
UNNAMED = "one has to be named" if sys.platform == "win32" else "if none is named, a virtual port is made"


class _Group(click.Group):
    """Faults of the user's or the machine's, and Ctrl-C, are one line, not a traceback (unless ``--debug``)."""

    def invoke(self, ctx: click.Context) -> Any:
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
            if isinstance(error, OSError) and error.filename is not None:
                raise click.ClickException(f"{error.filename}: {error.strerror}") from None
            raise


def _control_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for every control of the registry."""
    for control in reversed(list(CONTROLS.values())):
        flag = "--" + control.name.replace("_", "-")
        if control.kind == "switch":
            option = click.option(f"{flag}/--no-{flag[2:]}", control.name, default=None, help=control.help)
        elif control.kind == "choice":
            text = f"{control.help} [default: {control.default}]"
            option = click.option(flag, control.name, type=click.Choice(control.choices), help=text)
        else:
            text = f"{control.help} [{control.allowed}; default: {control.default}]"
            option = click.option(flag, control.name, type=int if control.kind == "int" else float, help=text)
        command = option(command)
    return command


def _engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--threads", type=int, help="CPU threads for the model; 0: automatic."),
        click.option("--runtime", help=f"What computes the model: {', '.join(RUNTIMES)}."),
        click.option("--checkpoint", type=click.Path(path_type=Path), help="Folder of a checkpoint; default: the bundled one."),
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file; see `config`."),
    ):
        command = option(command)
    return command


_remote_option = click.option(
    "--engine",
    metavar="ADDRESS",
    help="Where the model computes: ssh://[user@]host[:port][/checkpoint], or a command that runs `perceivers-live serve`.",
)


def _settings(config_file: Path | None, options: dict[str, Any]) -> Settings:
    """The settings file with the command line's options on top. Raises ``ConfigError``."""
    places = {"in_": "midi.in", "out": "midi.out", "checkpoint": "engine.checkpoint", "runtime": "engine.runtime"}
    places |= {
        "engine": "engine.remote",
        "threads": "engine.threads",
        "osc_port": "osc.port",
        "osc_host": "osc.host",
        "osc_allow": "osc.allow",
        "page_port": "page.port",
    }
    places |= {name: f"controls.{name}" for name in CONTROLS}
    given = {places[name]: value for name, value in options.items() if name in places and value is not None}
    return load(config_file, {key: str(value) if isinstance(value, Path) else value for key, value in given.items()})


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.option("--in", "in_", metavar="NAME", help=f"Input port, or a part of its name; {UNNAMED}.")
@click.option("--out", metavar="NAME", help=f"Output port, or a part of its name; {UNNAMED}.")
@_remote_option
@_engine_options
@click.option("--osc-port", type=int, help="UDP port for OSC.")
@click.option("--page-port", type=int, help="TCP port for the page in the browser; 0: any free.")
@click.option("--osc-host", help="Address for OSC; anything but loopback lets those other machines steer that are allowed.")
@click.option("--osc-allow", help="Addresses and networks of other machines that may steer, separated by commas.")
@_control_options
@click.option("--debug", is_flag=True, help="Tracebacks and more in the log.")
@click.option("--log-json", is_flag=True, help="Log JSON, an object a line.")
@click.version_option(package_name="perceivers-live")
@click.pass_context
def main(ctx: click.Context, /, config_file: Path | None, debug: bool, log_json: bool, **options: Any) -> None:
    """A duet partner for pianists: listens to a MIDI port, and plays on when your phrase ends.

    Without a command it performs, on the bundled checkpoint, until Ctrl-C. What has no option here is in the settings file:
    `config --default` prints one.
    """
    logs.begin(debug=debug, as_json=log_json)
    if ctx.invoked_subcommand is None:
        _perform(_settings(config_file, options))
    elif config_file or any(value is not None for value in options.values()):
        raise click.UsageError(f"only --debug and --log-json go before {ctx.invoked_subcommand}; other options follow it")


def _perform(settings: Settings, *, show_page: bool = False) -> None:
    from perceivers_live.commands.perform import perform

    perform(settings, _engine(settings), _checkpoint(settings), show_page=show_page)


def _checkpoint(settings: Settings) -> Path:
    from engine.checkpoint import bundled

    return Path(settings.engine.checkpoint).expanduser() if settings.engine.checkpoint else bundled()


def _engine(settings: Settings) -> Any:
    """The engine of the settings, in a process of its own, here or elsewhere. Raises ``UserError``s of several kinds."""
    from engine.engine import Engine
    from engine.remote.standby import open_runtime_at

    checkpoint = _checkpoint(settings)
    runtime = open_runtime_at(_address(settings), checkpoint)
    log.info("checkpoint %s, runtime %s", checkpoint.name, runtime.name)
    return Engine(runtime)


def _address(settings: Settings) -> Address:
    """Where the model computes. Raises ``AddressError``."""
    from engine.remote.address import parse, this_machine

    wanted = settings.engine
    if wanted.remote:
        return parse(wanted.remote, wanted.runtime, wanted.threads)
    return this_machine(wanted.runtime, _checkpoint(settings), wanted.threads)


@contextmanager
def _engine_here(settings: Settings) -> Iterator[Any]:
    """The same in this process, where nothing has to be on time, and the same at every run."""
    from engine.engine import Engine
    from engine.runtimes.choose import open_runtime

    if settings.engine.runtime == "tensorrt":
        _compile(settings)  # or CUDA graphs would serve until it is done
    runtime = open_runtime(settings.engine.runtime, _checkpoint(settings), threads=settings.engine.threads, steady=True)
    try:
        yield Engine(runtime)
    finally:
        runtime.close()


@main.command(short_help="Play in the browser: no keyboard, DAW or MIDI system is needed.")
@click.option("--in", "in_", metavar="NAME", default="page", show_default=True, help="Input port, or a part of its name.")
@click.option("--out", metavar="NAME", default="page", show_default=True, help="Output port, or a part of its name.")
@click.option("--page-port", type=int, help="TCP port for the page in the browser; 0: any free.")
@_engine_options
@_control_options
def page(config_file: Path | None, **options: Any) -> None:
    """Play in the browser: the page is the keyboard and the sound. Opens it where there is a desktop, and says its address."""
    settings = _settings(config_file, options)
    settings = dataclasses.replace(settings, page=dataclasses.replace(settings.page, enabled=True))
    _perform(settings, show_page=True)


@main.command()
def ports() -> None:
    """List the MIDI inputs and outputs."""
    from perceivers_live.midi.ports import list_ports

    for kind, names in zip(("inputs", "outputs"), list_ports(), strict=True):
        click.echo(f"{kind}:")
        click.echo("\n".join(f"  {name}" for name in names) or f"  none ({UNNAMED})")


@main.command()
@click.option("--in", "in_", metavar="NAME", help="Input port, or a part of its name.")
@click.option("--out", metavar="NAME", help="Output port, or a part of its name.")
@_remote_option
@click.option("--loopback", is_flag=True, help="Measure the way from the output back to the input, which are connected.")
@click.option("--json", "json_file", type=OUTPUT, help="Write the findings here as well.")
@_engine_options
def doctor(loopback: bool, json_file: Path | None, config_file: Path | None, **options: Any) -> None:
    """Check ports, timing, model, GPU and settings, and say what to do."""
    from perceivers_live.commands import doctor

    settings = _settings(config_file, options)
    address = _address(settings) if settings.engine.remote else None
    if not doctor.report(doctor.checks(settings, _checkpoint(settings), address, loopback=loopback), json_file):
        sys.exit(1)


@main.command(short_help="Compute for a `perceivers-live --engine` on another machine, which starts this by itself.")
@_engine_options
def serve(config_file: Path | None, **options: Any) -> None:
    """Compute for a `perceivers-live --engine` that speaks to this command's standard input and output."""
    from engine.remote.serve import ignore_terminal, serve, standard_streams, start_log
    from engine.runtimes.choose import open_runtime

    if sys.stdin.isatty():
        raise click.UsageError("nobody types what this reads: `perceivers-live --engine ssh://HOST` starts it")
    settings = _settings(config_file, options)
    checkpoint, runtime, threads = _checkpoint(settings), settings.engine.runtime, settings.engine.threads
    ignore_terminal()
    start_log(logging.getLogger("engine").level)
    serve(standard_streams(IDLE), lambda: open_runtime(runtime, checkpoint, threads=threads), checkpoint)


@main.command()
@click.argument("midi_file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=OUTPUT, required=True, help="MIDI file to write: the call and the reply.")
@click.option("--reply-only", is_flag=True, help="Write the reply without the call.")
@click.option("--last", type=click.FloatRange(0, min_open=True), help="Use only the last so many seconds of the file.")
@_engine_options
@_control_options
def render(midi_file: Path, output: Path, reply_only: bool, last: float | None, config_file: Path | None, **options: Any) -> None:
    """Answer a MIDI file offline; the same seed gives the same answer.

    `--mode respond` answers the whole of it, about as long as it is but for a minute at most; `--mode duet` plays along; `--mode
    solo` goes on from it for a minute.
    """
    from engine.midi_file import MidiFileError, read_file, write_file
    from perceivers_live.controls.registry import Controls
    from perceivers_live.session.offline import recent, render

    settings = _with_seed(_settings(config_file, options))
    call = recent(read_file(midi_file), last)
    if not call:
        raise click.ClickException(f"{midi_file}: no notes in it but drums, if any")
    _keep_call(midi_file, output)
    controls = Controls(settings.controls)
    if controls.get("mode") == "listen" or controls.get("hold"):
        raise click.ClickException("nothing would be played in mode listen, or on hold")
    with _engine_here(settings) as engine:
        reply = render(engine, call, controls, settings.phrase)
    try:
        write_file(output, [("machine", reply)] if reply_only else [("you", call), ("machine", reply)])
    except OSError as error:
        raise MidiFileError(f"{output}: cannot be written ({error.strerror})") from error
    notes = sum(one.action < 128 for one in reply)
    length = reply[-1].time - reply[0].time if reply else 0.0
    seconds = call[-1].time - call[0].time
    click.echo(f"{output}: {notes} notes in {length:.1f} s in answer to {seconds:.1f} s (--seed {controls.get('seed')})")


def _with_seed(settings: Settings) -> Settings:
    """The settings with a seed, drawn if none is asked for: it is told, so that what came out can be had again."""
    import secrets

    if int(str(settings.controls["seed"])) >= 0:
        return settings
    return dataclasses.replace(settings, controls={**settings.controls, "seed": secrets.randbelow(1 << 31)})


def _keep_call(call: Path, output: Path) -> None:
    """Refuses to write over what is read."""
    if output.exists() and call.exists() and output.samefile(call):
        raise click.ClickException(f"{output}: that is the call itself; name another file to write")


@main.command(short_help="Try it without a keyboard or a DAW: a bundled call and its answer.")
@click.option("--call", "call_file", type=click.Path(path_type=Path), help="MIDI file to answer; default: a bundled one.")
@click.option("-o", "--output", type=OUTPUT, default=Path("demo.mid"), show_default=True, help="MIDI file to write.")
@click.option("--fast", is_flag=True, help="Do not wait for real time.")
@click.option("--out", metavar="NAME", help="Output port to hear it at, or a part of its name; default: none.")
@_engine_options
@_control_options
def demo(call_file: Path | None, output: Path, fast: bool, out: str | None, config_file: Path | None, **options: Any) -> None:
    """Try it without a keyboard or a DAW: a bundled call and its answer, drawn in the terminal, written as MIDI."""
    from perceivers_live.commands.demo import bundled_call, run

    if fast and out:
        raise click.UsageError("--fast is not in real time: nothing can be heard at --out")
    settings = _with_seed(_settings(config_file, options))
    call_file = call_file or bundled_call()
    _keep_call(call_file, output)
    with _engine_here(settings) as engine, ExitStack() as opened:
        port = None
        if out:
            from perceivers_live.midi.ports import OutputPort

            port = opened.enter_context(closing(OutputPort(out)))
        run(engine, settings, call_file, output, fast=fast, send=port.send if port is not None else None)


@main.command("compile", short_help="Compile a checkpoint's TensorRT plans ahead of time.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Folder of a checkpoint; default: the bundled one.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file; see `config`.")
def compile_(config_file: Path | None, **options: Any) -> None:
    """Compile a checkpoint's TensorRT plans ahead of time; the tensorrt runtime then starts with them."""
    click.echo(f"the plans are in {_compile(_settings(config_file, options))}")


def _compile(settings: Settings) -> Path:
    """Compiles what TensorRT plans are missing; returns the folder that they are in. Raises ``RuntimeUnavailable``."""
    from engine.runtimes import CHUNKS
    from engine.runtimes.tensorrt.cache import PlanCache, cache_folder
    from engine.runtimes.tensorrt.compile_process import compile_missing
    from engine.runtimes.tensorrt.runtime import PRECISION

    cache = PlanCache(cache_folder())
    compile_missing(_checkpoint(settings), PRECISION, CHUNKS, cache)
    return cache.folder


@main.command(short_help="Measure this machine: latency, start-up and memory, against budgets.")
@click.option(
    "--history",
    type=click.IntRange(1),
    multiple=True,
    help="Events of history to measure at; default: 1024, 8192 and 32768.",
)
@click.option("--count", type=click.IntRange(10), default=400, show_default=True, help="How often a step is measured.")
@click.option("--json", "json_file", type=OUTPUT, help="Write the figures here as well.")
@click.option("--probe", is_flag=True, hidden=True)
@_engine_options
def bench(
    history: tuple[int, ...], count: int, json_file: Path | None, probe: bool, config_file: Path | None, **options: Any
) -> None:
    """Measure this machine: milliseconds a step, an event, a handover, start-up; against budgets and its memory's speed."""
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


@main.command(short_help="Print the settings in force, checked; or a settings file to begin from.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file to check.")
@click.option("--default", is_flag=True, help="Print a settings file with every default.")
def config(config_file: Path | None, default: bool) -> None:
    """Print the settings in force, checked; or, with --default, a file to begin from."""
    if default:
        click.echo(default_toml(), nl=False)
        return
    from perceivers_live.osc.wire import listen

    settings = load(config_file)
    if settings.osc.enabled:
        listen(settings.osc.host, 0, settings.osc.allow)[0].close()  # at any port, to see whether it would
    click.echo(in_force(settings), nl=False)


@main.command(short_help="List the recordings of sessions; copy the newest, which may still go on.")
@click.option("-o", "--output", type=OUTPUT, help="Write the newest one here, as a MIDI file.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file; see `config`.")
def recordings(output: Path | None, config_file: Path | None) -> None:
    """List the recordings of sessions; or, with -o, copy the newest: of a session that still goes on what has been played."""
    from perceivers_live.commands import recordings

    folder = recordings.sessions_folder(load(config_file))
    if output is not None:
        click.echo(f"{output}: a copy of {recordings.copy_newest(folder, output)}")
        return
    for path in recordings.recordings(folder):
        click.echo(f"{path}{'  (of a session that has not ended)' if path.suffix == recordings.JOURNAL else ''}")


for command in (train.train, train.evaluate, train.export):
    main.add_command(command)


if __name__ == "__main__":
    main()
