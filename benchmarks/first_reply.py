"""Time from `git clone` to the first reply that is heard: python -m benchmarks.first_reply [--url REPOSITORY]

Two commands, as a newcomer types them: `git clone` into an empty folder, and there `./run page`, which installs everything into a
new environment. Then a phrase is played on the page with the computer keyboard, in Chromium, until the page's piano sounds in the
machine's turn. The phrase takes 1 s, and the machine waits for the end of it. Prints the time of each step in seconds.

Needs Chromium and ``pip install '.[dev]'``. Packages come from pip's cache if they are there (``PIP_NO_CACHE_DIR=1`` avoids it).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from perceivers_live.commands.measuring import machine
from tests.live.browser import Visitor, chromium
from tests.live.remote import free_port

ROOT = Path(__file__).parents[1]
SETTINGS = "[page]\nport = 0\n[osc]\nport = {port}\n"
AUDIBLE = 0.001  # root mean square of the page's sound
FOUND = "the page is at "


class Steps:
    """Prints the time of each step and the sum."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def done(self, what: str) -> None:
        now = time.monotonic()
        print(f"{what:50}{now - self._last:8.1f}{now - self._began:8.1f}", flush=True)
        self._last = now


def address(run: subprocess.Popen[str]) -> str:
    """The page's address, once `./run page` prints it; its other lines are shown."""
    assert run.stderr is not None
    for line in run.stderr:
        _, found, url = line.partition(FOUND)
        if found:
            threading.Thread(target=run.stderr.read, daemon=True).start()  # so that it can go on writing
            return url.strip()
        print(f"    {line.rstrip()[:120]}", flush=True)
    raise SystemExit("./run page ended")


def play(url: str, steps: Steps) -> None:
    """Plays a phrase and waits for the reply."""
    with chromium() as browser:
        visitor = Visitor(browser, url)
        steps.done("the page is open")
        visitor.play()
        steps.done("a phrase is played")
        visitor.until(lambda: visitor.ask("perceivers.music.notes.some((note) => note.part === 'machine')"))
        visitor.until(lambda: visitor.sounds() > AUDIBLE)
        steps.done("the reply is heard")
        visitor.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--url", default=str(ROOT), help="what is cloned (default: this checkout's last commit)")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone, config = Path(folder, "perceivers-live"), Path(folder, "settings.toml")
        config.write_text(SETTINGS.format(port=free_port()), encoding="utf-8")
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env |= {"XDG_DATA_HOME": str(Path(folder, "data")), "PYTHONUNBUFFERED": "1"}
        print(f"{machine()}\n{'seconds':>56}{'sum':>10}")
        steps = Steps()
        subprocess.run(["git", "clone", "--quiet", given.url, str(clone)], check=True)
        steps.done("git clone")
        command = ["./run", "page", "--config", str(config)]
        with subprocess.Popen(
            command, cwd=clone, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        ) as run:
            try:
                url = address(run)
                steps.done("./run page: installed and started")
                play(url, steps)
            finally:
                os.killpg(run.pid, signal.SIGTERM)


if __name__ == "__main__":
    main()
