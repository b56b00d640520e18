"""Frame times of the page at 30 notes per second, in Chromium without a GPU; and screenshots of the page.

    python -m benchmarks.page                     prints a table of frame times at three window sizes
    python -m benchmarks.page --pictures docs     writes screenshots of the page of a real daemon, for the README

Needs Chromium and ``pip install '.[dev]'``.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from playwright.sync_api import Browser

from perceivers_live.controls.registry import Controls
from perceivers_live.page.hub import Hub
from perceivers_live.page.keys import PageKeys
from perceivers_live.page.requests import PageRequests
from perceivers_live.page.routes import Routes
from perceivers_live.page.server import PageServer
from tests.live.browser import Visitor, chromium
from tests.live.daemon import Daemon, Home

SIZES = ((1440, 900), (1024, 768), (390, 844))
RATE = 30.0  # notes per second
MEASURED = 10.0  # seconds of measurement per window size
PORT: dict[str, object] = {"wanted": "page", "name": "page", "state": "open", "text": ""}
PHRASE = [f"Key{letter}" for letter in "CEGTUIUTYTERTEBC"]


@contextmanager
def busy_page() -> Iterator[str]:
    """Serves a page on which human and machine together play ``RATE`` notes per second, with notes planned a second ahead. Yields
    the page's address.
    """
    requests = PageRequests(Controls(), PageKeys(), session="benchmark")
    server = PageServer(Routes(lambda path, attributes: (HTTPStatus.NOT_FOUND, {})), requests.serve, requests.serve)
    ended = threading.Event()
    playing = threading.Thread(target=play, args=(requests.hub, ended))
    requests.hub.post(lambda: {"type": "ports", "inputs": [], "outputs": [], "input": PORT, "output": PORT | {"wanted": "Synth"}})
    playing.start()
    try:
        yield server.url
    finally:
        ended.set()
        playing.join()
        requests.close()
        server.close()


def play(hub: Hub, ended: threading.Event) -> None:
    """Posts random notes of both parts until ``ended`` is set."""
    rng = random.Random(7)
    number = 0
    while not ended.wait(1 / RATE):
        now, pitch, velocity = time.perf_counter(), rng.randint(30, 96), rng.randint(20, 110)
        part, at = ("human", now) if number % 2 else ("machine", now)
        on, off = [at, "on", pitch, velocity], [at - 0.0001, "off", rng.randint(30, 96), 0]
        planned = [[2 * number, now + 1, "on", pitch, velocity], [2 * number + 1, now + 1.2, "off", pitch, 0]]
        hub.post(lambda part=part, on=on, off=off: {"type": "played", "part": part, "events": [off, on]})  # type: ignore[misc]
        hub.post(lambda planned=planned: {"type": "planned", "events": planned})  # type: ignore[misc]
        number += 1


def frame_times(browser: Browser) -> None:
    """Prints the table of frame times."""
    print(f"{'window':>12} {'frames':>8} {'p50 ms':>8} {'p99 ms':>8} {'drawing p50 ms':>15} {'p99 ms':>8}")
    for width, height in SIZES:
        with busy_page() as url:
            visitor = Visitor(browser, url, width, height)
            time.sleep(MEASURED + 1)
            p50, p99 = (visitor.ask(f"perceivers.frames.percentile({share})") for share in (0.5, 0.99))
            drawn = [visitor.ask(f"perceivers.frames.work({share})") for share in (0.5, 0.99)]
            count = visitor.ask("perceivers.frames.count")
            visitor.close()
        print(f"{width:>7}x{height:<4} {count:>8} {p50:>8.1f} {p99:>8.1f} {drawn[0]:>15.2f} {drawn[1]:>8.2f}", flush=True)


def pictures(browser: Browser, folder: Path) -> None:
    """Screenshots of the page while the machine replies to a phrase: ``page.webp``, and ``page-moving.webp``, an animation."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as scratch:
        home = Home(Path(scratch))
        home.configure("[osc]\nenabled = false\n")
        daemon = Daemon(("page", "--page-port", "0", "--seed", "11", "--lookahead-ms", "1500"), dict(os.environ), home)
        try:
            url = daemon.wait_for_line(r"the page is at (http://\S+)")[1]
            visitor = Visitor(browser, url, 1280, 800)
            visitor.page.click("#stage")
            frames: list[Path] = []

            def screenshot() -> None:
                frames.append(Path(scratch) / f"{len(frames):03}.png")
                visitor.page.screenshot(path=frames[-1])

            for code in PHRASE:
                visitor.page.keyboard.down(code)
                time.sleep(0.1)
                screenshot()
                visitor.page.keyboard.up(code)
            while visitor.status != "The machine plays":
                screenshot()
            ends = time.monotonic() + 4
            while time.monotonic() < ends:
                screenshot()
            still = len(frames) - 1
            visitor.page.keyboard.down("KeyQ")
            for _ in range(12):
                screenshot()
            visitor.page.keyboard.up("KeyQ")
            visitor.close()
        finally:
            daemon.end()
        folder.mkdir(exist_ok=True)
        Image.open(frames[still]).save(folder / "page.webp", quality=80, method=6)
        moving = [Image.open(path).convert("RGB").resize((640, 400), Image.Resampling.LANCZOS) for path in frames]
        moving[0].save(
            folder / "page-moving.webp", save_all=True, append_images=moving[1:], duration=120, loop=0, quality=35, method=6
        )
        for path in (folder / "page.webp", folder / "page-moving.webp"):
            print(f"{path}: {path.stat().st_size // 1024} KB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="write screenshots to this folder instead of printing the table")
    options = parser.parse_args()
    with chromium() as browser:
        if options.pictures:
            pictures(browser, options.pictures)
        else:
            frame_times(browser)


if __name__ == "__main__":
    main()
