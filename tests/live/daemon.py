"""The daemon as a process, with its own user folders."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.live.jack_server import end
from tests.live.waiting import TIMEOUT

PROGRAM = (str(Path(sys.executable).with_name("perceivers-live")),)


class Home:
    """Folders for settings and data, so that the tests do not use those of the developer."""

    def __init__(self, folder: Path) -> None:
        self.settings = folder / "config" / "perceivers-live" / "perceivers_live.toml"
        self.midi_map = self.settings.with_name("midi_map.toml")
        self.data = folder / "data" / "perceivers-live"
        self.working = folder / "work"
        for made in (self.settings.parent, self.data, self.working):
            made.mkdir(parents=True, exist_ok=True)
        self.env = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), "XDG_DATA_HOME": str(folder / "data")}

    @property
    def sessions(self) -> list[Path]:
        """The recordings, oldest first."""
        return sorted((self.data / "sessions").glob("*.mid"))

    def configure(self, text: str) -> None:
        """Writes the settings file."""
        self.settings.write_text(text, encoding="utf-8")


class Daemon:
    """`perceivers-live` as a process on a JACK server; collects its stderr. ``program``: another command that starts it."""

    def __init__(self, arguments: tuple[str, ...], env: dict[str, str], home: Home, program: Sequence[str] = PROGRAM) -> None:
        self.process = subprocess.Popen(
            [*program, *arguments],
            env=env | home.env | {"PYTHONUNBUFFERED": "1"},
            cwd=home.working,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="daemon-stderr", daemon=True)
        self._reader.start()

    @property
    def lines(self) -> list[str]:
        """The lines of stderr so far."""
        with self._changed:
            return list(self._lines)

    def wait_for_line(self, regex: str, timeout: float = TIMEOUT, start: int = 0) -> re.Match[str]:
        """Waits for a line that contains a match, from line number `start` on; returns the match."""
        found: list[re.Match[str]] = []

        def settled() -> bool:
            found.extend(match for line in self._lines[start:] if (match := re.search(regex, line)))
            return bool(found) or self._ended

        with self._changed:
            in_time = self._changed.wait_for(settled, timeout)
        if not found:
            why = f"within {timeout} s" if not in_time else "before the daemon ended"
            raise AssertionError(f"no line like {regex!r} {why}; output:\n" + "\n".join(self.lines))
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the daemon."""
        self.process.send_signal(number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Waits for the daemon to end, and returns its exit status."""
        status = self.process.wait(timeout)
        self._reader.join(timeout)
        return status

    def end(self) -> None:
        """Ends the daemon if it runs. Kills it only after a timeout, because a killed client can block the JACK server."""
        end(self.process)
        self._reader.join(5)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                with self._changed:
                    self._lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
