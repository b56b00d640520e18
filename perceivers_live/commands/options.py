"""Options and option types shared by several commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engine.runtimes import NAMES as RUNTIMES
from perceivers_live.controls.catalogue import CONTROLS


class _Output(click.Path):
    """A file to be written. A path that cannot be written is rejected before the work starts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(str(value))
        if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            self.fail(f"{path} cannot be written", param, ctx)
        return path


OUTPUT = _Output(path_type=Path)


def control_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds one option for each control of the registry."""
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


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for the settings file, the checkpoint and the runtime."""
    for option in (
        click.option("--threads", type=int, help="CPU threads for the model; 0: automatic."),
        click.option("--runtime", help=f"Runtime of the model: {', '.join(RUNTIMES)}."),
        click.option("--checkpoint", type=click.Path(path_type=Path), help="Folder of a checkpoint; default: the bundled one."),
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file; see `config`."),
    ):
        command = option(command)
    return command


remote_option = click.option(
    "--engine",
    metavar="ADDRESS",
    help="Where the model runs: ssh://[user@]host[:port][/checkpoint], or a command that runs `perceivers-live serve`.",
)


def page_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for the page in the browser."""
    for option in (
        click.option("--page-allow", help="Addresses and networks of computers that may use the page, separated by commas."),
        click.option(
            "--page-host", help="Address for the page; if it is not 127.0.0.1, the computers in --page-allow have access."
        ),
        click.option("--page-port", type=int, help="TCP port for the page in the browser; 0: any free."),
    ):
        command = option(command)
    return command


def osc_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for the OSC server."""
    for option in (
        click.option("--osc-allow", help="Addresses and networks of other computers that may send OSC, separated by commas."),
        click.option(
            "--osc-host", help="Address for OSC; if it is not 127.0.0.1, the computers in --osc-allow can set controls."
        ),
        click.option("--osc-port", type=int, help="UDP port for OSC."),
    ):
        command = option(command)
    return command
