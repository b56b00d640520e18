"""Where the model runs: the values of ``--engine``, the command that starts the server, and the causes of a failed start.

ssh://[user@]host[:port][/checkpoint]     ``perceivers-live serve`` on that host, through the user's ssh and its configuration
                                          (keys, agent, known hosts, jump hosts); /~/folder is below the home folder
any other text                            a command that runs ``perceivers-live serve``, for example in a container
no value                                  this computer
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from engine.errors import UserError
from engine.text import one_line

CONNECT_TIMEOUT = 10  # seconds, of ssh
PROGRAM = "perceivers-live serve"
_SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}", "-o", "IPQoS=af21")  # af21: not bulk data
_NAME = re.compile(r"[\w.:%][\w.:%-]*")  # a host or user; never an option of ssh
_SSH_ERRORS = {  # text in the output of ssh -> message for the user
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "the host key of {host} has changed: see `ssh {host}`",
    "Host key verification failed": "the host key of {host} is not known here: run `ssh {host}` once and confirm it",
    "Permission denied": "{host} refuses the keys that ssh offers: `ssh {host}` must work without a password",
    "Could not resolve hostname": "host {host} does not exist",
    "Connection refused": "{host} runs no ssh server (connection refused)",
    "timed out": f"{{host}} did not answer ssh within {CONNECT_TIMEOUT} s",
    "No route to host": "{host} cannot be reached (no route to host)",
    "Network is unreachable": "{host} cannot be reached (network is unreachable)",
}
_NOT_FOUND = re.compile(r"not found|no such file|not recognized|unknown command", re.IGNORECASE)


class AddressError(UserError, ValueError):
    """A value of ``--engine`` that is not an address; the message is one line."""


@dataclass(frozen=True)
class Address:
    """``command`` starts the server. ``name`` is for messages. ``host``: for ssh, the host without user and port."""

    command: tuple[str, ...]
    name: str
    host: str | None = None
    local: bool = False  # on this computer, with this installation and this checkpoint

    def env(self) -> dict[str, str] | None:
        """The environment of the process, None: unchanged. A local process imports this installation from any working folder."""
        if not self.local:
            return None
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def this_computer(runtime: str, checkpoint: Path, threads: int) -> Address:
    """The address of a local process of this installation."""
    level = logging.getLogger("engine").getEffectiveLevel()
    options = ("--runtime", runtime, "--checkpoint", str(checkpoint), "--threads", str(threads), "--log-level", str(level))
    return Address((sys.executable, "-m", "engine.remote.serve", *options), "the model's process", local=True)


def parse(text: str, runtime: str = "auto", threads: int = 0) -> Address:
    """The address in ``text``. ``runtime`` and ``threads`` are passed on to a server started by ssh, unless they are the
    defaults. Raises ``AddressError``.
    """
    if text.startswith("ssh://"):
        return _ssh(text, runtime, threads)
    if "://" in text.partition(" ")[0]:
        raise AddressError(f"--engine {one_line(text)}: allowed are ssh:// or a command")
    try:
        command = tuple(shlex.split(text, posix=sys.platform != "win32"))
    except ValueError as error:
        raise AddressError(f"--engine {one_line(text)}: not a command ({error})") from error
    if not command:
        raise AddressError("--engine: found nothing, allowed are ssh://[user@]host[:port][/checkpoint] or a command")
    return Address(command, one_line(Path(command[0]).name))


def _host(netloc: str) -> str:
    """The host of ``user@host:port``. Unlike ``urlsplit``, keeps upper case: it may be an alias in ssh's configuration."""
    host = netloc.rpartition("@")[2]
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _ssh(text: str, runtime: str, threads: int) -> Address:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise AddressError(f"--engine {one_line(text)}: {error}") from error
    host, user = _host(parts.netloc), parts.username
    for name in (host, *([] if user is None else [user])):
        if not _NAME.fullmatch(name):
            raise AddressError(f"--engine {one_line(text)}: allowed is ssh://[user@]host[:port][/checkpoint]")
    if parts.password is not None or parts.query or parts.fragment:
        raise AddressError(f"--engine {one_line(text)}: allowed is ssh://[user@]host[:port][/checkpoint], without a password")
    target = host if user is None else f"{user}@{host}"
    remote = PROGRAM.split()
    if runtime != "auto":
        remote += ["--runtime", runtime]
    if threads:
        remote += ["--threads", str(threads)]
    folder = unquote(parts.path)
    folder = folder[3:] if folder.startswith("/~/") else folder
    if folder.strip("/"):
        remote += ["--checkpoint", folder]
    ports = () if port is None else ("-p", str(port))
    return Address((*_SSH, *ports, "--", target, shlex.join(remote)), target, host=target)


def start_failure(address: Address, status: int | None, lines: Sequence[str]) -> str:
    """Why the server did not start, in one line; ``status`` is its exit status, ``lines`` are its
    last lines on standard error.
    """
    text = "\n".join(lines)
    if address.host is not None:
        for found, meaning in _SSH_ERRORS.items():
            if found in text:
                return meaning.format(host=address.host)
    if status == 127 or (lines and _NOT_FOUND.search(lines[-1])):
        where = f"at {address.host}" if address.host is not None else "by the command"
        advice = f'give its path: --engine "ssh {address.host} /path/to/{PROGRAM}"' if address.host else one_line(text)
        return f"{PROGRAM.split()[0]} is not found {where}: {advice}"
    last = f": {one_line(lines[-1])}" if lines else ""
    return f"{address.name} ended with status {status}{last}"
