"""Headless Chromium with the daemon's page."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.live.waiting import until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REQUIRED = os.environ.get("PERCEIVERS_LIVE_REQUIRE_BROWSER") == "1"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="needs Chromium (Debian: chromium)")
PHRASE = ("KeyC", "KeyE", "KeyG", "KeyT", "KeyU", "KeyT", "KeyE", "KeyC")


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """A browser tab with the page. An error in the page's scripts fails the test."""

    def __init__(self, browser: Browser, url: str, width: int = 1280, height: int = 800) -> None:
        self.faults: list[str] = []
        self._context = browser.new_context(viewport={"width": width, "height": height})
        self.page: Page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(url)
        self.until(lambda: self.ask("perceivers.daemon.session") and self.ask("perceivers.connection.now") is not None)

    def close(self) -> None:
        self._context.close()
        assert not self.faults

    def ask(self, expression: str) -> Any:
        """Evaluates a JavaScript expression in the page."""
        return self.page.evaluate(expression)

    def until(self, condition: Callable[[], object]) -> None:
        until(condition, lambda: (self.status, self.faults, self.ask("JSON.stringify(perceivers.daemon)")))

    @property
    def status(self) -> str:
        """The status line, which shows whose turn it is."""
        return self.page.inner_text("#status")

    @property
    def value(self) -> dict[str, Any]:
        """The values of the controls as the page shows them."""
        script = """Object.fromEntries([...document.querySelectorAll("#controls input")].map((one) =>
            [one.id.replace("control-", ""), one.type === "checkbox" ? one.checked : one.valueAsNumber]))"""
        return dict(self.ask(script))

    def play(self, *codes: str) -> None:
        """Plays detached notes on the computer keyboard."""
        for code in codes or PHRASE:
            self.page.keyboard.down(code)
            time.sleep(0.12)
            self.page.keyboard.up(code)

    def sounds(self) -> float:
        """The present level of the page's own piano."""
        return float(self.ask("perceivers.sound.level()"))
