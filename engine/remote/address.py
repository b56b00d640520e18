"""Where the model computes: what ``--engine`` says, the command that starts the process there, and what it means if that fails.

ssh://[user@]host[:port][/checkpoint]     ``perceivers-live serve`` there, through the user's own ssh: keys, agent, known
                                          hosts and jump hosts as configured for it; /~/folder is below the home folder
anything else                             a command that runs ``perceivers-live serve``, in a container for example
nothing                                   this machine
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

from engine.config import one_line
from engine.errors import UserError

CONNECT = 10  # seconds that ssh has for the connection
PROGRAM = "perceivers-live serve"
_SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT}", "-o", "IPQoS=af21")  # af21: not bulk data
_NAME = re.compile(r"[\w.:%][\w.:%-]*")  # of a host or user: nothing that ssh could take for an option
_SAYS = {  # what is found in the last lines -> what it means; {host} is put in
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "{host} has another host key than it had: see `ssh {host}`",
    "Host key verification failed": "the host key of {host} is not known here: confirm it once by hand, `ssh {host}`",
    "Permission denied": "{host} refuses the keys that ssh offers: `ssh {host}` has to work without a password",
    "Could not resolve hostname": "there is no host named {host}",
    "Connection refused": "{host} is there, but no ssh server answers (connection refused)",
    "timed out": f"{{host}} did not answer ssh within {CONNECT} s",
    "No route to host": "there is no way to {host} (no route to host)",
    "Network is unreachable": "there is no way to {host} (network is unreachable)",
}
_ABSENT = re.compile(r"not found|no such file|not recognized|unknown command", re.IGNORECASE)


class AddressError(UserError, ValueError):
    """What ``--engine`` says is no address; the message is one line."""


@dataclass(frozen=True)
class Address:
    """``command`` starts the process; ``name``: what to call it in messages; ``host``: for ssh, as ssh is given it."""

    command: tuple[str, ...]
    name: str
    host: str | None = None
    here: bool = False  # on this machine, with this installation and this checkpoint

    def env(self) -> dict[str, str] | None:
        """The environment of the process, None: as it is. Here, what is imported is this installation, wherever we are."""
        if not self.here:
            return None
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def this_machine(runtime: str, checkpoint: Path, threads: int) -> Address:
    """A process of this installation."""
    level = logging.getLogger("engine").getEffectiveLevel()
    options = ("--runtime", runtime, "--checkpoint", str(checkpoint), "--threads", str(threads), "--log-level", str(level))
    return Address((sys.executable, "-m", "engine.remote.serve", *options), "the model's process", here=True)


def parse(text: str, runtime: str = "auto", threads: int = 0) -> Address:
    """The address that ``text`` names. By ssh, ``runtime`` and ``threads`` are asked for there unless they are the defaults.
    Raises ``AddressError``.
    """
    if text.startswith("ssh://"):
        return _ssh(text, runtime, threads)
    if "://" in text.partition(" ")[0]:
        raise AddressError(f"--engine {one_line(text)}: only ssh:// is known, or a command")
    try:
        command = tuple(shlex.split(text, posix=sys.platform != "win32"))
    except ValueError as error:
        raise AddressError(f"--engine {one_line(text)}: no command ({error})") from error
    if not command:
        raise AddressError("--engine: found nothing, allowed are ssh://[user@]host[:port][/checkpoint] or a command")
    return Address(command, one_line(Path(command[0]).name))


def _ssh(text: str, runtime: str, threads: int) -> Address:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise AddressError(f"--engine {one_line(text)}: {error}") from error
    host, user = parts.hostname or "", parts.username
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


def explained(address: Address, status: int | None, lines: Sequence[str]) -> str:
    """Why the process could not be started or spoken to, in one line: ``status`` and ``lines`` are its last words."""
    text = "\n".join(lines)
    if address.host is not None:
        for found, meaning in _SAYS.items():
            if found in text:
                return meaning.format(host=address.host)
    if status == 127 or (lines and _ABSENT.search(lines[-1])):
        where = f"at {address.host}" if address.host is not None else "by the command"
        known = f'name it: --engine "ssh {address.host} /where/it/is/{PROGRAM}"' if address.host else one_line(text)
        return f"{PROGRAM.split()[0]} is not found {where}: {known}"
    last = f": {one_line(lines[-1])}" if lines else ""
    return f"{address.name} ended with status {status}{last}"
