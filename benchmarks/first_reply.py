"""Time from `git clone` to the first audible reply: python -m benchmarks.first_reply [--url REPOSITORY]

Runs the two commands of a new user: `git clone` into an empty folder, and there `./run page`, which installs everything into a
new environment. Then it opens the page in Chromium, plays a phrase with the computer keyboard, and waits until the page's piano
plays the reply. The phrase takes 1 s, after which the machine has to detect its end. Prints the time of each step in seconds.

Needs Chromium and ``pip install '.[dev]'``. pip uses its cache; ``PIP_NO_CACHE_DIR=1`` makes it download all packages.
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

from perceivers_live.commands.measuring import computer
from tests.free_port import free_port
from tests.live.browser import Visitor, chromium

ROOT = Path(__file__).parents[1]
SETTINGS = "[page]\nport = 0\n[osc]\nport = {port}\n"
AUDIBLE = 0.001  # root mean square of the page's audio output
URL_PREFIX = "the page is at "


class Steps:
    """Prints the time of each step and the total since the start."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def done(self, step: str) -> None:
        """Prints the time since the step before."""
        now = time.monotonic()
        print(f"{step:50}{now - self._last:8.1f}{now - self._began:8.1f}", flush=True)
        self._last = now


def address(run: subprocess.Popen[str]) -> str:
    """Waits until `./run page` prints the address of its page, and returns the address. Prints the other lines. Raises
    ``SystemExit`` if the command ends first.
    """
    assert run.stderr is not None
    for line in run.stderr:
        _, found, url = line.partition(URL_PREFIX)
        if found:
            threading.Thread(target=run.stderr.read, daemon=True).start()  # so that the command does not block on a full pipe
            return url.strip()
        print(f"    {line.rstrip()[:120]}", flush=True)
    raise SystemExit("./run page ended")


def play(url: str, steps: Steps) -> None:
    """Opens the page, plays a phrase and waits for the reply."""
    with chromium() as browser:
        visitor = Visitor(browser, url)
        steps.done("page opened")
        visitor.play()
        steps.done("phrase played")
        visitor.until(lambda: visitor.ask("perceivers.music.notes.some((note) => note.part === 'machine')"))
        visitor.until(lambda: visitor.sounds() > AUDIBLE)
        steps.done("reply audible")
        visitor.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=str(ROOT), help="repository to clone (default: the last commit of this checkout)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone, config = Path(folder, "perceivers-live"), Path(folder, "settings.toml")
        config.write_text(SETTINGS.format(port=free_port()), encoding="utf-8")
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env |= {"XDG_DATA_HOME": str(Path(folder, "data")), "PYTHONUNBUFFERED": "1"}
        print(f"{computer()}\n{'seconds':>56}{'sum':>10}")
        steps = Steps()
        subprocess.run(["git", "clone", "--quiet", options.url, str(clone)], check=True)
        steps.done("git clone")
        command = ["./run", "page", "--config", str(config)]
        with subprocess.Popen(
            command, cwd=clone, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        ) as run:
            try:
                url = address(run)
                steps.done("./run page: installation and start")
                play(url, steps)
            finally:
                os.killpg(run.pid, signal.SIGTERM)


if __name__ == "__main__":
    main()
